"""Prompts and rewards of the Defender."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparring.asking.prompts import render_prompt
from sparring.config import ConsistencySettings, DefenderSettings
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion
from sparring.defenders.rewards import answer_reward

SETTINGS = DefenderSettings(model="none")
QUESTION = VisualQuestion("q", Path("q.png"), "Where is {it}?", ("left", "right"), "B")


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"\boxed{B}", 1.0),
        ("it is right \\boxed{B}\n", 1.0),
        (r"\boxed{B. right}", 0.8),
        (r"\boxed{right}", 0.8),
        (r"\boxed{b}", 0.8),
        (r"\boxed{B}, I think", 0.8),
        (r"\boxed{B} \boxed{B}", 0.8),
        # Form alone earns nothing, and neither does a right answer outside a box.
        (r"\boxed{A}", 0.0),
        (r"\boxed{A} \boxed{B}", 0.0),
        ("B", 0.0),
        (r"\boxed{B", 0.0),
        ("", 0.0),
    ],
)
def test_accuracy_first_then_form(text: str, reward: float) -> None:
    assert sum(answer_reward(text, QUESTION, SETTINGS).values()) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"\boxed{B}", 1.0),
        (r"\boxed{B}, I think", 1.0),  # well formed wherever it stands
        (r"\boxed{B} \boxed{A}", 1.0),  # the first counts
        (r"<think>is it \boxed{B}?</think> \boxed{A}", 1.0),
        (r"\boxed{b} \boxed{B}", 1.0),  # the first bare capital before any other form
        (r"\boxed{b}", 0.8),
        (r"\boxed{ B }", 0.8),
        (r"\boxed {B}", 0.8),
        ("boxed(B)", 0.8),
        ("Boxed [b]", 0.8),
        (r"\boxed{A} \boxed{B}", 0.0),
        (r"\boxed{\text{B}}", 0.0),
        (r"\boxed{B.}", 0.0),
        (r"\boxed{B. right}", 0.0),
        (r"\boxed{right}", 0.0),
        (r"\boxed{B", 0.0),
        ("B", 0.0),
        ("", 0.0),
    ],
)
def test_the_released_reward(text: str, reward: float) -> None:
    settings = DefenderSettings(model="none", reward="released")
    assert sum(answer_reward(text, QUESTION, settings).values()) == pytest.approx(reward)


def test_weights_come_from_the_settings() -> None:
    settings = DefenderSettings(model="none", reward_accuracy=0.5, reward_format=0.3)
    parts = [
        answer_reward(text, QUESTION, settings) for text in (r"\boxed{B}", r"\boxed{B. right}", r"\boxed{A}")
    ]
    assert parts == [
        {"accuracy": 0.5, "format": 0.3},
        {"accuracy": 0.5, "format": 0.0},
        {"accuracy": 0.0, "format": 0.0},
    ]


def test_as_a_factor_inconsistency_takes_everything() -> None:
    settings = DefenderSettings(model="none", consistency=ConsistencySettings(role="factor"))
    totals = {
        c: sum(answer_reward(r"left \boxed{B}", QUESTION, settings, consistent=c).values())
        for c in (True, False, None)
    }
    assert totals == {True: 1.0, False: 0.0, None: 0.0}
    for role in ("record", "constraint", "off"):
        settings = DefenderSettings(model="none", consistency=ConsistencySettings(role=role))
        assert sum(answer_reward(r"left \boxed{B}", QUESTION, settings, consistent=False).values()) == 1.0


def test_prompt_holds_question_and_options() -> None:
    prompt = render_prompt(QUESTION, SETTINGS.prompt)
    assert prompt.startswith("Where is {it}?\nOptions:\nA. left\nB. right\n")
    assert prompt.endswith(r"\boxed{}.")
    with pytest.raises(RecipeError, match=r"defender\.prompt"):
        render_prompt(QUESTION, "{question} {choices}")
