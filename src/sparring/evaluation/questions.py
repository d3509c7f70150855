"""A benchmark's items as the questions that probes and attacks are about: options, one picture in a file,
boxes where the benchmark has them.

What is neither a question with options nor about one picture is left out and counted. Yes-no questions have
the options yes and no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparring.data.errors import DataError
from sparring.data.items import Item, Record
from sparring.data.questions import Questions, check_questions


@dataclass(frozen=True, slots=True)
class SuiteQuestions:
    """Questions, and what was left out of the suite: reason -> items."""

    questions: Questions
    left_out: Mapping[str, int]


def questions_of(items: Sequence[Item], source: Path, folder: Path, *, skip_bad: bool = False) -> SuiteQuestions:
    """The items as questions, in their order, each checked as a line of a JSONL file is: options, picture,
    boxes inside it.

    source: the suite's data, for messages. folder: where pictures are written that the data carry inside them
    (base64, Parquet): byte for byte, each once and whole, named by their contents, and not again where they
    are there. Raises DataError if no item can be used, or one is damaged and `skip_bad` is not set.
    """
    left_out = Counter(reason for item in items if (reason := unusable(item)))
    usable = [item for item in items if unusable(item) is None]
    if not usable:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise DataError(
            f"{source}: none of its {len(items)} items can be probed ({reasons}). A probe needs questions with options about one picture; "
            "`sparring eval` takes the others."
        )
    records = (Record(number, item, unit="item") for number, item in enumerate(usable, start=1))
    return SuiteQuestions(check_questions(source, records, folder, skip_bad=skip_bad), dict(left_out))


def unusable(item: Item) -> str | None:
    """Why an item is no question with options about one picture; None where it is."""
    if item.kind == "caption":
        return "a caption, not an answer, is asked for"
    if item.kind == "open":
        return "the answer is free, without options"
    if len(item.pictures) != 1:
        return "several pictures" if item.pictures else "no picture"
    return None
