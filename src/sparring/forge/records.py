"""What goes through the forge: samples read from the records of a source, proposals, and what became of
them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from PIL.Image import Image

from sparring.data.errors import Problem
from sparring.data.records import Box, VisualQuestion

Outcome = Literal["kept", "useless", "rejected", "refused", "broken"]
OUTCOMES: tuple[Outcome, ...] = ("kept", "useless", "rejected", "refused", "broken")
"""kept: an effective pair. useless: the Defender was still right. rejected: a check failed. refused: the
record cannot be read, or a model does not take it. broken: an error of ours."""

STAGES = (
    "intake",
    "targets",
    "extend",
    "clean",
    "propose",
    "implant",
    "integrity",
    "duplicates",
    "effectiveness",
)
"""In the order in which a record goes through them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A question with its decoded picture."""

    number: int
    question: VisualQuestion
    image: Image


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is to be put where."""

    box: Box
    object: str


@dataclass(slots=True)
class Candidate:
    """One try of a question. `picture` is None where it was rejected before one was made.

    figures: measurements by name (integrity, efficacy, log_probability_drop, ...); words: what models said,
    by name.
    """

    attempt: int
    outcome: Outcome
    stage: str
    reason: str
    message: str
    clean: Image | None = None
    picture: Image | None = None
    question: VisualQuestion | None = None
    instruction: str = ""
    proposals: tuple[Proposal, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """What became of one unit. Its candidates end with the one that decided; none for a record that was
    refused or that broke."""

    number: int
    id: str | None
    outcome: Outcome
    stage: str
    reason: str
    message: str
    source_sha256: str | None = None
    candidates: list[Candidate] = field(default_factory=list)


def refused(problems: list[Problem]) -> Result:
    """The result of a record that cannot be read; its first problem counts, all are told."""
    first = problems[0]
    return Result(
        first.line,
        first.id,
        "refused",
        "intake",
        first.reason,
        "\n".join(problem.message for problem in problems),
    )


def concluded(
    number: int, question: VisualQuestion, source_sha256: str, candidates: list[Candidate]
) -> Result:
    """The result of a record from its candidates: kept where one is, else that of the candidate that came
    furthest (the first such)."""
    order: tuple[Outcome, ...] = ("refused", "rejected", "useless", "kept")
    best = max(candidates, key=lambda c: (order.index(c.outcome), STAGES.index(c.stage), -c.attempt))
    return Result(
        number, question.id, best.outcome, best.stage, best.reason, best.message, source_sha256, candidates
    )
