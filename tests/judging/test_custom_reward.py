"""A reward of the user's own: what it is told, what it adds, and what is said where it fails."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from small_vlms import tiny_qwen2_5_vl
from sparring.config import DefenderSettings, JudgeSettings
from sparring.data.errors import DataError, RecipeError
from sparring.data.records import Answer, Target, Verdict, VisualQuestion
from sparring.judging.judge import AttackJudge
from sparring.judging.rewards import reward_of
from sparring.models.vlms.local import LocalVLM
from sparring.selfplay.turns import reward_means

CUP = Target("cup", (8, 8, 40, 40))
QUESTION = VisualQuestion("kitchen-4", Path("q.png"), "Where?", ("left", "right"), "A", (CUP,))
Own = Callable[..., Any]
Name = Callable[[Own], str]


@pytest.fixture(scope="module")
def defender(tmp_path_factory: pytest.TempPathFactory) -> LocalVLM:
    return LocalVLM.load(tiny_qwen2_5_vl(tmp_path_factory.mktemp("defender")))


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Name:
    """Gives a function the name by which a recipe can call it."""

    def named(function: Own) -> str:
        module = ModuleType("somebodys_rewards")
        module.pay = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return f"{module.__name__}:pay"

    return named


def clean() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def dotted(*place: int) -> Image.Image:
    """The clean picture with one other pixel, which harms no target."""
    image = clean()
    image.putpixel(place, (1, 2, 3))
    return image


def broken() -> Image.Image:
    image = clean()
    image.paste((128, 128, 128), (8, 8, 40, 40))
    return image


def judged(defender: LocalVLM, reward: dict[str, Any] | None, edits: list[Image.Image]) -> list[Verdict]:
    """The verdicts on edits of one picture; this Defender is never right, so that accepted ones earn 1."""
    settings = JudgeSettings.model_validate({"dense_weight": 0.0, "reward": reward})
    judge = AttackJudge(defender, None, settings, DefenderSettings(model="tiny", max_new_tokens=3))
    (verdicts,) = judge.judge([QUESTION], [clean()], [edits])
    return verdicts


def test_it_adds_to_the_reward_of_accepted_edits_alone(defender: LocalVLM, name: Name) -> None:
    told: list[tuple[Any, ...]] = []

    def pay(*given: Any, bonus: float) -> float:
        told.append(given)
        return bonus + 0.25 * len(told)

    edits = [dotted(60, 60), broken(), clean(), dotted(61, 60)]
    plain = judged(defender, None, edits)
    paid = judged(defender, {"call": name(pay), "weight": 2.0, "arguments": {"bonus": 0.5}}, edits)
    assert [v.reward for v in plain] == [1.0, 0.0, 0.0, 1.0]
    assert [v.reward for v in paid] == [1.0 + 2 * 0.75, 0.0, 0.0, 1.0 + 2 * 1.0]
    assert [v.notes.get("custom") for v in paid] == [0.75, None, None, 1.0]
    assert [v.notes["reward_custom"] for v in paid] == [1.5, 0.0, 0.0, 2.0]
    question, before, after, verdict, answers = told[0]
    assert (question, before.tobytes(), after.tobytes()) == (QUESTION, clean().tobytes(), edits[0].tobytes())
    assert verdict == plain[0]
    assert all(isinstance(answer, Answer) and not answer.right for answer in answers)
    assert len(answers) == 1


def test_the_parts_still_add_up_in_an_updates_metrics(defender: LocalVLM, name: Name) -> None:
    verdicts = judged(defender, {"call": name(lambda *given: 0.5)}, [dotted(60, 60), broken()])
    means = reward_means(verdicts)
    assert means == {"reward_efficacy": 0.5, "reward_custom": 0.25}
    assert reward_of(means) == np.mean([verdict.reward for verdict in verdicts])


def test_without_one_nothing_is_noted(defender: LocalVLM) -> None:
    (verdict,) = judged(defender, None, [dotted(60, 60)])
    assert not [note for note in verdict.notes if "custom" in note]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.5", np.zeros(2)])
def test_what_is_no_finite_number_is_an_error_that_names_the_question(
    defender: LocalVLM,
    name: Name,
    value: Any,
) -> None:
    with pytest.raises(
        DataError, match=r'"kitchen-4": judge.reward "somebodys_.*" must return a number that'
    ):
        judged(defender, {"call": name(lambda *given: value)}, [dotted(60, 60)])


def test_what_it_raises_is_told_with_the_question(defender: LocalVLM, name: Name) -> None:
    def pay(*given: Any) -> float:
        raise ZeroDivisionError("no area")

    with pytest.raises(DataError, match=r'"kitchen-4".* failed: ZeroDivisionError: no area'):
        judged(defender, {"call": name(pay)}, [dotted(60, 60)])


def test_what_cannot_be_had_is_an_error_before_anybody_is_asked(defender: LocalVLM, name: Name) -> None:
    with pytest.raises(RecipeError, match=r'judge\.reward\.call: "no\.such:pay" cannot be imported'):
        judged(defender, {"call": "no.such:pay"}, [])
    with pytest.raises(RecipeError, match=r"judge\.reward\.arguments do not fit"):
        judged(defender, {"call": name(lambda *given: 0.0), "arguments": {"colour": 1}}, [])
