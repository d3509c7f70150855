"""What a Defender's answer is paid."""

from __future__ import annotations

import re

from sparring.asking.answers import boxed, parse_answer
from sparring.config import DefenderSettings
from sparring.data.records import VisualQuestion

PREFIX = "reward_"
"""An answer's notes hold the parts under their names with this before them."""
BARE_BOX = re.compile(r"\\boxed\{([A-Z])\}")
LOOSE_BOX = re.compile(r"boxed\s*[{(\[]\s*([A-Z])\s*[})\]]", re.IGNORECASE)


def answer_reward(
    text: str, question: VisualQuestion, settings: DefenderSettings, *, consistent: bool | None = None
) -> dict[str, float]:
    """Name of a part -> what it adds to the reward; only parts that the settings ask for. `consistent`: None
    where nobody judged.
    """
    if settings.reward == "released":
        letter, formed = released_choice(text)
        right = letter == question.answer
    else:
        choice, rule = parse_answer(text, question.options)
        right = rule == "boxed" and choice == question.answer
        formed = right and well_formed(text, question.letters)
    parts = {
        "accuracy": settings.reward_accuracy if right else 0.0,
        "format": settings.reward_format if right and formed else 0.0,
    }
    if settings.consistency.role == "factor":
        parts["inconsistency"] = 0.0 if consistent else -(parts["accuracy"] + parts["format"])
    return parts


def well_formed(text: str, letters: tuple[str, ...]) -> bool:
    r"""The reply ends with its only box, which is exactly `\boxed{X}`, X being one of the letters."""
    end = re.search(r"\\boxed\{([A-Z])\}\s*$", text)
    return end is not None and end[1] in letters and len(boxed(text)) == 1


def released_choice(text: str) -> tuple[str | None, bool]:
    """(the letter that the AOT authors' reward reads or None, whether the reply is well formed to it)."""
    if bare := BARE_BOX.search(text):
        return bare[1], True
    loose = LOOSE_BOX.search(text)
    return (loose[1].upper() if loose else None), False
