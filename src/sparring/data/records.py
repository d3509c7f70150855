"""The record types that everything passes around.

A file of questions becomes `VisualQuestion`s; the Attacker turns one into an `Edit`; the Defender turns a
picture and a question into an `Answer`; the judge turns both into a `Verdict`. All are immutable and know
nothing of models.

Boxes are `(x0, y0, x1, y1)` in pixels of the record's own image, half-open: x0 <= x < x1, y0 <= y < y1.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from pathlib import Path

from PIL.Image import Image

Box = tuple[int, int, int, int]
UNCHANGED = "unchanged"
"""The note on an edit's verdict that says: the picture came back as it was."""
LETTERS = string.ascii_uppercase
RULES_VERSION = 4
"""Goes up when a rule reads or counts otherwise: figures of an earlier version are scored anew before
they are compared, and a run whose answers were read by it is not resumed.
"""
LONGEST_REPLY = 512
"""Tokens of a reply at most, of a Defender that thinks before it answers, where no recipe says."""


@dataclass(frozen=True, slots=True)
class Target:
    """An object that the question is about: its name and its box in pixels."""

    name: str
    box: Box


@dataclass(frozen=True, slots=True)
class VisualQuestion:
    """A multiple-choice question about one image.

    `image` is an absolute path that has been checked to lie inside the data file's folder. `answer` is the
    letter of the right option ("A" is `options[0]`). `targets` may be empty (a "no" to "is there a cup?").
    `reasoning`: a thought that leads to the answer, to be learned from; no Defender is told it.
    """

    id: str
    image: Path
    question: str
    options: tuple[str, ...]
    answer: str
    targets: tuple[Target, ...] = ()
    category: str | None = None
    reasoning: str | None = None

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options, in order."""
        return tuple(LETTERS[: len(self.options)])

    @property
    def answer_text(self) -> str:
        """The text of the right option."""
        return self.options[LETTERS.index(self.answer)]


@dataclass(frozen=True, slots=True)
class Edit:
    """One edited picture: who made it, from which question, with which instruction and seed."""

    question_id: str
    attacker: str
    instruction: str
    seed: int
    image: Image


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply of a Defender.

    `choice` is the chosen letter or None (unparsed); `rule` names the parsing rule that fired.
    `right_probability` is the length-normalised probability of the right option, where it was asked for.
    `logprob` is the sum of token log-probabilities of the reply, where known. `notes`: figures by name; of
    answers that a Defender is trained on, the parts of their reward.
    """

    question_id: str
    defender: str
    text: str
    choice: str | None
    rule: str
    right: bool
    right_probability: float | None = None
    tokens: int = 0
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of one edit. Every component is kept apart; `reward` is what the Attacker is
    trained on.

    integrity: smallest local SSIM over the protected boxes (1.0 where there is none); `intact`: it reached
    the threshold, and the picture kept its light where that is guarded. duplicate: the count of a queried
    object changed. accepted = intact, and neither duplicate nor unchanged. efficacy: failures / k of the
    Defender on the edited picture. probability_drop: fall of the right answer's length-normalised
    probability from the clean to the edited picture, None where it was not asked for. label_valid: an
    auditor's word that the right answer is still right; None where nobody audited. Never part of the reward.
    notes: figures by name: the parts that make up `reward` ("reward_efficacy", ...), what they were computed
    from, and, of held-out edits, "sharpness", which no reward pays for; where the light is guarded,
    "light_level", "light_spread" and whether they were refused, "relit"; "unchanged" of a picture that came
    back as it was.
    """

    question_id: str
    integrity: float
    intact: bool
    duplicate: bool
    efficacy: float
    reward: float
    probability_drop: float | None = None
    label_valid: bool | None = None
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """The edit may be used: something was changed, the targets are intact and no queried object was
        added or lost.
        """
        return self.intact and not self.duplicate and not self.unchanged

    @property
    def unchanged(self) -> bool:
        """The picture came back as it was: no attack, so that it neither counts nor stands in a rate's
        denominator.
        """
        return UNCHANGED in self.notes

    @property
    def relit(self) -> bool:
        """The light of the picture went beyond its limits, which is why the edit is not intact."""
        return self.notes.get("relit", 0.0) > 0
