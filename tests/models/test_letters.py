"""Replies that are begun for the model, and the letters' probabilities at its answer: against generation
itself and a plain forward pass.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from endpoint_server import serving
from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.config import EndpointSettings
from sparring.data.errors import DataError, ModelError
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.endpoint import EndpointVLM
from sparring.models.vlms.local import LocalVLM

PICTURES = noise_pictures(3)
PROMPTS = ["Where is the cup?", "Is it red or blue, and how many are there?", "Why?"]
FAMILIES = {"qwen": tiny_qwen2_5_vl, "llava": tiny_llava}


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalVLM:
    return LocalVLM.load(FAMILIES[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.mark.parametrize("shared", [True, False])
def test_a_begun_reply_goes_on_as_the_model_would(
    vlm: LocalVLM, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm, "shares_rows", shared)
    thoughts = ["left \\boxed{", "", "no"]
    tokens = [vlm.processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in thoughts]
    replies = vlm.generate(PICTURES, PROMPTS, Sampling(6), starts=thoughts)
    for i, (reply,) in enumerate(replies):
        # The same tokens, scored in one piece behind the prompt alone.
        whole = [*tokens[i], *reply.token_ids]
        logprobs, _ = vlm.completion_logprobs(vlm.encode(PICTURES[i : i + 1], PROMPTS[i : i + 1]), [[whole]])
        assert logprobs[0, len(tokens[i]) :].tolist() == pytest.approx(reply.logprobs, abs=5e-5)
    assert [r[0].token_ids for r in vlm.generate(PICTURES, PROMPTS, Sampling(6), starts=["", "", ""])] == [
        r[0].token_ids for r in vlm.generate(PICTURES, PROMPTS, Sampling(6))
    ]
    assert replies[0][0].token_ids != vlm.generate(PICTURES[:1], PROMPTS[:1], Sampling(6))[0][0].token_ids


def test_letters_are_scored_where_the_reply_names_one(vlm: LocalVLM) -> None:
    """With one token a character every place holds a token; the oracle is transformers' own forward pass over
    prompt and reply.
    """
    places = [0, None, 0]
    starts = ["so ", "", ""]
    found = vlm.try_letters(
        PICTURES,
        PROMPTS,
        ["ABC", "AB", "ABCD"],
        lambda i, text: _alphanumeric(text, places[i]),
        Sampling(16),
        starts=starts,
    )
    assert found[1].logprobs is None
    replies = vlm.generate(PICTURES, PROMPTS, Sampling(16), starts=starts)
    for i in (0, 2):
        place = _alphanumeric(found[i].text, places[i])
        assert place is not None
        logprobs = found[i].logprobs
        assert logprobs is not None
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPTS[i]}]}]
        text = vlm.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        inputs = dict(vlm.processor(images=[PICTURES[i]], text=[text], return_tensors="pt"))
        ids, decode = replies[i][0].token_ids, vlm.processor.tokenizer.decode
        before = next(
            n for n in range(len(ids)) if len(decode(ids[: n + 1], skip_special_tokens=True)) > place
        )
        said = torch.tensor(
            [[*vlm.processor.tokenizer(starts[i], add_special_tokens=False)["input_ids"], *ids[:before]]],
            dtype=torch.long,
        )
        inputs["input_ids"] = torch.cat([inputs["input_ids"], said], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(said)], 1)
        with torch.no_grad():
            logits = vlm.model(**inputs).logits[0, -1].float()
        logits[list(vlm.forbidden)] = -torch.inf
        letters = ["ABC", "AB", "ABCD"][i]
        expected = logits.log_softmax(-1)[vlm.processor.tokenizer.convert_tokens_to_ids(list(letters))]
        assert logprobs == pytest.approx(expected.tolist(), abs=5e-5)


def _alphanumeric(text: str, place: int | None) -> int | None:
    """The first letter or digit from `place` on, so that a letter could stand there."""
    return (
        None
        if place is None
        else next((i for i in range(place, len(text)) if text[i].isalnum() and text[i].isascii()), None)
    )


def served(image: Any, body: dict[str, Any]) -> dict[str, Any]:
    """A server that gives the likeliest tokens; its reply goes on from what was begun."""
    if body["messages"][-1]["role"] == "assistant":
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
        return {"text": f"goes on from {body['messages'][-1]['content']!r}"}
    tokens = [
        {"token": "left ", "logprob": -0.1, "top_logprobs": [{"token": "left ", "logprob": -0.1}]},
        {"token": "\\boxed", "logprob": 0.0, "top_logprobs": []},
        {
            "token": "{B",
            "logprob": -0.5,
            "top_logprobs": [{"token": "{B", "logprob": -0.5}, {"token": "{A", "logprob": -1.5}],
        },
        {"token": "}", "logprob": 0.0, "top_logprobs": []},
    ]
    return {"text": "left \\boxed{B}"} | ({"logprobs": {"content": tokens}} if body.get("logprobs") else {})


def test_letters_behind_an_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import endpoint_server

    plain = endpoint_server.completion

    def completion(model: str, said: dict[str, Any]) -> dict[str, Any]:
        logprobs = said.pop("logprobs", None)
        answer = plain(model, said)
        answer["choices"][0] |= {"logprobs": logprobs}
        return answer

    monkeypatch.setattr(endpoint_server, "completion", completion)
    with serving(served) as server:
        vlm = EndpointVLM(f"{server.url}#toy", EndpointSettings(), cache=tmp_path / "answers.sqlite")
        for _ in range(2):  # the second time from the file
            (found,) = vlm.try_letters(
                PICTURES[:1], ["?"], ["ABC"], lambda i, text: text.index("B"), Sampling(8)
            )
            assert found.text == "left \\boxed{B}"
            assert found.logprobs == (-1.5, -0.5, -math.inf)
        assert len(server.lines) == 1
        assert server.lines[0]["body"]["top_logprobs"] == 20
        (whole,) = vlm.try_letters(PICTURES[:1], ["?"], ["ABC"], lambda i, text: 0, Sampling(8))
        assert whole.logprobs is None  # "left " is a word, not a letter
        (reply,) = vlm.generate(PICTURES[:1], ["?"], Sampling(8), starts=["cup red, "])[0]
        assert reply.text == "goes on from 'cup red, '"
        with pytest.raises(DataError, match="1 beginnings of replies for 2 prompts"):
            vlm.generate(PICTURES[:2], ["?", "!"], Sampling(8), starts=["a"])
    with serving() as server, pytest.raises(ModelError, match="carry no log-probabilities"):
        EndpointVLM(f"{server.url}#toy", EndpointSettings()).try_letters(
            PICTURES[:1], ["?"], ["AB"], lambda i, text: 0, Sampling(8)
        )
