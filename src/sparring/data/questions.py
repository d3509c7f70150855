"""Reading a JSONL file of questions, checked whole before anything is done with it.

One record a line:

    {"id": "kitchen-4", "image": "images/kitchen.png", "question": "Where is the cup relative to the sink?", "options": ["left", "right"],
     "answer": "A", "targets": [{"name": "cup", "box": [10, 20, 40, 60]}], "category": "position"}

`image` is relative to the file and stays inside its folder; boxes are half-open, in pixels of the upright picture; `category` may be left out, and
so may `reasoning`, a thought that leads to the answer, which supervised fine-tuning learns from.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sparring.data.errors import DataError
from sparring.data.images import ImageError, load_image
from sparring.data.records import LETTERS, Target, VisualQuestion

REQUIRED = ("id", "image", "question", "options", "answer", "targets")
OPTIONAL = ("category", "reasoning")
SHOWN = 20
"""Problems listed in an error; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a record. `reason` is a short phrase to count by; `message` names the record, the field and the value."""

    line: int
    id: str | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Questions:
    """The records of a file, in its order, and what was dropped from it (nothing, unless bad records were to be skipped)."""

    path: Path
    records: list[VisualQuestion]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[VisualQuestion]:
        return iter(self.records)

    @property
    def dropped(self) -> int:
        """How many records were dropped. One record may have several problems."""
        return len({problem.line for problem in self.problems})

    def dropped_by_reason(self) -> dict[str, int]:
        """Reason -> records dropped for it, the most frequent first; a record counts once, under its first problem."""
        first: dict[int, str] = {}
        for problem in self.problems:
            first.setdefault(problem.line, problem.reason)
        return dict(Counter(first.values()).most_common())

    def by_category(self) -> dict[str, int]:
        """Category -> number of records; records without one are under "(none)"."""
        return dict(sorted(Counter(record.category or "(none)" for record in self.records).items()))


def read_questions(path: str | Path, *, skip_bad: bool = False) -> Questions:
    """Read and check a JSONL file of questions: every line, every field, every picture, every box.

    With `skip_bad` bad records are left out and reported in the result's `problems`. Of records with the same id the first is kept.
    Raises DataError, listing the first 20 problems, if a record is bad (or, with `skip_bad`, if none is good); if the file is missing or empty.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Name a JSONL file of questions, with data.path in the recipe or --set data.path=FILE.")
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: the file is empty. Write one question a line, as JSON.")
    reader = QuestionReader(path)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            reader.read(number, line)
    return reader.finish(skip_bad)


def _listing(path: Path, problems: list[Problem], skip_bad: bool) -> str:
    shown = "\n".join(problem.message for problem in problems[:SHOWN])
    more = f"\n... and {len(problems) - SHOWN} more problems" if len(problems) > SHOWN else ""
    records = len({problem.line for problem in problems})
    if skip_bad:
        return f"{path}: no usable record is left.\n{shown}{more}"
    advice = "Fix the record, or pass" if records == 1 else f"Fix these {records} records, or pass"
    return f"{shown}{more}\n{advice} --skip-bad-records to go on without {'it' if records == 1 else 'them'}."


class _Bad(Exception):
    """A field that cannot be used; turned into a Problem where line and id are known."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


Picture = Callable[[str], tuple[Path, Image]]
"""From what a record calls its picture to the file's path and the picture. Raises DataError whose `reason` sorts it."""


class QuestionReader:
    """Collects good records and problems, line by line. Every picture is decoded once."""

    def __init__(self, path: Path, picture: Picture | None = None, unit: str = "line") -> None:
        """path: the file that is read, whose folder pictures must lie in. picture: gets pictures in another way than from there.

        unit: what the numbers of records count, for messages.
        """
        self.path, self._unit = path, unit
        self._picture = picture or partial(picture_inside, path.parent.resolve(), path.name)
        self.records: list[VisualQuestion] = []
        self.problems: list[Problem] = []
        self._line = 0
        self._first_line: dict[str, int] = {}
        self._pictures: dict[str, tuple[Path, tuple[int, int]] | _Bad] = {}

    def read(self, line: int, raw: bytes) -> None:
        """Check one line; keep its record or note what is wrong with it."""
        try:
            data = _json_object(raw)
        except _Bad as bad:
            self._note(line, None, bad)
            return
        self.check(line, data)

    def check(self, line: int, data: dict[str, Any]) -> None:
        """As `read`, of a record that has been parsed."""
        before = len(self.problems)
        self._line = line
        name = data["id"] if isinstance(data.get("id"), str) else None
        for problem in _key_problems(data):
            self._note(line, name, problem)
        fields: dict[str, Any] = {}
        size: tuple[int, int] | None = None
        checks: tuple[tuple[str, Callable[[str, Any], Any]], ...] = (
            ("id", self._id),
            ("question", _text),
            ("options", _options),
            ("image", self._image),
            ("category", _text_or_none),
            ("reasoning", _text_or_none),
        )
        for field, check in checks:
            if field in data:
                try:
                    fields[field] = check(field, data[field])
                except _Bad as bad:
                    self._note(line, name, bad)
        if "image" in fields:
            fields["image"], size = fields["image"]
        if "answer" in data:
            try:
                fields["answer"] = _answer(data["answer"], fields.get("options"))
            except _Bad as bad:
                self._note(line, name, bad)
        if "targets" in data:
            fields["targets"] = tuple(self._targets(line, name, data["targets"], size))
        if len(self.problems) == before:
            self.records.append(VisualQuestion(**fields))

    def finish(self, skip_bad: bool) -> Questions:
        """What was read. Raises DataError, listing the first 20 problems, if a record is bad (or, with `skip_bad`, if none is good)."""
        if self.problems and not (skip_bad and self.records):
            raise DataError(_listing(self.path, self.problems, skip_bad))
        return Questions(self.path, self.records, tuple(self.problems))

    def _note(self, line: int, name: str | None, bad: _Bad) -> None:
        record = f"{self.path.name} {self._unit} {line}" + (f' (id "{name}")' if name else "")
        self.problems.append(Problem(line, name, bad.reason, f"{record}: {bad}"))

    def _id(self, field: str, value: Any) -> str:
        name = _text(field, value)
        if name in self._first_line:
            raise _Bad("duplicate id", f"id was already given on {self._unit} {self._first_line[name]}. Ids are unique in a file.")
        self._first_line[name] = self._line
        return name

    def _image(self, field: str, value: Any) -> tuple[Path, tuple[int, int]]:
        name = _text(field, value)
        if name not in self._pictures:
            try:
                path, picture = self._picture(name)
                self._pictures[name] = (path, picture.size)
            except ImageError as error:
                self._pictures[name] = _Bad(error.reason, f"{error}.")
        found = self._pictures[name]
        if isinstance(found, _Bad):
            raise found
        return found

    def _targets(self, line: int, name: str | None, value: Any, size: tuple[int, int] | None) -> Iterator[Target]:
        if not isinstance(value, list):
            self._note(
                line, name, _Bad("wrong type", f"targets is {_kind(value)}; it must be a list of {{name, box}}, which may be empty.")
            )
            return
        for index, item in enumerate(value):
            try:
                yield _target(f"targets[{index}]", item, size)
            except _Bad as bad:
                self._note(line, name, bad)


def picture_inside(folder: Path, file: str, name: str) -> tuple[Path, Image]:
    """The picture that a record names relative to `folder`, which is resolved; `file` is the record's, for messages.

    Raises ImageError, with the reason "image outside the folder" where it is not inside: by an absolute path, by dots or by a symbolic link.
    """
    if Path(name).is_absolute():
        raise ImageError("image outside the folder", f'image "{name}" is an absolute path. Name it relative to {file}')
    try:
        # Follows symbolic links: a link inside the folder that points out of it is refused too.
        path = (folder / name).resolve()
        path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long for the disk, a link that leads to itself
        raise ImageError("image missing", f"image {name[:80]} cannot be looked up ({error})") from error
    if not path.is_relative_to(folder):
        raise ImageError("image outside the folder", f'image "{name}" leaves the folder of {file}. Copy it into the folder')
    return path, load_image(path)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_twins)
    except UnicodeDecodeError as error:
        raise _Bad("not UTF-8", f"byte {error.start + 1} of the line is not UTF-8. Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise _Bad("broken JSON", f"no valid JSON at column {error.colno}: {error.msg}.") from error
    except (RecursionError, ValueError) as error:
        raise _Bad("broken JSON", f"no usable JSON ({error}).") from error
    if not isinstance(data, dict):
        raise _Bad("broken JSON", f"the line is {_kind(data)}; it must be an object, {{...}}.")
    return data


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twins = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twins:
        raise _Bad("duplicate key", f'key "{twins[0]}" is given twice.')
    return dict(pairs)


def _key_problems(
    data: dict[str, Any], required: tuple[str, ...] = REQUIRED, optional: tuple[str, ...] = OPTIONAL, where: str = ""
) -> Iterator[_Bad]:
    missing = [key for key in required if key not in data]
    for key in data:
        if key in required or key in optional:
            continue
        near = get_close_matches(key, [*missing, *(k for k in optional if k not in data)], n=1) or get_close_matches(
            key, [*required, *optional], n=1
        )
        hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join([*required, *optional])}."
        yield _Bad("unknown key", f'{where}"{key}" is no known key; {hint}')
    for key in missing:
        yield _Bad("missing key", f'{where}"{key}" is missing.')


def _kind(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names[type(value)]


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _Bad("wrong type", f"{field} is {_kind(value)}; it must be a text.")
    if not value.strip():
        raise _Bad("empty text", f"{field} is empty.")
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" for char in value):
        raise _Bad("wrong type", f"{field} holds control characters or half of a surrogate pair.")
    return value


def _text_or_none(field: str, value: Any) -> str | None:
    return None if value is None else _text(field, value)


def _options(field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _Bad("wrong type", f"{field} is {_kind(value)}; it must be a list of texts.")
    options = tuple(_text(f"{field}[{index}]", option) for index, option in enumerate(value))
    if not 2 <= len(options) <= len(LETTERS):
        raise _Bad("number of options", f"{field} holds {len(options)}; a question has 2 to {len(LETTERS)} options.")
    # "Red" and "red " would be told apart by nobody who reads the Defender's reply.
    twins = [option for option, count in Counter(option.strip().casefold() for option in options).items() if count > 1]
    if twins:
        raise _Bad("duplicate option", f'{field} holds "{twins[0]}" twice.')
    return options


def _answer(value: Any, options: tuple[str, ...] | None) -> str:
    answer = _text("answer", value)
    if options is None:  # the options are at fault, and reported
        return answer
    letters = LETTERS[: len(options)]
    if answer in tuple(letters):
        return answer
    wanted = f"answer must be the letter of an option, A to {letters[-1]}"
    if answer.upper() in tuple(letters):
        raise _Bad("answer is no option", f'{wanted}, as a capital; it is "{answer}".')
    for letter, option in zip(letters, options, strict=True):
        if option.strip().casefold() == answer.strip().casefold():
            raise _Bad("answer is no option", f'{wanted}; it is "{answer}", the text of option {letter}.')
    raise _Bad("answer is no option", f'{wanted}; it is "{answer}".')


def _target(where: str, value: Any, size: tuple[int, int] | None) -> Target:
    if not isinstance(value, dict):
        raise _Bad("wrong type", f"{where} is {_kind(value)}; it must be an object with name and box.")
    for problem in _key_problems(value, ("name", "box"), (), f"{where}: "):
        raise problem
    name = _text(f"{where}.name", value["name"])
    box = value["box"]
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) and side == side for side in box):
        raise _Bad("wrong type", f'box of target "{name}" ({where}) must be four numbers [x0, y0, x1, y1] in pixels.')
    if any(side != int(side) if abs(side) < 2**31 else True for side in box):
        raise _Bad("wrong type", f'box {box} of target "{name}" ({where}) must hold whole pixels; round it outwards.')
    x0, y0, x1, y1 = (int(side) for side in box)
    if x1 <= x0 or y1 <= y0:
        raise _Bad("box is empty", f'box {box} of target "{name}" ({where}) is empty: it must have x0 < x1 and y0 < y1.')
    if size is not None and (x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1]):
        raise _Bad(
            "box outside the image",
            f'box {box} of target "{name}" ({where}) lies outside the image, which is {size[0]} x {size[1]} pixels.',
        )
    return Target(name, (x0, y0, x1, y1))
