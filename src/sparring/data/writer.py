"""Writing questions as the JSONL file that `read_questions` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion


def write_questions(path: str | Path, questions: Iterable[VisualQuestion]) -> Path:
    """Write one record a line and return the file's path; the pictures must already lie in the file's folder
    or below it.

    The file appears at once and whole. Raises DataError if a picture lies elsewhere, before anything is
    written.
    """
    path = Path(path)
    folder = path.parent.resolve()
    lines = []
    for question in questions:
        image = question.image.resolve()
        if not image.is_relative_to(folder):
            raise DataError(
                f'question "{question.id}": image {image} lies outside {folder}, the folder of {path.name}. Copy it there first.'
            )
        record = {
            "id": question.id,
            "image": image.relative_to(folder).as_posix(),
            "question": question.question,
            "options": list(question.options),
            "answer": question.answer,
            "targets": [{"name": target.name, "box": list(target.box)} for target in question.targets],
        }
        for field in ("category", "reasoning"):
            if (value := getattr(question, field)) is not None:
                record[field] = value
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(path)
    return path
