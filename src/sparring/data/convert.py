"""Questions of any layout as this project's JSON lines, with their pictures beside the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.data.errors import DataError, Problem, refuse
from sparring.data.items import YES_NO, Item, Record
from sparring.data.questions import kept_picture
from sparring.data.records import LETTERS, VisualQuestion


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
                f'question "{question.id}": image {image} lies outside {folder}, the folder of {path.name}. '
                f"Copy it there first."
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


FILE, PICTURES = "questions.jsonl", "pictures"


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written. left_out: reason -> records that are no question about a picture; problems: of
    records that were skipped."""

    path: Path
    written: int
    left_out: Mapping[str, int]
    problems: tuple[Problem, ...]


def convert(source: Path, records: Iterable[Record], out: Path, *, skip_bad: bool = False) -> Converted:
    """Write records to `out/questions.jsonl` and their pictures, byte for byte, to `out/pictures`; the file
    appears at once and whole.

    Questions without options are kept (`question_type` "open"), and so are several pictures (`images`):
    `sparring eval` asks them. Captions and questions without a picture are left out. Raises DataError,
    listing the first 20 problems, if a record is bad and `skip_bad` is not set, if nothing is left, or if the
    file is there and holds other questions.
    """
    path = out / FILE
    if path.exists() and path.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{path} is the data that is read: it would be written over. Choose another --out.")
    there = {*(out / PICTURES).glob("*")}
    lines = list[str]()
    problems, left_out = list[Problem](), Counter[str]()
    for record in records:
        problems += record.problems
        if record.item is None:
            continue
        if record.item.kind == "caption" or not record.item.pictures:
            left_out["no answer" if record.item.pictures else "no picture"] += 1
            continue
        try:
            lines.append(json.dumps(_fields(record.item, out), ensure_ascii=False) + "\n")
        except DataError as error:
            problems.append(
                Problem(
                    record.number, record.item.id, "image broken", f"{record.unit} {record.number}: {error}"
                )
            )
    if problems and not (skip_bad and lines):
        raise refuse(source, problems, nothing_left=skip_bad)
    if not lines:
        raise DataError(
            f"{source}: holds no question about a picture "
            f"({', '.join(f'{why}: {n}' for why, n in left_out.items())})."
        )
    text = "".join(lines)
    if path.exists() and path.read_bytes() != text.encode():
        for picture in {*(out / PICTURES).glob("*")} - there:
            picture.unlink()
        raise DataError(f"{path} holds other questions. Choose another --out, or take that file away.")
    out.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)
    return Converted(path, len(lines), dict(left_out), tuple(problems))


def _fields(item: Item, out: Path) -> dict[str, Any]:
    files = []
    for picture in item.pictures:
        picture.load()  # what is no picture is not kept
        files.append(kept_picture(picture, out / PICTURES).relative_to(out).as_posix())
    record: dict[str, Any] = {"id": item.id}
    record |= {"image": files[0]} if len(files) == 1 else {"images": files}
    record["question"] = item.question
    if item.kind == "choice":
        record |= {"options": list(item.options), "answer": item.answer}
    elif item.kind == "yes_no":
        record |= {"options": list(YES_NO), "answer": LETTERS[YES_NO.index(item.answer)]}
    else:
        references = item.meta.get("references") or item.meta.get("accepted")
        record |= {"answer": list(references) if references else item.answer, "question_type": "open"}
    record["targets"] = [{"name": target.name, "box": list(target.box)} for target in item.targets]
    further = {"category": item.category, "hint": item.hint, "reasoning": item.reasoning}
    return record | {name: value for name, value in further.items() if value is not None}
