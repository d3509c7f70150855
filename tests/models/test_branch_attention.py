"""Attention of branches where heads share keys and values: against transformers' own, alone and inside the
sampling of replies.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.data.errors import ModelError
from sparring.models.vlms import attention, generating
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.branches import (
    additive,
    branch_mask,
    flex_mask,
    lay_out,
    of_each_prompt,
    one_row_each,
    picture_counts,
    step_mask,
)
from sparring.models.vlms.local import LocalVLM


@pytest.mark.parametrize("key_heads", [1, 2, 3, 6])
def test_equals_transformers(key_heads: int) -> None:
    generator = torch.Generator().manual_seed(key_heads)
    mask = additive(step_mask(torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]), 5, 3), torch.float64)
    query = torch.randn(2, 6, 5, 8, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 2, key_heads, mask.shape[-1], 8, generator=generator, dtype=torch.float64)
    module: Any = SimpleNamespace(num_key_value_groups=6 // key_heads, is_causal=True)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    found, _ = attention.attend_in_groups(
        module, query, key, value, mask.repeat(1, 1, 6 // key_heads, 1), scaling=0.3
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("pictures", "rows", "expected"),
    [
        ([1, 1], [10, 20], [1, 1]),  # a row a picture
        ([2, 1], [10, 11, 20], [2, 1]),
        ([1, 1], [10, 11, 12, 20], [3, 1]),  # a row a tile of two tokens
        ([2, 2], [10, 20], [1, 1]),  # a row a prompt
    ],
)
def test_pictures_in_tiles_stay_with_their_prompts(
    pictures: list[int], rows: list[int], expected: list[int]
) -> None:
    token = 7
    batch = {
        "pixel_values": torch.tensor(rows),
        "input_ids": torch.tensor([[7, 7, 1, 7, 7, 1, 7, 7], [1, 1, 1, 1, 1, 7, 7, 1]]),
    }
    batch["picture_count"] = picture_counts(batch, pictures, token)
    assert batch["picture_count"].tolist() == expected
    first, second = of_each_prompt(batch, "pixel_values")
    assert all(row < 20 for row in first)
    assert second.tolist() == [20]
    repeated = one_row_each(batch, [1, 2])
    assert repeated["pixel_values"].tolist() == [*first.tolist(), 20, 20]


def test_rows_of_pictures_that_cannot_be_shared_out_are_refused_where_that_is_needed() -> None:
    ids = torch.tensor([[7, 7, 1], [7, 1, 1]])
    for rows, token in ((5, 7), (5, None), (4, 1)):  # 1: a token a picture, whatever its tiles
        batch = {"pixel_values": torch.zeros(rows, 3), "input_ids": ids}
        batch["picture_count"] = picture_counts(batch, [1, 2], token)
        with pytest.raises(ModelError, match=f"{rows} rows of pictures belong to which of 2 prompts"):
            of_each_prompt(batch, "pixel_values")


def test_attention_in_blocks_needs_its_mask() -> None:
    states = torch.zeros(1, 2, 4, 16)
    with pytest.raises(ValueError, match="block mask"):
        attention.attend_in_blocks(torch.nn.Identity(), states, states, states, None)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 2), (6, 2)])
def test_attention_in_blocks_is_compiled_for_rows_of_every_length_at_once(heads: int, key_heads: int) -> None:
    graphs = []
    for seed, (prompt, replies) in enumerate(
        [(7, [4, 2]), (150, [30, 3, 9]), (33, [80]), (260, [5, 5, 5, 5]), (90, [2, 60])]
    ):
        branch = lay_out([[[1] * length for length in replies], [[1] * 3]], pad=0).branch_PS
        shown = torch.ones(2, prompt, dtype=torch.long)
        shown[1, : prompt // 2] = 0
        dense = branch_mask(shown, branch)
        generator, length = torch.Generator().manual_seed(seed), dense.shape[-1]
        query = torch.randn(2, heads, length, 16, generator=generator)
        key, value = torch.randn(2, 2, key_heads, length, 16, generator=generator)
        with torch.no_grad():
            found, _ = attention.attend_in_blocks(
                torch.nn.Identity(), query, key, value, flex_mask(shown, branch), scaling=0.3
            )
        key, value = (states.repeat_interleave(heads // key_heads, dim=1) for states in (key, value))
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=additive(dense, torch.float32), scale=0.3
        )
        torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[-1] - graphs[0] <= 1  # rows of a single block, such as the first, are a case of their own


@pytest.mark.parametrize("family", [tiny_qwen2_5_vl, tiny_llava])
def test_replies_are_the_same_and_the_model_is_left_as_it_was(
    family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = LocalVLM.load(family(tmp_path))
    sampling = Sampling(6, 1.0, seed=3, n=4)
    calls, attend = [], attention.functional.scaled_dot_product_attention

    def counted(*given: Any, **options: Any) -> Any:
        calls.extend([1] if "attn_mask" in options else [])  # the vision tower's come without a mask
        return attend(*given, **options)

    monkeypatch.setattr(attention, "functional", SimpleNamespace(scaled_dot_product_attention=counted))
    grouped = vlm.generate(noise_pictures(2), ["Where?", "What is it?"], sampling)
    assert len(calls) == 5 * 2  # layers, and steps after the first token
    assert vlm.model.config.get_text_config()._attn_implementation == "sdpa"
    # has no other way than to copy keys and values
    vlm.model.config.get_text_config()._attn_implementation = "eager"
    plain = vlm.generate(noise_pictures(2), ["Where?", "What is it?"], sampling)
    assert len(calls) == 5 * 2
    for one, other in zip(grouped, plain, strict=True):
        for reply, same in zip(one, other, strict=True):
            assert reply.token_ids == same.token_ids
            assert reply.logprobs == pytest.approx(same.logprobs, abs=1e-5)


def test_without_groups_nothing_is_other_than_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path, text={"num_key_value_heads": 4}))
    monkeypatch.setattr(generating, "GROUPED", "no such attention")
    vlm.generate(noise_pictures(1), ["Where?"], Sampling(3, n=3, temperature=1.0))
