"""Where in a reply the letter of the chosen option stands."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sparring.asking.answers import parse_answer

LETTER_BOX = re.compile(r"\\boxed\s*\{\s*\(?(?:\\text\s*\{\s*)?([A-Z])(?![A-Za-z])")
LETTER_WORD = re.compile(r"(?<![\w'’\\])\(?([A-Z])(?![\w'’])")


def letter_place(text: str, options: Sequence[str]) -> int | None:
    """Where the first letter that answers stands in a reply; None where the reply is not read, or names
    its option in words alone.
    """
    choice, rule = parse_answer(text, options)
    if choice is None:
        return None
    start = max(text.rfind("</think>"), text.rfind("<answer>"), 0)
    pattern = LETTER_BOX if rule == "boxed" else LETTER_WORD
    return next((match.start(1) for match in pattern.finditer(text, start) if match[1] == choice), None)


def letter_behind(start: str, text: str, options: Sequence[str]) -> int | None:
    """`letter_place` in what was written behind `start`, which was put into the model's mouth; None where the
    letter stands in that.
    """
    own, put = answering(start, text)
    place = letter_place(own, options)
    return None if place is None or place < put else place - put


def answering(start: str, text: str) -> tuple[str, int]:
    """The part of a reply that is read for its answer, and how many of its characters were put there.

    What was put into the model's mouth is not its answer. A thought in tags is passed over by the parser,
    which needs to see it whole; where a thought without tags was begun, what follows is read alone.
    """
    return (start + text, len(start)) if "<think>" in start else (text, 0)
