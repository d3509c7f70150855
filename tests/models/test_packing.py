"""Packed rows against the ordinary padded batch of transformers: every prompt with each of its replies in a
row of its own, positions and mask left to the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl, tiny_qwen2_vl, tiny_qwen3_vl
from sparring.models.vlms.attention import IN_BLOCKS
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.branches import additive, branch_mask, flex_mask, lay_out
from sparring.models.vlms.generating import choose
from sparring.models.vlms.local import LocalVLM, Pictures

FAMILIES: dict[str, Callable[..., Path]] = {
    "qwen2": tiny_qwen2_vl,
    "qwen2.5": tiny_qwen2_5_vl,
    "qwen3": tiny_qwen3_vl,
}
FIRST, SECOND = noise_pictures(2)
WIDE = noise_pictures(1, size=(96, 32), seed=5)[0]
# Several groups in one micro-batch, of prompts and replies of all lengths.
PROMPTS: dict[str, list[tuple[Pictures, str]]] = {
    "text_only": [([], "Is seven a prime?"), ([], "Why?")],
    "one_picture": [(FIRST, "Where is the cup?"), (WIDE, "Is it red or blue?")],
    "two_pictures": [([FIRST, WIDE], "Which is larger?"), ([SECOND, FIRST], "What has changed?")],
    "all_of_these": [([], "Why?"), ([FIRST, SECOND], "Which is older?"), (WIDE, "How many are there?")],
}
REPLIES = [[[5, 9, 33, 7], [40, 2], [8]], [[60, 61, 62], [60, 61, 63, 70, 71]], [[1, 2, 3, 4, 5], [3]]]
WEIGHTS = [1.0, -2.0, 0.5, 3.0, -1.5, 2.0, -0.7]
TEMPERATURE = 0.8


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalVLM:
    return LocalVLM.load(FAMILIES[request.param](tmp_path_factory.mktemp(request.param), scale=2.0))


def padded_logprobs(
    vlm: LocalVLM, prompts: list[tuple[Pictures, str]], replies: list[list[list[int]]], side: str
) -> Tensor:
    """logprobs_NT by one forward pass over the padded batch, as transformers does it: prompt and pictures
    once for every reply.
    """
    rows = [
        (pictures, prompt, reply)
        for (pictures, prompt), own in zip(prompts, replies, strict=True)
        for reply in own
    ]
    turns = [
        [
            {
                "role": "user",
                "content": [{"type": "image", "image": p} for p in one_or_more(pictures)]
                + [{"type": "text", "text": prompt}],
            }
        ]
        for pictures, prompt, _ in rows
    ]
    encoded = [
        vlm.processor.apply_chat_template(
            [turn], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        for turn in turns
    ]
    whole = [
        torch.cat([one["input_ids"][0], torch.tensor(reply)])
        for one, (_, _, reply) in zip(encoded, rows, strict=True)
    ]
    kinds = [
        torch.cat([one["mm_token_type_ids"][0], torch.zeros(len(row[2]), dtype=torch.long)])
        for one, row in zip(encoded, rows, strict=True)
    ]
    pad = vlm.processor.tokenizer.pad_token_id
    inputs: dict[str, Any] = {
        "input_ids": torch.nn.utils.rnn.pad_sequence(
            whole, batch_first=True, padding_value=pad, padding_side=side
        ),
        "mm_token_type_ids": torch.nn.utils.rnn.pad_sequence(kinds, batch_first=True, padding_side=side),
        "attention_mask": torch.nn.utils.rnn.pad_sequence(
            [torch.ones_like(ids) for ids in whole], batch_first=True, padding_side=side
        ),
    }
    shown = [one for one in encoded if "pixel_values" in one]
    if shown:
        inputs |= {
            name: torch.cat([one[name] for one in shown]) for name in ("pixel_values", "image_grid_thw")
        }
    logits = vlm.model(**inputs).logits.float() / TEMPERATURE
    logits[..., list(vlm.forbidden)] = -torch.inf
    longest = max(len(ids) for ids in whole)
    found = logits.new_zeros(len(rows), max(len(reply) for _, _, reply in rows))
    for i, (ids, (_, _, reply)) in enumerate(zip(whole, rows, strict=True)):
        end = longest if side == "left" else len(ids)
        own = logits[i, end - len(reply) - 1 : end - 1].log_softmax(-1)
        found[i, : len(reply)] = own.gather(1, torch.tensor(reply).unsqueeze(1)).squeeze(1)
    return found


def one_or_more(pictures: Pictures) -> list[Any]:
    return list(pictures) if isinstance(pictures, list) else [pictures]


def packed_logprobs(
    vlm: LocalVLM, prompts: list[tuple[Pictures, str]], replies: list[list[list[int]]]
) -> Tensor:
    batch = vlm.encode([pictures for pictures, _ in prompts], [prompt for _, prompt in prompts])
    return vlm.completion_logprobs(batch, replies, temperature=TEMPERATURE)[0]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", PROMPTS)
def test_packed_equals_padded(vlm: LocalVLM, kind: str, side: str) -> None:
    prompts = PROMPTS[kind]
    replies = REPLIES[: len(prompts)]
    assert vlm.shares_rows
    parameters = vlm.trainable_parameters()
    results = []
    for logprobs in (packed_logprobs(vlm, prompts, replies), padded_logprobs(vlm, prompts, replies, side)):
        weighted = (logprobs.sum(1) * torch.tensor(WEIGHTS[: len(logprobs)])).sum()
        gradients = torch.autograd.grad(
            weighted, list(parameters.values()), allow_unused=True, materialize_grads=True
        )
        results.append((logprobs.detach(), torch.cat([gradient.flatten() for gradient in gradients])))
    (ours, our_gradient), (theirs, their_gradient) = results
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (our_gradient - their_gradient).norm() <= 1e-4 * their_gradient.norm()
    assert their_gradient.norm() > 0.1
    sees = torch.cat([torch.full((p.numel(),), "visual" in name) for name, p in parameters.items()])
    assert bool(our_gradient[sees].norm() > 0) is (kind != "text_only")


def test_own_rows_with_several_pictures(vlm: LocalVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = PROMPTS["all_of_these"]
    with torch.no_grad():
        together = packed_logprobs(vlm, prompts, REPLIES)
        monkeypatch.setattr(vlm, "shares_rows", False)
        torch.testing.assert_close(packed_logprobs(vlm, prompts, REPLIES), together, atol=1e-5, rtol=1e-5)


def test_a_reply_neither_sees_nor_moves_another(vlm: LocalVLM) -> None:
    prompts, swapped = PROMPTS["one_picture"], [list(own) for own in REPLIES[:2]]
    swapped[0][0] = [99, 98, 97, 96]
    with torch.no_grad():
        before, after = packed_logprobs(vlm, prompts, REPLIES[:2]), packed_logprobs(vlm, prompts, swapped)
    assert not torch.allclose(before[0], after[0], atol=1e-2)
    torch.testing.assert_close(before[1:], after[1:], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.6}, {"top_p": 0.7}, {"top_k": 5}, {"temperature": 1.3, "top_p": 0.8, "top_k": 9}],
)
def test_sampling_records_what_training_computes(vlm: LocalVLM, sampling: dict[str, Any]) -> None:
    images, prompts = (
        [own for own, _ in PROMPTS["all_of_these"]],
        [prompt for _, prompt in PROMPTS["all_of_these"]],
    )
    how = {"temperature": 1.0} | sampling
    replies = vlm.generate(images, prompts, Sampling(9, n=4, seed=3, **how))
    tokens = [[reply.token_ids for reply in own] for own in replies]
    with torch.no_grad():
        logprobs, mask = vlm.completion_logprobs(
            vlm.encode(images, prompts), tokens, temperature=how["temperature"]
        )
    for row, own_mask, reply in zip(logprobs, mask, [reply for own in replies for reply in own], strict=True):
        assert ((row[own_mask] - torch.tensor(reply.logprobs)).exp() - 1).abs().max() < 1e-4


def test_top_k_by_hand() -> None:
    logprobs = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().expand(1000, 4)
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert torch.bincount(choose(logprobs, uniform, greedy=False, top_k=2), minlength=4).tolist() == [
        0,
        625,
        0,
        375,
    ]
    # Of what top_k leaves, 0.625 and 0.375, the first alone reaches 0.6; of all tokens it would not.
    assert (choose(logprobs, uniform, greedy=False, top_k=2, top_p=0.6) == 1).all()
    assert len(choose(logprobs, uniform, greedy=False, top_p=0.6).unique()) == 2
    assert torch.equal(
        choose(logprobs, uniform, greedy=False, top_k=9), choose(logprobs, uniform, greedy=False)
    )


def test_what_cannot_share_rows_says_so_once(tmp_path: Path) -> None:
    sliding = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    folder = tiny_qwen2_5_vl(tmp_path, text=sliding)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            vlm = LocalVLM.load(folder)
            assert not vlm.shares_rows
            vlm.prepare_training(train_vision=True)
    assert [str(warning.message).partition(":")[2][:22] for warning in caught] == [" replies of a qwen2_5_"]
    assert "cannot share" in str(caught[0].message)
    prompts = PROMPTS["one_picture"]
    with torch.no_grad():
        torch.testing.assert_close(
            packed_logprobs(vlm, prompts, REPLIES[:2]),
            padded_logprobs(vlm, prompts, REPLIES[:2], "left"),
            atol=1e-5,
            rtol=1e-5,
        )


def test_flex_mask_is_the_dense_one() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    prompt_mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]])
    branch = lay_out(REPLIES, pad=0).branch_PS
    dense, sparse = branch_mask(prompt_mask, branch), flex_mask(prompt_mask, branch)
    query, key, value = torch.randn(
        3, *dense.shape[:1], 2, dense.shape[-1], 16, generator=torch.Generator().manual_seed(0)
    )
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=additive(dense, torch.float32)
    )
    with warnings.catch_warnings(action="ignore"):
        torch.testing.assert_close(
            flex_attention(query, key, value, block_mask=sparse), expected, atol=1e-5, rtol=1e-5
        )


# FlexAttention compiled for a CPU wants heads of 16 channels or more.
WIDE_HEADS: dict[str, Callable[[Path], Path]] = {
    "llava": lambda folder: tiny_llava(folder, head_dim=16),
    "qwen2.5": lambda folder: tiny_qwen2_5_vl(
        folder,
        text={
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", WIDE_HEADS)
def test_flex_attention_gives_the_same_logprobs(family: str, tmp_path: Path) -> None:
    """Compiled, forwards only on a CPU; backwards too where there is a GPU. Groups of unequal length, padded
    on both sides.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vlm = LocalVLM.load(WIDE_HEADS[family](tmp_path), device=device)
    prompts = [(FIRST, "Where is the cup?"), (SECOND, "Why?")]
    results = []
    for flex in (False, True):
        vlm.flex = flex
        vlm.model.config.get_text_config()._attn_implementation = IN_BLOCKS if flex else "sdpa"
        with torch.set_grad_enabled(device == "cuda"):
            logprobs = packed_logprobs(vlm, prompts, REPLIES[:2])
        gradients = (
            torch.autograd.grad(logprobs.sum(), list(vlm.trainable_parameters().values()), allow_unused=True)
            if device == "cuda"
            else ()
        )
        results.append([logprobs.detach(), *(gradient for gradient in gradients if gradient is not None)])
    for dense, sparse in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, atol=1e-4, rtol=1e-3)
    assert device == "cuda" or not LocalVLM.load(tmp_path).flex


def test_llava_takes_several_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = LocalVLM.load(tiny_llava(tmp_path))
    prompts: list[tuple[Pictures, str]] = [([FIRST, SECOND], "Which?"), (FIRST, "Where is the cup?")]
    with torch.no_grad():
        together = packed_logprobs(vlm, prompts, REPLIES[:2])
        monkeypatch.setattr(vlm, "shares_rows", False)
        torch.testing.assert_close(packed_logprobs(vlm, prompts, REPLIES[:2]), together, atol=1e-5, rtol=1e-5)
