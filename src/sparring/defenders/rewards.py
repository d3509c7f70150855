r"""The Defender's reward, part by part; the reward is their sum.

    accuracy       0.8 for the right option in `\boxed{}`, 0 for anything else, however well formed (METHOD 3)
    format         0.2 more where such an answer is exactly `\boxed{X}`
    inconsistency  with `consistency.role: factor`, takes both away from an answer that its own reasoning does not arrive at
    length         DAPO's soft overlong punishment, which `rollout` adds

"Exactly" is ours: reasoning may come first, but there is one box, it holds the bare letter, and nothing follows it.
"""

from __future__ import annotations

import re

from sparring.config import DefenderSettings
from sparring.data.records import VisualQuestion
from sparring.defenders.answers import boxed, parse_answer

PREFIX = "reward_"
"""An answer's notes hold the parts under their names with this before them."""


def answer_reward(text: str, question: VisualQuestion, settings: DefenderSettings, *, consistent: bool | None = None) -> dict[str, float]:
    """Name of a part -> what it adds to the reward; only parts that the settings ask for. `consistent`: None where nobody judged."""
    choice, rule = parse_answer(text, question.options)
    right = rule == "boxed" and choice == question.answer
    parts = {
        "accuracy": settings.reward_accuracy if right else 0.0,
        "format": settings.reward_format if right and well_formed(text, question.letters) else 0.0,
    }
    if settings.consistency.role == "factor":
        parts["inconsistency"] = 0.0 if consistent else -(parts["accuracy"] + parts["format"])
    return parts


def well_formed(text: str, letters: tuple[str, ...]) -> bool:
    r"""The reply ends with its only box, which is exactly `\boxed{X}`, X being one of the letters."""
    end = re.search(r"\\boxed\{([A-Z])\}\s*$", text)
    return end is not None and end[1] in letters and len(boxed(text)) == 1
