"""A benchmark's items as the questions that probes and attacks are about: options, one picture in a file, boxes where the benchmark has them.

What is neither a question with options nor about one picture is left out and counted. Yes-no questions have the options yes and no.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sparring.data.errors import DataError
from sparring.data.questions import QuestionReader, Questions
from sparring.engine.files import write_whole
from sparring.evaluation.items import Item, Picture, PictureFile, with_yes_no_options


@dataclass(frozen=True, slots=True)
class SuiteQuestions:
    """Questions, and what was left out of the suite: reason -> items."""

    questions: Questions
    left_out: Mapping[str, int]


def questions_of(items: Sequence[Item], source: Path, folder: Path, *, skip_bad: bool = False) -> SuiteQuestions:
    """The items as questions, in their order, each checked as a line of a JSONL file is: options, picture, boxes inside it.

    source: the suite's data, for messages. folder: where pictures are written that the data carry inside them (base64, Parquet): byte for byte, each once
    and whole, named by their contents, and not again where they are there. Raises DataError if no item can be used, or one is damaged and `skip_bad`
    is not set.
    """
    left_out = Counter(reason for item in items if (reason := unusable(item)))
    usable = [item for item in items if unusable(item) is None]
    if not usable:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise DataError(
            f"{source}: none of its {len(items)} items can be probed ({reasons}). A probe needs questions with options about one picture; "
            "`sparring eval` takes the others."
        )
    named = {repr(item.pictures[0]): item.pictures[0] for item in usable}

    def picture(name: str) -> tuple[Path, Image]:
        image = named[name].load()  # before anything is written: what is no picture is not kept
        return _file_of(named[name], folder), image

    reader = QuestionReader(source, picture, "item")
    for number, item in enumerate(usable, start=1):
        reader.check(number, _record(with_yes_no_options(item)))
    return SuiteQuestions(reader.finish(skip_bad), dict(left_out))


def _file_of(picture: Picture, folder: Path) -> Path:
    if isinstance(picture, PictureFile):
        return picture.path
    data = picture.data()
    path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}{_suffix(data)}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return path


def unusable(item: Item) -> str | None:
    """Why an item is no question with options about one picture; None where it is."""
    if item.kind == "caption":
        return "a caption, not an answer, is asked for"
    if item.kind == "open":
        return "the answer is free, without options"
    if len(item.pictures) != 1:
        return "several pictures" if item.pictures else "no picture"
    return None


def _record(item: Item) -> dict[str, Any]:
    answer = item.answer if item.kind == "choice" else item.letters[item.options.index(item.answer)]
    return {
        "id": item.id,
        "image": repr(item.pictures[0]),
        "question": f"{item.hint}\n{item.question}" if item.hint else item.question,
        "options": list(item.options),
        "answer": answer,
        "targets": [{"name": target.name, "box": list(target.box)} for target in item.targets],
        "category": item.category,
    }


def _suffix(data: bytes) -> str:
    """The ending of a picture's file, by its first bytes."""
    for start, suffix in ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"RIFF", ".webp"), (b"GIF8", ".gif"), (b"BM", ".bmp")):
        if data.startswith(start):
            return suffix
    return ".tif"
