"""The cache with room behind it: transformers' dynamic layer to the bit, with few copies of the whole."""

from __future__ import annotations

import torch
from transformers.cache_utils import DynamicLayer

from sparring.models.vlms.generating import RoomyLayer


def states(tokens: int, seed: int, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, 2, tokens, 4, generator=generator)
    return keys, values


def test_equals_transformers_layer_whatever_happens_to_it() -> None:
    ours, theirs = RoomyLayer(), DynamicLayer()
    rows = 3
    for step, tokens in enumerate((11, 2, 2, 2, 40, 2, 2)):
        found, expected = (layer.update(*states(tokens, step, rows)) for layer in (ours, theirs))
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(2) == theirs.get_mask_sizes(2)
        if step == 2:
            rows = 6
            ours.batch_repeat_interleave(2)
            theirs.batch_repeat_interleave(2)
        if step == 3:
            rows = 2
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor([4, 1]))
        if step == 4:
            ours.crop(-5)
            theirs.crop(-5)
    # What was handed out before a later step is left as it was.
    before = ours.keys.clone()
    handed_out = ours.keys
    ours.update(*states(2, 9, rows))
    assert torch.equal(handed_out, before)


def test_a_long_reply_moves_the_cache_a_few_times_only() -> None:
    layer = RoomyLayer()
    layer.update(*states(60, 0))
    places = set()
    for step in range(200):
        layer.update(*states(6, step))
        places.add(layer.keys.data_ptr())
    assert layer.get_seq_length() == 60 + 200 * 6
    assert len(places) < 12
    assert layer.held["keys"][1].shape[-2] < 1.3 * layer.get_seq_length() + 60


def test_rows_that_are_kept_keep_their_room() -> None:
    layer = RoomyLayer()
    layer.batch_select_indices(torch.tensor([0]))  # of an empty cache
    for step, tokens in enumerate((60, 6)):
        layer.update(*states(tokens, step))
    layer.batch_select_indices(torch.tensor([2, 0]))
    place = layer.keys.data_ptr()
    layer.update(*states(6, 2, rows=2))
    assert layer.keys.data_ptr() == place
