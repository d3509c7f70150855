r"""The Defender's reward: accuracy, and format only where the answer is right (METHOD 3).

0.8 for the right option in `\boxed{}`, and 0.2 more where the answer is exactly `\boxed{X}`. "Exactly" is ours: reasoning may come first, but
there is one box, it holds the bare letter, and nothing follows it.
"""

from __future__ import annotations

import re

from sparring.config import DefenderSettings
from sparring.data.records import VisualQuestion
from sparring.defenders.answers import boxed, parse_answer


def answer_reward(text: str, question: VisualQuestion, settings: DefenderSettings) -> float:
    r"""reward_accuracy for the right option in a box, plus reward_format for the exact form; 0 for anything else, however well formed."""
    choice, rule = parse_answer(text, question.options)
    if rule != "boxed" or choice != question.answer:
        return 0.0
    return settings.reward_accuracy + (settings.reward_format if well_formed(text, question.letters) else 0.0)


def well_formed(text: str, letters: tuple[str, ...]) -> bool:
    r"""The reply ends with its only box, which is exactly `\boxed{X}`, X being one of the letters."""
    end = re.search(r"\\boxed\{([A-Z])\}\s*$", text)
    return end is not None and end[1] in letters and len(boxed(text)) == 1
