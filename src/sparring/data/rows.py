"""Questions from the rows of a table: the layouts of VLMEvalKit and of the Hugging Face hub, this project's
own, and any user's.

A row has a question, an answer, one or several pictures, options (see `sparring.data.choices`), and may have
an id, a category, a hint, boxes (`targets`) and a reasoning. A row without options is an open question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from sparring.data.answers import Answers, answer_in, references_of
from sparring.data.choices import (
    ANSWERS,
    COLUMN,
    LISTS,
    TEXTS,
    Options,
    check_text,
    embedded_options,
    is_open,
    options_of,
    python_list,
)
from sparring.data.errors import Fault, Problem
from sparring.data.items import Item, Kind, Record, Records
from sparring.data.pictures import is_empty
from sparring.data.records import LETTERS, Target
from sparring.data.tables import IDS, KINDS, PICTURES, Row, Table, four_numbers, text_of
from sparring.data.text_tables import read_table

Extra = Callable[[Row], Mapping[str, Any]]
KNOWN = (*IDS, *TEXTS, *ANSWERS, *LISTS, "image", "images", "targets", "category", "reasoning", "hint")
OWN = ("id", "image", "question", "options", "answer", "targets", "category", "reasoning")
"""The fields of this project's own files, of which a misspelt one is told."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the rows of a table are to hold. name: of the suite, for messages. needed: columns beside
    question, answer and picture.

    category: where the category stands. extra: a row's meta. open_answers: rows may be without options.
    without_picture: rows may be without a picture.
    """

    name: str = "custom"
    needed: tuple[str | tuple[str, ...], ...] = ()
    category: tuple[str, ...] = ("category",)
    extra: Extra = lambda row: {}
    open_answers: bool = True
    without_picture: bool = False


def read_rows(path: Path, layout: Layout, images: Path | None = None) -> Records:
    """The records of a table. Raises DataError where it lacks a column that all need."""
    table = read_table(path, images)
    pictures = () if layout.without_picture or table.pictures else (PICTURES,)
    table.require(layout.name, TEXTS, ANSWERS, *pictures, *layout.needed)
    if not layout.open_answers and not any(name in table.columns for name in LISTS):
        asked = (text_of(values, *TEXTS) for _, values in table.records() if not isinstance(values, Fault))
        if not any(embedded_options(question)[1] for question in islice(asked, 3)):
            table.require(layout.name, "A", "B")
    return _records(table, layout)


def _records(table: Table, layout: Layout) -> Records:
    answers = Answers().learn(values for _, values in table.records() if not isinstance(values, Fault))
    seen, splits = dict[str, int](), dict[str, str]()
    for row in table.rows():
        split = row.text("split")
        problems = list[Problem]()
        item = None if row.fault and not row.values else _item(table, row, layout, answers, problems)
        if row.fault is not None:
            problems.insert(0, table.problem(row, row.fault))
        if (
            item is not None
            and split
            and splits.get(item.id, split) != split
            and f"{split}/{item.id}" not in seen
        ):
            item = replace(item, id=f"{split}/{item.id}")  # ids are unique in a split
        if item is not None and not problems and item.id in seen:
            what = f"id was already given on {table.unit} {seen[item.id]}. Ids are unique in a file."
            problems.append(Fault("duplicate id", what).of(table.path, table.unit, row.number, item.id))
        if item is None or problems:
            yield Record(row.number, None, tuple(problems), table.unit)
        else:
            seen[item.id], splits[item.id] = row.number, split
            yield Record(row.number, item, unit=table.unit)


def _item(table: Table, row: Row, layout: Layout, answers: Answers, problems: list[Problem]) -> Item | None:
    """A row as an item; None where it cannot be, with what is wrong added to the problems."""
    found: dict[str, Any] = {}

    def attempt(name: str, read: Callable[[], Any]) -> None:
        try:
            found[name] = read()
        except Fault as fault:
            problems.append(table.problem(row, fault))

    for fault in _misspelt(row.values) if table.unit == "line" else ():
        problems.append(table.problem(row, fault))
    attempt("id", lambda: _id(row))
    attempt("asked", lambda: _asked(row.values))
    if "asked" in found:
        attempt("right", lambda: _right(row, found["asked"][0], found["asked"][1], layout, answers))
    attempt("targets", lambda: targets_of(row.values.get("targets")))
    attempt("category", lambda: _text_or_none(row, "category", *layout.category))
    attempt("reasoning", lambda: _text_or_none(row, "reasoning", "reasoning"))
    attempt("hint", lambda: _text_or_none(row, "hint", "hint"))
    if not row.pictures and row.fault is None and not layout.without_picture:
        what = f"there is no picture in {_names_of(row)}. A question without one is not asked."
        problems.append(table.problem(row, Fault("no picture", what)))
    if problems:
        return None
    kind, question, answer, options, meta = found["right"]
    return Item(
        id=found["id"],
        kind=kind,
        question=question,
        answer=answer,
        options=options,
        pictures=row.pictures,
        category=found["category"],
        hint=found["hint"],
        targets=found["targets"],
        meta={**layout.extra(row), **meta},
        reasoning=found["reasoning"],
    )


def _names_of(row: Row) -> str:
    named = [name for name in row.values if name in PICTURES]
    return " or ".join(named) if named else "image"


def _id(row: Row) -> str:
    name = next((name for name in IDS if not is_empty(row.values.get(name))), None)
    if name is not None and isinstance(row.values[name], list | dict | bool):
        raise Fault(
            "wrong type", f"{name} is {KINDS[type(row.values[name])]}; it must be a text or a number."
        )
    return str(row.number) if name is None else check_text(name, row.text(name))


def _asked(values: Mapping[str, Any]) -> tuple[str, Options]:
    name = next((name for name in TEXTS if not is_empty(values.get(name))), None)
    if name is None:
        given = next((name for name in TEXTS if name in values), None)
        raise Fault(
            "missing key" if given is None else "empty text",
            '"question" is missing.' if given is None else f"{given} is empty.",
        )
    if not isinstance(values[name], str):
        raise Fault("wrong type", f"{name} is {KINDS.get(type(values[name]), 'no text')}; it must be a text.")
    check_text(name, values[name])
    question, options = options_of(values)
    if len(options.texts) > len(LETTERS) or len(options.texts) == 1:
        given = next((name for name in LISTS if not is_empty(values.get(name))), "the row")
        raise Fault(
            "number of options",
            f"{given} holds {len(options.texts)}; a question has 2 to {len(LETTERS)} options.",
        )
    return question, options


def _right(
    row: Row, question: str, options: Options, layout: Layout, answers: Answers
) -> tuple[Kind, str, str, tuple[str, ...], dict[str, Any]]:
    """(kind, question, answer, options, what scores need of the answer)."""
    answer = answer_in(row.values)
    if is_empty(answer):
        given = next((name for name in ANSWERS if name in row.values), None)
        what = (
            '"answer" is missing.'
            if given is None
            else f"{given} is empty. Splits without answers cannot be scored."
        )
        raise Fault("missing key" if given is None else "empty text", what)
    if isinstance(answer, Mapping):
        raise Fault("wrong type", "answer is an object; it must be a letter, a text or a number.")
    if options.texts:
        listed = (
            references_of(answer) if isinstance(answer, str) and answer.strip().startswith("[") else answer
        )
        said = answer if isinstance(answer, str) and answer.strip() in options.texts else listed
        try:
            return "choice", question, LETTERS[answers.place(said, options)], options.texts, {}
        except Fault:
            if not (options.embedded and layout.open_answers):
                raise  # lines with letters in an open question are no options: none of them is the answer
        question = row.text(*TEXTS)
    if not layout.open_answers:
        raise Fault(
            "number of options", "has no options: its columns A, B, ... and options, choices are empty."
        )
    text, references = str(answer).strip(), references_of(answer)
    if "letter" in answers.certain and text in list(LETTERS[:8]) and not is_open(row.values):
        what = (
            f"has no options, and its answer {text} is a letter, as other records of the file choose "
            f"options. Fill them in, or"
        )
        raise Fault("number of options", f'{what} say "question_type": "open".')
    check_text("answer", text)
    return (
        "open",
        question,
        text,
        (),
        {"accepted": references} if len(references) > 1 or [text] != references else {},
    )


def _text_or_none(row: Row, field: str, *names: str) -> str | None:
    text = row.text(*names)
    return check_text(field, text) if text else None


def _misspelt(values: Mapping[str, Any]) -> list[Fault]:
    """Fields that are nearly those of this project's files; other further fields are as good as not there."""
    found = []
    for key in values:
        if (
            key in KNOWN
            or key in PICTURES
            or COLUMN.fullmatch(key)
            or any(key.startswith(own) or own.startswith(key) for own in OWN)
        ):
            continue
        alike = [own for own in OWN if abs(len(own) - len(key)) <= 1]
        near = get_close_matches(key, [own for own in alike if own not in values], n=1, cutoff=0.82)
        near = near or get_close_matches(key, alike, n=1, cutoff=0.82)
        if near:
            found.append(Fault("unknown key", f'"{key}" is no known key; did you mean "{near[0]}"?'))
    return found


def targets_of(value: Any) -> tuple[Target, ...]:
    """Boxes that a record of any layout may hold: a list of {name, box}, in a table as JSON; none where the
    field is empty.

    Also an object of lists, {name: [...], box: [...]}, as `datasets` keeps lists of objects. Raises Fault.
    """
    if isinstance(value, list | tuple) or not is_empty(value):
        if isinstance(value, str):
            value = python_list(value, "targets")
        if isinstance(value, Mapping) and value.keys() == {"name", "box"}:
            names, boxes = value["name"], value["box"]
            if isinstance(names, list) and isinstance(boxes, list):
                if len(names) != len(boxes):
                    raise Fault("names and boxes", f"targets has {len(names)} names and {len(boxes)} boxes.")
                value = [{"name": name, "box": box} for name, box in zip(names, boxes, strict=True)]
        if not isinstance(value, list | tuple):
            what = (
                f"targets is {KINDS.get(type(value), 'no list')}; it must be a list of {{name, box}}, "
                f"which may be empty."
            )
            raise Fault("wrong type", what)
        return tuple(_target(f"targets[{place}]", target) for place, target in enumerate(value))
    return ()


def _target(where: str, value: Any) -> Target:
    if not isinstance(value, Mapping):
        raise Fault(
            "wrong type",
            f"{where} is {KINDS.get(type(value), 'no object')}; it must be an object with name and box.",
        )
    for key in value:
        if key not in ("name", "box"):
            near = get_close_matches(str(key), [own for own in ("name", "box") if own not in value], n=1)
            raise Fault(
                "unknown key",
                f'{where}: "{key}" is no known key' + (f'; did you mean "{near[0]}"?' if near else "."),
            )
    for key in ("name", "box"):
        if key not in value:
            raise Fault("missing key", f'{where}: "{key}" is missing.')
    if not isinstance(value["name"], str):
        raise Fault(
            "wrong type", f"{where}.name is {KINDS.get(type(value['name']), 'no text')}; it must be a text."
        )
    name, box = check_text(f"{where}.name", value["name"]), value["box"]
    sides = four_numbers(box)
    if sides is None:
        whole = (
            isinstance(box, list | tuple)
            and len(box) == 4
            and all(type(side) in (int, float) and side == side for side in box)
        )
        what = (
            "must hold whole pixels; round it outwards."
            if whole
            else "must be four numbers [x0, y0, x1, y1] in pixels."
        )
        raise Fault("wrong type", f'box {str(box)[:60]} of target "{name}" ({where}) {what}')
    if any(side != int(side) for side in sides):
        raise Fault(
            "wrong type",
            f'box {list(box)} of target "{name}" ({where}) must hold whole pixels; round it outwards.',
        )
    x0, y0, x1, y1 = (int(side) for side in sides)
    if x1 <= x0 or y1 <= y0:
        raise Fault(
            "box is empty",
            f'box {list(box)} of target "{name}" ({where}) is empty: it must have x0 < x1 and y0 < y1.',
        )
    return Target(name, (x0, y0, x1, y1))
