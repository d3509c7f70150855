"""Sampling and scoring of vision-language models, against transformers' own generate and its plain forward
pass.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.data.errors import DataError, ModelError
from sparring.models.vlms import generating
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.generating import choose, token_logprobs
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.processors import load_processor

FAMILIES = {"qwen": tiny_qwen2_5_vl, "llava": tiny_llava}
PROMPTS = ["Where is the cup?", "Is it red or blue, and how many are there?", "Why?"]
PICTURES = noise_pictures(3)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def vlm(folder: Path) -> LocalVLM:
    return LocalVLM.load(folder)


@pytest.fixture(params=[True, False], ids=["shared_rows", "own_rows"])
def both(vlm: LocalVLM, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LocalVLM:
    assert vlm.shares_rows
    monkeypatch.setattr(vlm, "shares_rows", request.param)
    return vlm


def plain_inputs(vlm: LocalVLM, image: Image.Image, prompt: str) -> Any:
    """One prompt through transformers' own path: template, then processor."""
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    text = vlm.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    return vlm.processor(images=[image], text=[text], return_tensors="pt")


def plain_logprobs(
    vlm: LocalVLM, image: Image.Image, prompt: str, tokens: Sequence[int], temperature: float
) -> Tensor:
    """Log-probabilities of one reply by one plain forward pass over prompt and reply, positions and mask left
    to transformers.
    """
    inputs = dict(plain_inputs(vlm, image, prompt))
    length = inputs["input_ids"].shape[1]
    reply = torch.tensor([list(tokens)])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], reply], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(reply)], 1)
    logits = vlm.model(**inputs).logits[0, length - 1 : -1].float() / temperature
    logits[:, list(vlm.forbidden)] = -torch.inf
    return logits.log_softmax(-1).gather(1, reply.T).squeeze(1)


def test_a_model_that_is_let_go_of_is_freed_at_once(tmp_path: Path) -> None:
    model = LocalVLM.load(tiny_qwen2_5_vl(tmp_path))
    assert model.traits.identity
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_greedy_equals_transformers_generate(both: LocalVLM) -> None:
    replies = both.generate(PICTURES, PROMPTS, Sampling(24))
    ends = 0
    for picture, prompt, (reply,) in zip(PICTURES, PROMPTS, replies, strict=True):
        inputs = plain_inputs(both, picture, prompt)
        expected = both.model.generate(
            **inputs, max_new_tokens=24, do_sample=False, suppress_tokens=list(both.forbidden)
        )
        assert list(reply.token_ids) == expected[0, inputs["input_ids"].shape[1] :].tolist()
        ends += reply.finished
    assert len({reply.token_ids for (reply,) in replies}) == 3


def test_ends_where_the_end_token_is(vlm: LocalVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = vlm.generate(PICTURES[:1], PROMPTS[:1], Sampling(8, temperature=1.0, seed=3))[0]
    end = whole.token_ids[4]
    monkeypatch.setattr(vlm, "end_tokens", (end,))
    (cut,) = vlm.generate(PICTURES[:1], PROMPTS[:1], Sampling(8, temperature=1.0, seed=3))[0]
    length = whole.token_ids.index(end) + 1
    assert cut.token_ids == whole.token_ids[:length]
    assert cut.finished
    assert len(cut.logprobs) == length
    assert not whole.finished
    assert len(whole.token_ids) == 8


def test_all_replies_end_at_their_own_place(both: LocalVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(both, "end_tokens", (-1,))
    whole = both.generate(PICTURES, PROMPTS, Sampling(10, n=3, temperature=1.0, seed=1))
    end = whole[1][2].token_ids[2]
    monkeypatch.setattr(both, "end_tokens", (end,))
    cut = both.generate(PICTURES, PROMPTS, Sampling(10, n=3, temperature=1.0, seed=1))
    for before, after in zip((r for own in whole for r in own), (r for own in cut for r in own), strict=True):
        length = before.token_ids.index(end) + 1 if end in before.token_ids else 10
        assert after.token_ids == before.token_ids[:length]
        assert after.finished is (end in before.token_ids)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_recorded_logprobs_are_the_plain_ones(both: LocalVLM, temperature: float) -> None:
    replies = both.generate(PICTURES, PROMPTS, Sampling(8, n=4, temperature=temperature, seed=2))
    for picture, prompt, own in zip(PICTURES, PROMPTS, replies, strict=True):
        assert len({reply.token_ids for reply in own}) == 4
        for reply in own:
            with torch.no_grad():
                expected = plain_logprobs(both, picture, prompt, reply.token_ids, temperature)
            torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=5e-5, rtol=0)


def test_recorded_logprobs_are_those_of_training(both: LocalVLM) -> None:
    replies = both.generate(PICTURES, PROMPTS, Sampling(9, n=3, temperature=0.7, seed=5))
    replies[0] = replies[0][:1]
    replies[2][1] = type(replies[2][1])("", replies[2][1].token_ids[:1], replies[2][1].logprobs[:1], True)
    logprobs, mask = both.completion_logprobs(
        both.encode(PICTURES, PROMPTS), [[r.token_ids for r in own] for own in replies], temperature=0.7
    )
    flat = [reply for own in replies for reply in own]
    assert mask.sum(1).tolist() == [len(reply.token_ids) for reply in flat]
    assert (logprobs[~mask] == 0).all()
    for row, reply in zip(logprobs, flat, strict=True):
        ratio = (row[: len(reply.logprobs)] - torch.tensor(reply.logprobs)).exp()
        assert (ratio - 1).abs().max() < 1e-4


def test_gradients_are_those_of_the_plain_pass(both: LocalVLM) -> None:
    replies = [[[5, 9, 33, 7], [40, 2]], [[11]], [[60, 61, 62], [60, 61, 63], [1, 2, 3, 4, 5]]]
    weights = [[1.0, -2.0], [3.0], [0.5, -1.5, 2.5]]
    parameters = both.trainable_parameters()
    logprobs, _ = both.completion_logprobs(both.encode(PICTURES, PROMPTS), replies, temperature=0.8)
    ours = torch.autograd.grad(
        (logprobs.sum(1) * torch.tensor([w for own in weights for w in own])).sum(),
        list(parameters.values()),
        allow_unused=True,
    )
    plain = sum(
        weight * plain_logprobs(both, picture, prompt, reply, 0.8).sum()
        for picture, prompt, own, own_weights in zip(PICTURES, PROMPTS, replies, weights, strict=True)
        for reply, weight in zip(own, own_weights, strict=True)
    )
    theirs = torch.autograd.grad(plain, list(parameters.values()), allow_unused=True)
    for name, got, expected in zip(parameters, ours, theirs, strict=True):
        assert (got is None) == (expected is None), name
        if got is not None:
            assert (got - expected).norm() <= 2e-4 * expected.norm() + 1e-6, name
    assert any(
        "vis" in name and gradient is not None and gradient.norm() > 0
        for name, gradient in zip(parameters, ours, strict=True)
    )


def test_batch_and_padding_change_nothing(both: LocalVLM) -> None:
    together = both.generate(PICTURES, PROMPTS, Sampling(8, n=2, temperature=1.0, seed=4))
    in_pieces = both.generate(PICTURES, PROMPTS, Sampling(8, n=2, temperature=1.0, seed=4, batch=2))
    for one, other in zip(
        (r for own in together for r in own), (r for own in in_pieces for r in own), strict=True
    ):
        assert one.token_ids == other.token_ids
        torch.testing.assert_close(
            torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=5e-5, rtol=0
        )
    assert together != both.generate(PICTURES, PROMPTS, Sampling(8, n=2, temperature=1.0, seed=5))


def test_pictures_of_different_sizes(tmp_path: Path) -> None:
    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path))
    pictures = [noise_pictures(1, size=size)[0] for size in ((64, 64), (112, 48), (32, 96))]
    replies = vlm.generate(pictures, PROMPTS, Sampling(6, n=2, temperature=1.0, seed=7))
    for picture, prompt, own in zip(pictures, PROMPTS, replies, strict=True):
        for reply in own:
            with torch.no_grad():
                expected = plain_logprobs(vlm, picture, prompt, reply.token_ids, 1.0)
            torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_samples_follow_the_temperature(both: LocalVLM, temperature: float) -> None:
    n = 2000
    (replies,) = both.generate(PICTURES[:1], PROMPTS[:1], Sampling(1, n=n, temperature=temperature, seed=11))
    drawn = torch.tensor([reply.token_ids[0] for reply in replies])
    with torch.no_grad():
        logits = both.model(**plain_inputs(both, PICTURES[0], PROMPTS[0])).logits[0, -1]
    logits[list(both.forbidden)] = -torch.inf
    for claimed in (1.0, 0.4):
        # Were the tokens drawn at the claimed temperature, their mean log-probability at it would be minus
        # its entropy.
        logprobs = (logits / claimed).log_softmax(-1)
        surprise = logprobs.masked_fill(logprobs == -torch.inf, 0.0)
        mean = (logprobs.exp() * surprise).sum()
        error = ((logprobs.exp() * (surprise - mean) ** 2).sum() / n).sqrt()
        assert bool((surprise[drawn].mean() - mean).abs() < 4 * error) is (claimed == temperature)


def test_nucleus_by_hand() -> None:
    logprobs = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().expand(1000, 4)
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = torch.bincount(choose(logprobs, uniform, greedy=False, top_p=0.75), minlength=4)
    assert drawn[0] == drawn[2] == 0
    assert drawn[1].item() == pytest.approx(625, abs=2)
    assert torch.bincount(choose(logprobs, uniform, greedy=False), minlength=4).tolist() == [
        150,
        500,
        50,
        300,
    ]
    assert (choose(logprobs, uniform, greedy=False, top_p=0.4) == 1).all()
    assert (choose(logprobs, uniform, greedy=True) == 1).all()


def test_placeholders_are_never_written(vlm: LocalVLM) -> None:
    logprobs = token_logprobs(
        torch.zeros(2, vlm.model.config.get_text_config().vocab_size), 1.0, vlm.forbidden
    )
    assert vlm.forbidden
    assert (logprobs[:, list(vlm.forbidden)] == -torch.inf).all()
    torch.testing.assert_close(logprobs.exp().sum(-1), torch.ones(2))


def test_option_probabilities_by_hand(vlm: LocalVLM) -> None:
    answers = ["\\boxed{B}", "no", "\\boxed{A} or so"]
    got = vlm.option_probabilities(PICTURES, PROMPTS, answers)
    one_by_one = torch.cat(
        [vlm.option_probabilities([p], [q], [a]) for p, q, a in zip(PICTURES, PROMPTS, answers, strict=True)]
    )
    torch.testing.assert_close(got, one_by_one, atol=1e-6, rtol=1e-4)
    for picture, prompt, answer, probability in zip(PICTURES, PROMPTS, answers, got, strict=True):
        tokens = vlm.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            expected = plain_logprobs(vlm, picture, prompt, tokens, 1.0).mean().exp()
        torch.testing.assert_close(probability, expected, atol=1e-6, rtol=1e-4)
    with pytest.raises(DataError, match="not empty"):
        vlm.option_probabilities(PICTURES[:1], PROMPTS[:1], [""])


def test_saved_folder_is_an_ordinary_checkpoint(vlm: LocalVLM, tmp_path: Path) -> None:
    vlm.save(tmp_path)
    again, plain = LocalVLM.load(tmp_path), AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.generate(PICTURES, PROMPTS, Sampling(6)) == vlm.generate(PICTURES, PROMPTS, Sampling(6))
    for name, tensor in vlm.model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor)
    assert {file.name for file in vlm.folder.iterdir()} == {file.name for file in tmp_path.iterdir()}


def test_adapter_is_saved_merged_and_alone(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    vlm = LocalVLM.load(folder)
    before = vlm.generate(PICTURES, PROMPTS, Sampling(6))
    vlm.prepare_training(train_vision=False, lora_rank=2, lora_alpha=4, seed=1)
    for (reply,), (other,) in zip(vlm.generate(PICTURES, PROMPTS, Sampling(6)), before, strict=True):
        assert reply.token_ids == other.token_ids
        assert reply.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    assert vlm.trainable_parameters()
    assert all(".lora_" in name and vlm.tower + "." not in name for name in vlm.trainable_parameters())
    with torch.no_grad():
        for i, parameter in enumerate(vlm.trainable_parameters().values()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) * 0.3)
    vlm.save(tmp_path)
    inputs = plain_inputs(vlm, PICTURES[0], PROMPTS[0])
    peft = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(folder), tmp_path / "adapter"
    ).eval()
    with torch.no_grad():
        expected = vlm.model(**inputs).logits
        merged = LocalVLM.load(tmp_path).model(**inputs).logits
        torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(peft(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(
            AutoModelForImageTextToText.from_pretrained(folder)(**inputs).logits, expected, atol=0.05
        )
    with pytest.raises(ModelError, match="already"):
        vlm.prepare_training(train_vision=True, lora_rank=2)


def test_the_adapter_starts_the_same_every_time(folder: Path) -> None:
    starts = []
    for seed in (1, 1, 2):
        torch.rand(seed)
        vlm = LocalVLM.load(folder)
        vlm.prepare_training(train_vision=True, lora_rank=2, seed=seed)
        assert any(name.startswith(vlm.tower) for name in vlm.trainable_parameters())
        starts.append(torch.cat([p.flatten() for p in vlm.trainable_parameters().values()]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_frozen_tower(folder: Path) -> None:
    vlm = LocalVLM.load(folder)
    vlm.prepare_training(train_vision=False)
    names = vlm.trainable_parameters()
    assert names
    assert not any(name.startswith(vlm.tower + ".") for name in names)
    vlm.prepare_training(train_vision=True)
    assert len(vlm.trainable_parameters()) == len(list(vlm.model.parameters()))


def test_pixel_limits(tmp_path: Path) -> None:
    folder = tiny_qwen2_5_vl(tmp_path / "qwen")
    vlm = LocalVLM.load(folder, min_pixels=32 * 32, max_pixels=32 * 32)
    assert vlm.encode(PICTURES[:1], PROMPTS[:1])["image_grid_thw"].tolist() == [[1, 4, 4]]
    with pytest.raises(ModelError, match="above max_pixels"):
        load_processor(folder, min_pixels=10**6, max_pixels=10)
    with pytest.raises(ModelError, match="unset"):
        load_processor(tiny_llava(tmp_path / "llava"), max_pixels=1024)


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing-here"):
        LocalVLM.load(tmp_path / "nothing-here")
    folder = tiny_llava(tmp_path / "no-template")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="chat template"):
        LocalVLM.load(folder)
    folder = tiny_llava(tmp_path / "no-weights")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        LocalVLM.load(folder)


def test_inputs_must_match(vlm: LocalVLM) -> None:
    with pytest.raises(DataError, match="as many"):
        vlm.encode(PICTURES, PROMPTS[:2])
    with pytest.raises(DataError, match="one list a prompt"):
        vlm.completion_logprobs(vlm.encode(PICTURES, PROMPTS), [[[1]]])


def counted_steps(vlm: LocalVLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the rows of every step of sampling, while replies are sampled."""
    rows: list[int] = []
    forward = vlm.model.forward

    def counting(*args: Any, **inputs: Any) -> Any:
        if "pixel_values" not in inputs:
            rows.append(len(inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(vlm.model, "forward", counting)
    return rows


@pytest.mark.parametrize(("n", "shares_rows"), [(4, True), (5, False), (1, True)])
def test_what_has_ended_is_left_out_and_the_replies_stay_the_same(
    vlm: LocalVLM, n: int, shares_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that are computed fall as prompts end, to those that four tokens a step need."""
    monkeypatch.setattr(vlm, "shares_rows", shares_rows)
    monkeypatch.setattr(vlm, "end_tokens", tuple(range(0, len(vlm.processor.tokenizer), 6)))
    images, prompts = noise_pictures(9), [f"Where is thing {i}?" for i in range(9)]
    sampling = Sampling(24, 1.0, seed=11, n=n)
    rows = counted_steps(vlm, monkeypatch)
    found = vlm.generate(images, prompts, sampling)
    computed = rows.copy()
    rows.clear()
    monkeypatch.setattr(generating, "FEWEST_TOKENS", 10**6)  # nothing is left out
    for own, again in zip(found, vlm.generate(images, prompts, sampling), strict=True):
        for reply, same in zip(own, again, strict=True):
            assert reply.token_ids == same.token_ids
            assert reply.logprobs == pytest.approx(same.logprobs, abs=1e-5)
    branches = n if shares_rows else 1
    lengths = torch.tensor([[len(reply.token_ids) for reply in own] for own in found])
    ends = lengths.amax(1) if shares_rows else lengths.flatten()
    fewest = -(-4 // branches)
    # The token of step s is computed for whoever has written s of them and not ended.
    assert computed == [max(int((ends > step).sum()), fewest) for step in range(1, len(computed) + 1)]
    assert rows == [len(ends)] * len(computed)
    assert sum(computed) < 0.8 * sum(rows)


def test_two_pictures_are_seen_in_their_order(tmp_path: Path) -> None:
    """Positions of several pictures are the model's own, as its processor and a plain forward pass
    have them.
    """
    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path / "m"))
    a, b = noise_pictures(2)
    batch = vlm.encode([(a, b), (b, a)], ["Same?", "Same?"])
    plain = {name: tensor for name, tensor in batch.items() if name != "position_ids"}
    with torch.inference_mode():
        theirs = vlm.model(**plain).logits[:, -1]
        ours = vlm.model(
            **{name: tensor for name, tensor in batch.items() if name != "mm_token_type_ids"}
        ).logits[:, -1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours[0], ours[1], atol=1e-3)
