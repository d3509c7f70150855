"""Reading counts, finding what a question is about, and the duplicate check with a judge that reads the
number off a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from sparring.config import JudgeSettings
from sparring.data.errors import DataError, RecipeError
from sparring.data.records import Target, VisualQuestion
from sparring.judging.queried import queried_names, unguarded
from sparring.judging.validity import DuplicateCheck, parse_count
from sparring.models.vlms.base import Sampling
from sparring.recipes import load_recipe


@dataclass(frozen=True)
class Reply:
    text: str


@dataclass
class PixelCounter:
    """Counts cups by the red of the first pixel and bottles by its green; 200 is a reply without a number."""

    calls: list[list[tuple[int, str]]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Reply]]:
        assert sampling.temperature == 0
        seen = [
            image.getpixel((0, 0))[0 if "cup" in prompt else 1]
            for image, prompt in zip(images, prompts, strict=True)
        ]
        self.calls += [list(zip(seen, prompts, strict=True))] if seen else []
        self.batches.append(sampling.batch)
        return [[Reply("I cannot tell" if number == 200 else f"There are {number}.")] for number in seen]


def picture(cups: int, bottles: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (cups, bottles, 0))


def about(
    *names: str, question: str = "Where is it?", options: tuple[str, ...] = ("left", "right")
) -> VisualQuestion:
    return VisualQuestion(
        "q", Path("q.png"), question, options, "A", tuple(Target(name, (0, 0, 4, 4)) for name in names)
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("3", 3),
        ("two", 2),
        ("Two.", 2),
        ("none", 0),
        ("There are no cups in the picture.", 0),
        ("There are 12 cups.", 12),
        ("two (2)", 2),
        ("Zero", 0),
        ("a single cup", 1),
        ("1 or 2", None),
        ("two, maybe three", None),
        ("many", None),
        ("", None),
        ("someone is often alone", None),
        ("about 2.5", None),
        ("1,000", None),
        ("cup3", None),
    ],
)
def test_parse_count(text: str, count: int | None) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("question", "options", "names"),
    [
        ("Is there a cup in the picture?", ("yes", "no"), ("cup",)),
        ("Is there an alarm clock?", ("no", "yes"), ("alarm clock",)),
        ("Is there a red cup next to it?", ("Yes", "No."), ("red cup",)),
        ("Are there any dishes on the table?", ("yes", "no"), ("dish",)),
        ("Is the glass visible?", ("yes", "no"), ("glass",)),
        ("How many cups are in the picture?", ("one", "two"), ("cup",)),
        ("How many wine glasses can you see?", ("1", "2"), ("wine glass",)),
        ("How many berries?", ("1", "2"), ("berry",)),
        ("Is there a cup in the picture?", ("left", "right"), ()),
        ("Is it sunny?", ("yes", "no"), ()),
    ],
)
def test_names_from_the_wording_where_there_is_no_target(
    question: str, options: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert queried_names(about(question=question, options=options)) == names


def test_what_no_check_looks_at_is_told() -> None:
    judged, blind = load_recipe("arena"), load_recipe("arena", ["judge.model=null"])
    boxed, named = about("cup"), about(question="Is there a lamp?", options=("yes", "no"))
    bare = about(question="What colour is the car?", options=("red", "blue"))
    assert unguarded(judged, [boxed, named]) is None
    assert unguarded(blind, [boxed]) is None
    told = unguarded(judged, [boxed, named, bare])
    assert told is not None
    assert told.startswith("1 of 3 training questions have no boxes (targets), and name nothing")
    absent = about(question="Is there a lamp?", options=("no", "yes"))
    told = unguarded(blind, [boxed, named, bare, absent])
    assert told is not None
    assert told.startswith("2 of 4 training questions have no boxes (targets), and there is no judge")


def test_targets_are_queried_once_each_whatever_the_wording() -> None:
    assert queried_names(
        about("cup", "bottle", "cup", question="Is there a lamp?", options=("yes", "no"))
    ) == ("cup", "bottle")


def test_a_count_that_rises_falls_or_is_not_given_rejects() -> None:
    check = DuplicateCheck(PixelCounter(), JudgeSettings())  # type: ignore[arg-type]
    edits = [picture(2, 1), picture(3, 1), picture(1, 1), picture(2, 2), picture(200, 1)]
    assert check.changed([about("cup", "bottle")], [picture(2, 1)], [edits]) == [
        [False, True, True, True, True]
    ]
    assert check.changed([about("cup")], [picture(2, 1)], [edits]) == [[False, True, True, False, True]]


def test_an_unknown_clean_count_rejects_every_edit() -> None:
    check = DuplicateCheck(PixelCounter(), JudgeSettings())  # type: ignore[arg-type]
    assert check.changed([about("cup")], [picture(200, 0)], [[picture(200, 0), picture(1, 0)]]) == [
        [True, True]
    ]


def test_nothing_queried_asks_nothing() -> None:
    judge = PixelCounter()
    assert DuplicateCheck(judge, JudgeSettings()).changed([about()], [picture(1, 1)], [[picture(2, 2)]]) == [
        [False]
    ]  # type: ignore[arg-type]
    assert DuplicateCheck(judge, JudgeSettings()).changed([about("cup")], [picture(1, 1)], [[]]) == [[]]  # type: ignore[arg-type]
    assert judge.calls == []


def test_many_questions_are_two_passes_and_clean_pictures_are_counted_once() -> None:
    judge = PixelCounter()
    check = DuplicateCheck(judge, JudgeSettings(count_prompt="Count each {name}."))  # type: ignore[arg-type]
    questions, cleans = (
        [about("cup"), about("cup", "bottle"), about("bottle")],
        [picture(1, 4), picture(2, 5), picture(2, 5)],
    )
    edits = [[picture(1, 9)], [picture(2, 5), picture(2, 6)], [picture(9, 5)]]
    assert check.changed(questions, cleans, edits) == [[False], [False, True], [False]]
    assert judge.calls[0] == [
        (1, "Count each cup."),
        (2, "Count each cup."),
        (5, "Count each bottle."),
    ]  # the third shares the second's picture
    assert len(judge.calls) == 2
    assert check.changed(questions, cleans, edits) == [[False], [False, True], [False]]
    assert len(judge.calls) == 3


def test_the_cache_knows_pictures_by_their_pixels() -> None:
    check = DuplicateCheck(PixelCounter(), JudgeSettings())  # type: ignore[arg-type]
    assert check.changed([about("cup")], [picture(1, 0)], [[picture(2, 0)]]) == [[True]]
    assert check.changed([about("cup")], [picture(2, 0)], [[picture(2, 0)]]) == [[False]]


def test_the_judge_is_asked_in_batches() -> None:
    judge = PixelCounter()
    check = DuplicateCheck(judge, JudgeSettings(), batch=2)  # type: ignore[arg-type]
    assert check.counts([picture(n, 0) for n in range(5)], ["cup"] * 5) == [0, 1, 2, 3, 4]
    assert judge.batches == [2]


def test_a_prompt_that_cannot_be_filled_in_fails_at_once() -> None:
    with pytest.raises(RecipeError, match=r"judge\.count_prompt"):
        DuplicateCheck(PixelCounter(), JudgeSettings(count_prompt="How many {thing}s?"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="belong together"):
        DuplicateCheck(PixelCounter(), JudgeSettings()).changed([about("cup")], [], [])  # type: ignore[arg-type]
