"""What is told beside the picture: shares, contents, and replies that go on from a thought."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from small_vlms import collect, noise_pictures, tiny_qwen2_5_vl
from sparring.asking.conditions import KINDS, Told, require_reasonings, tell
from sparring.config import DefenderSettings, TextSettings
from sparring.data.errors import DataError, RecipeError
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout
from sparring.defenders.trainer import DefenderTrainer
from sparring.models.vlms.local import LocalVLM

QUESTION = VisualQuestion(
    "q", Path("q.png"), "Colour?", ("red", "blue", "green"), "B", reasoning="a blue cup, so blue it is"
)


def settings(**text: Any) -> DefenderSettings:
    return DefenderSettings(
        model="none",
        prompt="{question}",
        prompts_per_step=2,
        group_size=4,
        max_new_tokens=3,
        max_refills=1,
        keep_reward_above=-1,
        keep_reward_below=2,
        text=TextSettings(**text),
    )


def test_shares_are_kept_and_drawn_from_the_place_alone() -> None:
    chosen = settings(**dict.fromkeys(KINDS, 0.1))
    told = tell([QUESTION] * 4000, chosen, 1, "step")
    counts = Counter(one.kind for one in told)
    assert all(counts[kind] == pytest.approx(400, abs=80) for kind in KINDS)
    assert counts[None] == pytest.approx(2400, abs=160)
    assert told == tell([QUESTION] * 4000, chosen, 1, "step") != tell([QUESTION] * 4000, chosen, 2, "step")
    assert tell([QUESTION], settings(), 1) == [Told("Colour?")]


def test_right_and_wrong_are_what_they_say() -> None:
    fields = {"caption": "{answer} {option}! ", "thought": "{reasoning}"}
    assert set(tell([QUESTION] * 9, settings(right_caption=1, **fields), 0)) == {
        Told("B blue! Colour?", kind="right_caption", hint="B")
    }
    wrong = tell([QUESTION] * 40, settings(wrong_caption=1, **fields), 0)
    assert {one.prompt for one in wrong} == {"A red! Colour?", "C green! Colour?"}
    assert set(tell([QUESTION] * 9, settings(right_thought=1, **fields), 0)) == {
        Told("Colour?", "a blue cup, so blue it is", "right_thought", "B")
    }
    wrong = tell([QUESTION] * 40, settings(wrong_thought=1, **fields), 0)
    assert {(one.prompt, one.start) for one in wrong} == {
        ("Colour?", f"a blue cup, so {colour} it is") for colour in ("red", "green")
    }


def test_missing_reasonings_are_told_before_training() -> None:
    bare = replace(QUESTION, id="bare", reasoning=None)
    own = {"thought": "{reasoning}"}
    require_reasonings([QUESTION], settings(**own, wrong_thought=0.5))
    require_reasonings([bare], settings(**own, right_caption=0.5))
    require_reasonings([bare], settings(wrong_thought=0.5))
    for kind in ("right_thought", "wrong_thought"):
        with pytest.raises(DataError, match='"bare": its reasoning does not name'):
            require_reasonings([QUESTION, bare], settings(**own, **{kind: 0.5}))


def test_what_cannot_be_told_is_an_error() -> None:
    bare = VisualQuestion("q7", Path("q.png"), "Colour?", ("red", "blue"), "B")
    with pytest.raises(DataError, match=r'"q7".*reasoning does not name the right option, "blue"'):
        tell([bare], settings(wrong_thought=1, thought="{reasoning}"), 0)
    with pytest.raises(RecipeError, match=r"defender\.text\.caption"):
        tell([bare], settings(right_caption=1, caption="{colour}"), 0)


def test_replies_go_on_from_a_thought_and_are_learned_as_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with and without one, of different lengths, in one batch: the ratio is 1 before the update."""
    texts: list[str] = []

    def reward(text: str, *_: Any, **__: Any) -> dict[str, float]:
        texts.append(text)
        return {"accuracy": float(len(texts) % 2)}

    monkeypatch.setattr(rollout, "answer_reward", reward)
    told = iter([[Told("Colour?", "It is red, ", "wrong_thought"), Told("Is that a colour?")]])
    monkeypatch.setattr(rollout, "tell", lambda *_: next(told))
    player = DefenderTrainer(LocalVLM.load(tiny_qwen2_5_vl(tmp_path)), settings(), seed=0)
    metrics = player.update(lambda _: [(image, QUESTION) for image in noise_pictures(2)], 0)
    assert metrics["ratio_first"] < 1e-4
    assert metrics["grad_norm"] > 0
    assert [text.startswith("It is red, ") for text in texts] == [True] * 4 + [False] * 4
    assert metrics["right_under_wrong_thought"] == sum(s.answer.right for s in player.sampled[:4]) / 4
    assert all(sampled.answer.tokens <= 3 for sampled in player.sampled)


def test_groups_are_perturbed_in_the_shares_of_the_settings(tmp_path: Path) -> None:
    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path))
    found = collect(
        vlm, lambda _: [(noise_pictures(1)[0], QUESTION)] * 2, settings(right_thought=1), seed=0, step=0
    )
    start = "The picture shows that the right option is blue."
    assert [group.start for group in found.groups] == [start] * 2
    assert all(answer.text.startswith(start) for group in found.groups for answer in group.answers)
