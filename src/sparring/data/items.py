"""One question of any data: what is asked about which pictures, and what is right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sparring.data.errors import Problem
from sparring.data.pictures import Picture
from sparring.data.records import LETTERS, Target

Kind = Literal["choice", "yes_no", "open", "caption"]
Trouble = Literal["picture", "request", "refused"]
"""Why there is no answer: the picture cannot be read, the request was given up or refused, or the model on
this machine does not take the question.
"""
YES_NO = ("yes", "no")

_OTHERS = re.compile(
    r"\b(?:all|none|any|both|neither|either) of (?:the "
    r")?(?:above|these|those|them|following|options|choices|answers)\b"
    r"|\bthe (?:above|previous|preceding) (?:options?|choices?|answers?|statements?)\b"
    r"|\b(?:all|none|not|any|both|neither) the above\b"
    r"|\b(?:options?|choices?|answers?) (?:[A-H]|\d)\b"
    r"|以上",
    re.IGNORECASE,
)
_LETTERS = re.compile(
    r"(?<![\w.])\(?[A-H]\)?(?:, ?\(?[A-H]\)?)*,? ?(?:\b(?:and|or|nor)\b|[&+]) ?\(?[A-H]\)?(?![\w.])"
    r"|\([a-h]\),? ?(?:and|or|nor|&) ?\([a-h]\)"
)

_NAMED = re.compile(r"[A-H]( .*)")


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark.

    answer: the letter of the right option ("choice"), "yes" or "no" ("yes_no"), the reference text ("open"),
    "" ("caption"). options: of "choice", in the order in which they are shown; of "yes_no" these two words,
    where they are shown as options. targets: objects that the question is about, in pixels of the first
    picture, where the benchmark says. meta: what a benchmark's scores need beside that (`cycle`,
    `l2_category`, `splits`, `set`, `figure`, `references`, ...); values of JSON. reasoning: a thought that
    leads to the answer.
    """

    id: str
    kind: Kind
    question: str
    answer: str
    options: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    category: str | None = None
    hint: str | None = None
    targets: tuple[Target, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str | None = None

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options, in order."""
        return tuple(LETTERS[: len(self.options)])

    @property
    def choices(self) -> tuple[str, ...]:
        """What may be answered, in the order shown: letters, or yes and no; nothing where the answer is
        free."""
        return YES_NO if self.kind == "yes_no" else self.letters


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file: its number, from 1, and the item that it holds or what is wrong with it. unit:
    what numbers count."""

    number: int
    item: Item | None
    problems: tuple[Problem, ...] = ()
    unit: str = "row"


Records = Iterator[Record]


def options_speak_of_others(options: Sequence[str]) -> bool:
    """Does an option speak of other ones ("None of the above", "Both A and B"), or of what is named as they
    are ("A is closer", "B is closer"), so that their order may not be changed?"""
    if any(_OTHERS.search(option) or _LETTERS.search(option) for option in options):
        return True
    named = [_NAMED.fullmatch(option.strip()) for option in options]
    return all(named) and len({match[1] for match in named if match}) == 1
