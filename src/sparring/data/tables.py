"""Rows of the files that questions come in, whatever their format (`text_tables`, `arrow`).

Texts are read row by row; pictures stay in the file and are decoded when they are asked for, so that a suite
of large pictures takes no more memory than a small one. A row that cannot be read carries its fault; the
others are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparring.data.errors import DataError, Fault, Problem
from sparring.data.files import files_below
from sparring.data.images import ImageError
from sparring.data.pictures import FIELDS, LONGEST_NAME, OTHER_FIELDS, Picture, is_empty, pictures_of

LONGEST_TEXT = 2**24
"""Characters of a text, pictures apart, above which its record is refused."""
PICTURES = (*FIELDS, *OTHER_FIELDS)
SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its texts and numbers, and its pictures. fault: why it, or its pictures, cannot be read."""

    number: int
    values: Mapping[str, Any]
    pictures: tuple[Picture, ...] = ()
    fault: Fault | None = None

    def text(self, *names: str) -> str:
        """The first of these columns that is not empty, as text; "" where all are."""
        return text_of(self.values, *names)


@dataclass(frozen=True, slots=True)
class Table:
    """A file's records, gone through as often as need be, and its columns. unit: what its records are called
    in messages.

    records: (number, fields or what is wrong) of each. row: makes a row of one, with its pictures.
    """

    path: Path
    columns: tuple[str, ...]
    records: Callable[[], Iterable[tuple[int, Mapping[str, Any] | Fault]]] = field(repr=False)
    row: Callable[[int, Mapping[str, Any]], Row] = field(repr=False)
    unit: str = "row"
    pictures: tuple[str, ...] = ()
    """Columns that hold pictures, whatever they are called."""

    def rows(self) -> Iterator[Row]:
        """The rows in order, from 1 (of JSON lines: numbered by their lines, blank ones included)."""
        for number, values in self.records():
            yield Row(number, {}, (), values) if isinstance(values, Fault) else self.row(number, values)

    def require(self, layout: str, *needed: str | tuple[str, ...]) -> None:
        """Raise DataError, naming every column that is missing; a tuple of names means that one of them is
        enough."""
        if not self.columns and (
            bad := next((pair for pair in self.records() if isinstance(pair[1], Fault)), None)
        ):
            told = self.problem(Row(bad[0], {}), bad[1]).message if isinstance(bad[1], Fault) else ""
            raise DataError(f"{self.path}: no record of it can be read. The first: {told}")
        alike = [(names,) if isinstance(names, str) else names for names in needed]
        missing = [names for names in alike if not any(name in self.columns for name in names)]
        if missing:
            named = ", ".join(" or ".join(f'"{name}"' for name in names) for names in missing)
            raise DataError(
                f"{self.path}: {layout} needs the column {named}, which is missing. The file has "
                f"{', '.join(self.columns)}."
            )

    def where(self, row: Row) -> str:
        """A row's name in errors."""
        return f"{self.path.name} {self.unit} {row.number}"

    def problem(self, row: Row, fault: Fault) -> Problem:
        """A row's fault as a problem."""
        return fault.of(self.path, self.unit, row.number, id_of(row))


ASKING = ("question", "text", "prompt")
"""Where a record has its question."""
IDS = ("index", "id", "idx", "question_id")


def four_numbers(value: Any) -> list[float] | None:
    """The sides of a box, also where they are written as texts; None where they are no four finite
    numbers.
    """
    if (
        not isinstance(value, list | tuple)
        or len(value) != 4
        or any(isinstance(side, bool) for side in value)
    ):
        return None
    try:
        sides = [side if isinstance(side, int) else float(side) for side in value]
    except (TypeError, ValueError):
        return None
    return sides if all(side == side and abs(side) < 2**31 for side in sides) else None


def id_of(row: Row) -> str | None:
    """The id that a row gives itself, as text; None where it gives none."""
    return row.text(*IDS) or None


def text_of(values: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that is not empty, as text; "" where all are."""
    return next((str(values[name]).strip() for name in names if not is_empty(values.get(name))), "")


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files below a folder, in order."""
    return files_below(folder, "**/*.parquet")


def row_of(
    path: Path,
    unit: str,
    number: int,
    values: Mapping[str, Any],
    folder: Path,
    cell: Callable[[str, int], Picture] | None = None,
) -> Row:
    """A row with the pictures that its fields hold or name; of these fields only what may be a name is
    kept."""
    kept = {
        name: value
        for name, value in values.items()
        if name not in PICTURES or (isinstance(value, str) and len(value) <= LONGEST_NAME)
    }
    try:
        return Row(number, kept, pictures_of(values, folder, f"{path.name} {unit} {number}", cell))
    except ImageError as error:
        return Row(number, kept, (), Fault(error.reason, f"{error}."))
