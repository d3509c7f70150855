"""Replies that are begun for the model: as if the model had written the beginning itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM


@pytest.mark.parametrize("family", [tiny_qwen2_5_vl, tiny_llava])
def test_a_start_counts_like_tokens_of_the_reply(family: Any, tmp_path: Path) -> None:
    """log p(start + rest | prompt) = log p(start | prompt) + log p(rest | prompt, start), for starts of
    different lengths and none.
    """
    vlm = LocalVLM.load(family(tmp_path))
    images, prompts, starts, rests = (
        noise_pictures(3),
        ["Is it?", "Or is it not so?", "Why"],
        ["I see ", "", "No"],
        ["it", "ab", "so"],
    )
    tokens = [[vlm.processor.tokenizer(text)["input_ids"] for text in texts] for texts in (starts, rests)]
    with torch.no_grad():
        whole_NT, _ = vlm.completion_logprobs(
            vlm.encode(images, prompts), [[[*a, *b]] for a, b in zip(*tokens, strict=True)]
        )
        begun_NT, mask_NT = vlm.completion_logprobs(
            vlm.encode(images, prompts, starts), [[b] for b in tokens[1]]
        )
    for row, (start, rest) in enumerate(zip(*tokens, strict=True)):
        torch.testing.assert_close(
            begun_NT[row, : len(rest)], whole_NT[row, len(start) : len(start) + len(rest)], atol=1e-5, rtol=0
        )
    assert mask_NT.sum() == sum(len(rest) for rest in tokens[1])


def test_sampling_goes_on_where_the_start_ends(tmp_path: Path) -> None:
    """The model's own greedy reply, its beginning given back to it, is gone on with to the same end."""
    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path))
    vlm.end_tokens = (-1,)
    letters = set(vlm.processor.tokenizer("abcdefghijklmnopqrstuvwxyz")["input_ids"])
    vlm.forbidden = tuple(token for token in range(len(vlm.processor.tokenizer)) if token not in letters)
    images, prompts = noise_pictures(2), ["Is it?", "Or is it not so?"]
    whole = [own[0] for own in vlm.generate(images, prompts, Sampling(8))]
    starts = [vlm.processor.tokenizer.decode(reply.token_ids[:3]) for reply in whole]
    rest = [own[0] for own in vlm.generate(images, prompts, Sampling(5), starts=starts)]
    assert [reply.token_ids for reply in rest] == [reply.token_ids[3:] for reply in whole]
    plain = vlm.generate(images, prompts, Sampling(8), starts=["", ""])
    assert [own[0] for own in plain] == whole
