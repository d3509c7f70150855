"""Questions with options, and open ones, from the rows of a table: the layouts of VLMEvalKit and of the Hugging Face hub, and any user's own.

A row has a question, options in columns A, B, ... or in one list (`options`, `choices`), and an answer: the letter of an option, "(B)", an option's words, or
the number of an option in a list. A row without options is an open question.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparring.data.errors import DataError
from sparring.data.records import LETTERS, Target
from sparring.evaluation.items import Item, Kind
from sparring.evaluation.tables import Row, Table, is_empty, read_table

IDS = ("index", "id", "idx", "question_id")
TEXTS = ("question", "text", "prompt")
ANSWERS = ("answer", "label", "gt_answer")
LISTS = ("options", "choices")
IMAGES = ("image", "image_path", "images", "image_1")
EMBEDDED = re.compile(r"(?:^|\n)\s*\(?([A-H])[.)]\s*([^\n]+)")
INLINE = re.compile(r"\(([A-D])\)\s*([^()\n]+?)\s*(?=\([A-D]\)|\n|$)")

Extra = Callable[[Row], Mapping[str, Any]]


def read_choices(
    path: Path,
    benchmark: str,
    *,
    images: Path | None = None,
    needed: tuple[str | tuple[str, ...], ...] = (),
    category: tuple[str, ...] = ("category",),
    extra: Extra = lambda row: {},
    open_answers: bool = False,
) -> list[Item]:
    """The items of a table. needed: columns beside question, answer and picture. extra: a row's meta. open_answers: rows may be without options."""
    table = read_table(path, images)
    table.require(benchmark, IDS, TEXTS, ANSWERS, IMAGES, *needed)
    if (
        not open_answers
        and not any(name in table.columns for name in LISTS)
        and not any(embedded_options(row)[1] for row in table.rows[:3])
    ):
        table.require(benchmark, "A", "B")
    items, seen = [], set[str]()
    for row in table.rows:
        item = row_item(table, row, category=category, extra=extra, open_answers=open_answers)
        if item.id in seen:
            raise DataError(f'{table.where(row)}: the id "{item.id}" was already given. Ids are unique in a file.')
        seen.add(item.id)
        items.append(item)
    return items


def row_item(table: Table, row: Row, *, category: tuple[str, ...], extra: Extra, open_answers: bool) -> Item:
    """One row as an item. Raises DataError, naming the row and the column, where it cannot be."""
    where = table.where(row)
    question, options = row.text(*TEXTS), _options(row, where)
    if not options:
        question, options = embedded_options(row)
    answer = row.text(*ANSWERS)
    if not question or not answer:
        raise DataError(f"{where}: {'the question' if not question else 'the answer'} is empty. Splits without answers cannot be scored.")
    kind: Kind = "choice"
    if options:
        answer = answer_letter(answer, options, where)
    elif open_answers:
        kind = "open"
    else:
        raise DataError(f"{where}: has no options: its columns A, B, ... and options, choices are empty.")
    return Item(
        id=row.text(*IDS) or str(row.number),
        kind=kind,
        question=question,
        answer=answer,
        options=options,
        pictures=row.held.get("image", ()),
        category=row.text(*category) or None,
        hint=row.text("hint") or None,
        targets=targets_of(row.values.get("targets"), where),
        meta=dict(extra(row)),
    )


def _options(row: Row, where: str) -> tuple[str, ...]:
    for name in LISTS:
        value = row.values.get(name)
        if isinstance(value, str) and not is_empty(value):
            value = python_list(value, f"{where} {name}")
        if value:
            return tuple(str(option).strip() for option in value)
    # A gap ends the options: C without B is a damaged row.
    given = [row.values.get(letter) for letter in string.ascii_uppercase]
    count = next((place for place, value in enumerate(given) if is_empty(value)), len(given))
    return tuple(str(value).strip() for value in given[:count])


def python_list(text: str, where: str) -> list[Any]:
    """A list written as JSON or as Python literals. Raises DataError where it is neither."""
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise DataError(f"{where}: {text[:60]!r} is no list.") from error
    if not isinstance(value, list):
        raise DataError(f"{where}: {text[:60]!r} is no list.")
    return value


def embedded_options(row: Row) -> tuple[str, tuple[str, ...]]:
    """The question without the options that stand in its text, one a line ("A. red") or in brackets ("(A) red (B) green"), and these."""
    question = row.text(*TEXTS)
    for pattern in (EMBEDDED, INLINE):
        found = list(pattern.finditer(question))
        if len(found) > 1 and [match[1] for match in found] == list(string.ascii_uppercase[: len(found)]):
            return question[: found[0].start()].strip(), tuple(match[2].strip() for match in found)
    return question, ()


def answer_letter(answer: str, options: tuple[str, ...], where: str) -> str:
    """The letter of the right option from a letter, a bracketed letter, an option's words, or an option's number counted from 0."""
    letters = LETTERS[: len(options)]
    plain = answer.strip().strip("().").strip()
    if len(plain) == 1 and plain.upper() in letters:
        return plain.upper()
    if options.count(answer) == 1:
        return letters[options.index(answer)]
    if plain.isdigit() and int(plain) < len(options):
        return letters[int(plain)]
    raise DataError(f"{where}: the answer {answer!r} is none of the options {letters[0]} to {letters[-1]}.")


def targets_of(value: Any, where: str) -> tuple[Target, ...]:
    """Boxes that a record of any benchmark may hold beside its own fields: a list of {name, box}, in a TSV as JSON; none where the field is empty."""
    if is_empty(value):
        return ()
    listed = python_list(value, f"{where} targets") if isinstance(value, str) else value
    return tuple(_target(target, where) for target in listed)


def _target(value: Any, where: str) -> Target:
    try:
        x0, y0, x1, y1 = (int(part) for part in value["box"])
        return Target(str(value["name"]), (x0, y0, x1, y1))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: targets must be a list of {{name, box}}, a box being four numbers.") from error
