"""A Defender that only guesses is told before anything is trained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparring.data.errors import TrainingError
from sparring.data.records import Answer, VisualQuestion
from sparring.selfplay import turns


def game(right: int, asked: int, options: int, *, unread: int = 0, wanted: bool = True) -> Any:
    names = [str(number) for number in range(asked)]
    answers = [
        Answer(name, "base", "x", None if i < unread else "A", "box", i >= asked - right)
        for i, name in enumerate(names)
    ]
    train = [VisualQuestion(name, Path("a.png"), "Which?", tuple("abcdef"[:options]), "A") for name in names]
    recipe = SimpleNamespace(
        selfplay=SimpleNamespace(require_skill=wanted), defender=SimpleNamespace(model="some/vlm")
    )
    return SimpleNamespace(
        recipe=recipe, train=train, ledger=SimpleNamespace(answers=lambda stage, defender: answers)
    )


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "right_when_clean", lambda game, number: [])


@pytest.mark.parametrize(
    ("right", "asked", "options"), [(55, 100, 2), (0, 100, 4), (30, 120, 4), (260, 500, 2), (0, 4000, 6)]
)
def test_a_guesser_is_told(right: int, asked: int, options: int) -> None:
    with pytest.raises(
        TrainingError,
        match=rf"answers {right / asked:.1%} of {asked} .* where guessing gives {1 / options:.1%}",
    ):
        turns.require_skill(game(right, asked, options))
    turns.require_skill(game(right, asked, options, wanted=False))


@pytest.mark.parametrize(
    ("right", "asked", "options"), [(61, 100, 2), (40, 100, 4), (50, 99, 2), (0, 20, 4), (0, 0, 2)]
)
def test_one_that_sees_something_plays_on_and_few_answers_say_little(
    right: int, asked: int, options: int
) -> None:
    turns.require_skill(game(right, asked, options))


def test_replies_that_name_no_option_are_counted() -> None:
    with pytest.raises(TrainingError, match=r"; 77 of its replies name no option\. Nothing can be learned"):
        turns.require_skill(game(3, 100, 4, unread=77))
