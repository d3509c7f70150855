"""Where a reasoning arrives, by rules and by a judge model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparring.config import ConsistencySettings
from sparring.data.errors import ModelError, RecipeError, RefusedError
from sparring.data.records import Answer, VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge, Verdict, reasoning_of, verdict_of
from sparring.defenders.rollout import _with_consistency
from sparring.engine.ranks import Ranks
from sparring.models.vlms.base import Completion, Sampling

COLOURS = ("blue", "red", "dark red")
QUESTION = VisualQuestion("q", Path("q.png"), "Which {colour}?", COLOURS, "B")


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        (r"cup red 2 5, red \boxed{B}", "cup red 2 5, red"),
        (r"<think>It is red.</think> I say \boxed{A}", "It is red."),
        (r"It is red.</think>\boxed{A}", "It is red."),
        (r"<think>\boxed{B}</think>\boxed{A}", r"\boxed{B}"),
        (r"\boxed{A}", ""),
        (r"A or \boxed{A} or \boxed{B}", "A or"),
        ("It is red", ""),
        ("", ""),
    ],
)
def test_reasoning_is_what_comes_before_the_answer(text: str, reasoning: str) -> None:
    assert reasoning_of(text) == reasoning


@pytest.mark.parametrize(
    ("reasoning", "letter", "rule"),
    [
        ("cup red 2 5, red", "B", "whole"),
        ("It may be blue. No, it is dark red.", "C", "whole"),
        ("Blue at first sight.\nThe answer is B", "B", "stated"),
        ("The answer is A. That is plain to see.", "A", "stated"),
        ("So (C)! Good.", "C", "whole"),
        ("It could be red, because blue is missing. So the answer is A, as blue is missing.", "A", "stated"),
        ("It is red, not blue", "B", "first"),
        (r"At first \\boxed{A}. No: \\boxed{C}", "C", "boxed"),
        ("The answer is A. It is red or blue.", None, "ambiguous_whole"),
        ("Hard to say.", None, "unparsed"),
        ("", None, "no_reasoning"),
    ],
)
def test_the_last_sentence_that_says_something_decides(reasoning: str, letter: str | None, rule: str) -> None:
    assert verdict_of(reasoning, COLOURS) == Verdict(letter, rule)


class Told:
    """A judge model that notes what it is told and says the first colour in it that stands after "thinks"."""

    name = "told"

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.pictures: list[Image.Image] = []

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Completion]]:
        assert sampling.temperature == 0
        self.prompts += prompts
        self.pictures += images
        words = [prompt.split("thinks: ")[1].split()[0] for prompt in prompts]
        return [
            [Completion(f"Option {'AB'[word == 'red']}" if word != "nothing" else "none", (1,), (0.0,), True)]
            for word in words
        ]


def test_a_judge_model_reads_and_does_not_see_the_answer() -> None:
    settings = ConsistencySettings(
        role="record", model="m", prompt="{question} {options} thinks: {reasoning}"
    )
    model = Told()
    judge = ConsistencyJudge(settings, model)  # type: ignore[arg-type]
    replies = [
        r"red {x} \boxed{C}",
        r"blue \boxed{A}",
        r"red {x} \boxed{B}",
        r"\boxed{A}",
        r"nothing \boxed{A}",
    ]
    verdicts = judge.verdicts([QUESTION] * 5, replies)
    assert [verdict.letter for verdict in verdicts] == ["B", "A", "B", None, None]
    assert [verdict.rule for verdict in verdicts] == ["whole", "whole", "whole", "no_reasoning", "unparsed"]
    # The same reasoning is asked about once, none not at all, and nowhere does the answer or the picture
    # appear.
    assert len(model.prompts) == 3
    assert not any("boxed" in prompt for prompt in model.prompts)
    assert all(low == high for picture in model.pictures for low, high in picture.getextrema())
    assert judge.verdicts([QUESTION], [r"\boxed{A}"]) == [Verdict(None, "no_reasoning")]


def test_the_judge_must_be_the_one_that_is_named() -> None:
    with pytest.raises(RecipeError, match=r"consistency\.model is m, but"):
        ConsistencyJudge(ConsistencySettings(role="record", model="m"))
    judge = ConsistencyJudge(ConsistencySettings(role="record", model="m", prompt="{thought}"), Told())  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"consistency\.prompt"):
        judge.verdicts([QUESTION], [r"red \boxed{B}"])


class Rank(Ranks):
    """One of two; what the other says is known beforehand."""

    def __init__(self, number: int, others: list[Verdict]) -> None:
        super().__init__(2, number)
        self.others = others

    def gather(self, own: Sequence[Any]) -> list[Any]:
        return [*own, *self.others] if self.number == 0 else [*self.others, *own]


def test_every_reasoning_is_read_by_one_process_and_all_know_the_verdicts() -> None:
    settings = ConsistencySettings(role="record", model="m", prompt="thinks: {reasoning}")
    spoken = [[Answer("q", "d", rf"{word} \boxed{{B}}", "B", "boxed", True) for word in ("red", "blue")]] * 2
    for number in (0, 1):
        model = Told()
        judge = ConsistencyJudge(settings, model)  # type: ignore[arg-type]
        other = Verdict("B", "whole"), Verdict(None, "unparsed")
        judged = _with_consistency(spoken, [QUESTION, QUESTION], judge, Rank(number, list(other)))
        flat = [answer.notes for own in judged for answer in own]
        assert len(model.prompts) == 2  # of four reasonings
        own, others = (flat[:2], flat[2:]) if number == 0 else (flat[2:], flat[:2])
        assert [notes["consistent"] for notes in own] == [1.0, 0.0]
        assert [notes["verdict_unread"] for notes in others] == [0.0, 1.0]


class Refusing(Told):
    """As Told, but it takes no reasoning with a placeholder of pictures; or it is down."""

    def __init__(self, error: ModelError) -> None:
        super().__init__()
        self.error = error

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Completion]]:
        if any("<image>" in prompt for prompt in prompts):
            raise self.error
        return super().generate(images, prompts, sampling)

    def try_each(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[Completion | ModelError]:
        return [
            self.error if "<image>" in prompt else self.generate([], [prompt], sampling)[0][0]
            for prompt in prompts
        ]


def test_a_reasoning_that_the_judge_does_not_take_is_unread_and_the_others_are_read() -> None:
    settings = ConsistencySettings(
        role="record", model="m", prompt="{question} {options} thinks: {reasoning}"
    )
    replies = [r"red {x} \boxed{C}", r"red <image> \boxed{A}", r"blue \boxed{A}"]
    judge = ConsistencyJudge(settings, Refusing(RefusedError("no")))  # type: ignore[arg-type]
    verdicts = judge.verdicts([QUESTION] * 3, replies)
    assert [verdict.letter for verdict in verdicts] == ["B", None, "A"]
    assert verdicts[1].rule == "refused"
    with pytest.raises(ModelError, match="down"):
        ConsistencyJudge(settings, Refusing(ModelError("down"))).verdicts([QUESTION] * 3, replies)  # type: ignore[arg-type]
