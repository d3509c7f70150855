r"""The rules of the AOT authors' evaluation (arXiv 2602.22227; the scripts in `eval/` of their repository,
state of March 2026).

Sources: eval/high_resolution/{vstarbench,hrbench4k,hrbench8k}.py,
eval/hallucination/{pope,hallusionbench}.py. A question is asked up to three times, until the first miss,
and is right where every reply is; a request that came to nothing is a miss, a picture that cannot be read
leaves the item out. V* is asked there with its first option right, in the order of its files: `--set
shuffle=false`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparring.benchmarks.items import Answered, Mark, Read, failed, judged
from sparring.benchmarks.rules.vlmevalkit import only_pictured

_STATED = r"(?:final answer|the final answer is|the answer is)\s*:?\s*"
HRBENCH = (
    re.compile(r"\\?boxed\s*[{(]\s*([A-D])\s*[})]", re.IGNORECASE),
    re.compile(_STATED + r"([A-D])", re.IGNORECASE),
    re.compile(r"([A-D])"),
)
"""What is boxed, else stated (the first letter of "the answer is definitely B" is D), else the first
capital A to D of any word.
"""
VSTAR = (
    re.compile(r"\\?boxed\s*[{(]\s*(?:\\text\{)?\s*([A-Z])\s*\}?\s*[})]", re.IGNORECASE),
    re.compile(_STATED + r"([A-Z])", re.IGNORECASE),
    re.compile(r"^\s*\(?([A-E])"),
)
YES_NO = (
    re.compile(_STATED + r"\b(Yes|No)\b", re.IGNORECASE),
    re.compile(r"\\?boxed\s*[{(]\s*\b(Yes|No)\b\s*[})]", re.IGNORECASE),
    re.compile(r"\b(Yes|No)\b", re.IGNORECASE),
)


def _first(patterns: Sequence[re.Pattern[str]]) -> Callable[[str], str | None]:
    """What the first pattern finds that finds anything."""
    return lambda reply: next((found[1] for pattern in patterns if (found := pattern.search(reply))), None)


def _every_trial(
    patterns: Sequence[re.Pattern[str]], case: Callable[[str], str], *, pictured: bool = False
) -> Read:
    read = _first(patterns)

    def mark(one: Answered) -> Mark:
        missing = (only_pictured(one) if pictured else None) or failed(one, leave_out=("picture",))
        if missing is not None:
            return missing
        if one.later_trouble is not None:
            return Mark(None, 0.0, one.later_trouble, "error")
        said = [None if (word := read(reply)) is None else case(word) for reply in one.replies]
        # The first miss is what was said; nobody asks again after it.
        return judged(
            one, next((word for word in said if word != one.item.answer), one.item.answer), "every trial"
        )

    def marks(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
        return [mark(one) for one in answered]

    return marks


vstar, hrbench = _every_trial(VSTAR, str.upper), _every_trial(HRBENCH, str.upper)
pope, hallusion = _every_trial(YES_NO, str.lower), _every_trial(YES_NO, str.lower, pictured=True)
