"""Tables in text files, TSV, CSV, JSON lines and a JSON list, and which format a file is of."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sparring.data.errors import DataError, Fault
from sparring.data.files import lines_of, open_text, read_json
from sparring.data.pictures import FIELDS, LONGEST_NAME, REFERENCE, Picture, PictureInCell, is_coded
from sparring.data.tables import (
    ASKING,
    IDS,
    KINDS,
    LONGEST_TEXT,
    PICTURES,
    SUFFIXES,
    Row,
    Table,
    parquet_files,
    row_of,
    text_of,
)

LONGEST_CELL = 2**28
"""Characters of one cell of a TSV: a picture of 200 MB in base64."""
LONGEST_LINE = 2**28
LFS = b"version https://git-lfs"
"""How a pointer begins that stands for a file that was not fetched."""


def read_table(path: Path, images: Path | None = None) -> Table:
    """Open a file, a folder of Parquet files or a saved data set. images: what pictures are named from; None:
    the file's folder.

    What a file is, its content says where its name does not. Raises DataError where it is of no known format
    or holds no row.
    """
    kind = table_kind(path)
    if kind is None:
        if not path.exists():
            raise DataError(
                f"{path}: no such file or folder. Name a TSV, CSV, JSONL, JSON or Parquet file, or a folder "
                f"of one."
            )
        raise DataError(
            f"{path}: its name ends in none of {', '.join(SUFFIXES)}, and it is no folder of Parquet files "
            f"or of datasets.save_to_disk, so its format is not known."
        )
    folder = images or (path if path.is_dir() else path.parent)
    if kind in ("tsv", "csv"):
        table = _separated(path, folder, _separator(path, "\t" if kind == "tsv" else ","))
    elif kind == "lines":
        table = _json_lines(path, folder)
    elif kind == "list":
        table = _json_list(path, folder)
    else:
        from sparring.data.arrow import read_arrow  # seconds to import, which text files do not need

        table = read_arrow(path, folder, kind)
    if next(iter(table.records()), None) is None:
        raise DataError(f"{path}: holds no record: the file is empty. Write one question a line, as JSON.")
    return table


def table_kind(path: Path) -> str | None:
    """tsv, csv, lines, list, parquet, arrow or saved; None where a path is no table. A JSON object is
    none, unless it holds rows."""
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json")):
            return "saved"
        return "parquet" if parquet_files(path) else None
    if not path.is_file():
        return None
    suffix = path.suffix.lower()
    start = _start(path)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"ARROW1") or suffix == ".arrow":
        return "arrow"
    if start.startswith(LFS) or (
        b"\0" in start and b"\xef\xbf\xbd" in start.decode("utf-8", "replace")[:-4].encode()
    ):
        return None
    if suffix == ".json":
        return "list" if start.startswith(b"[") or not _is_lines(path) else "lines"
    if suffix in (".tsv", ".csv", ".jsonl", ".ndjson"):
        if start.startswith((b"[{", b"[ {", b"[\n", b"[\r", b"{\n", b"{\r")):
            return "list" if not _is_lines(path) else "lines"
        if any(line.lstrip().startswith(b"{") for line in start.split(b"\n")[:5]):
            return "lines"
        if suffix in (".tsv", ".csv"):
            return suffix[1:]
        # Called JSON lines, and none: a table, if its first line names a column of questions.
        head = start.split(b"\n")[0].lower()
        named = any(name.encode() in head for name in ASKING)
        return (
            ("tsv" if b"\t" in head else "csv")
            if named and (b"\t" in head or b"," in head)
            else "lines"
            if not start
            else None
        )
    return None


def _start(path: Path) -> bytes:
    file, _ = open_text(path)
    with file:
        return file.read(4096).lstrip()


def _is_lines(path: Path) -> bool:
    """Are the records on lines of their own: is the first line an object, or a damaged one with others
    after it?"""
    lines = lines_of(path, LONGEST_LINE)
    first, second = next(lines, None), next(lines, None)
    if first is None:
        return True
    try:
        found = json.loads(first[2])
    except (ValueError, RecursionError):
        return first[2].startswith(b"{") and first[2].rstrip().endswith(b"}")
    return isinstance(found, dict) and (
        second is not None or any(isinstance(found.get(name), str) for name in ASKING)
    )


# ---- text files with separators


class _Lines:
    """Lines of a file as text, counting the bytes that were read; what is no UTF-8 comes as lone
    surrogates."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.offset = file, file.tell()

    def __iter__(self) -> Iterator[str]:
        for line in iter(self.file.readline, b""):
            self.offset += len(line)
            yield line.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class _Separated:
    """A TSV or CSV. Cells of pictures are read again, from the byte at which their row begins, when they
    are asked for."""

    path: Path
    separator: str
    header: tuple[str, ...] = ()

    def rows(self, offset: int | None = None) -> Iterator[tuple[int, list[str]]]:
        """(byte at which it begins, cells) of every row from there on."""
        csv.field_size_limit(LONGEST_CELL)
        file, _ = open_text(self.path)
        with file:
            if offset is not None:
                file.seek(offset)
            lines = _Lines(file)
            begin, number = lines.offset, 0
            try:
                for cells in csv.reader(lines, delimiter=self.separator):
                    if cells:
                        yield begin, cells
                        number += 1
                    begin = lines.offset
            except csv.Error as error:
                raise DataError(f"{self.path} row {max(1, number)}: cannot be read ({error}).") from error

    def cell(self, row: int, column: str) -> Any:
        """What stands in the row that begins at that byte."""
        return _as_list(next(self.rows(row))[1][self.header.index(column)])


def _separated(path: Path, folder: Path, separator: str) -> Table:
    rows = _Separated(path, separator).rows()
    header = tuple(name.strip() for name in next(rows, (0, []))[1])
    twins = [name for name, count in Counter(header).items() if count > 1]
    if twins:
        raise DataError(f'{path}: the column "{twins[0]}" is there twice.')
    source = _Separated(path, separator, header)
    records = list[tuple[int, Mapping[str, Any] | Fault]]()
    offsets = list[int]()
    for number, (offset, cells) in enumerate(rows, start=1):
        offsets.append(offset)
        if len(cells) == len(header):
            records.append(
                (number, dict(_short(name, cell) for name, cell in zip(header, cells, strict=True)))
            )
        else:
            what = f"the row has {len(cells)} cells for {len(header)} columns."
            records.append((number, Fault("wrong number of columns", what)))
    # VLMEvalKit: the index of the row that holds the picture.
    holders = {
        text_of(values, *IDS): (offset, values["image"])
        for (_, values), offset in zip(records, offsets, strict=True)
        if isinstance(values, dict) and isinstance(values.get("image"), _Coded)
    }

    def row(number: int, values: Mapping[str, Any]) -> Row:
        name, image = f"{path.name} row {number} image", values.get("image")

        def cells(offset: int, held: _Coded) -> tuple[Picture, ...]:
            return tuple(PictureInCell(source, offset, "image", place, name) for place in range(held.count))

        def with_others(kept: Mapping[str, Any], first: tuple[Picture, ...]) -> Row:
            others = {key: _as_list(kept[key]) for key in FIELDS if key != "image" and key in kept}
            beside = row_of(path, "row", number, others, folder)
            return Row(number, kept, (*first, *beside.pictures), beside.fault)

        if isinstance(image, _Coded):
            kept = {key: value for key, value in values.items() if key != "image"}
            return with_others(kept, cells(offsets[number - 1], image))
        other = image.strip() if isinstance(image, str) and len(image) <= REFERENCE else ""
        if other and not (folder / other).is_file():
            if other in holders:
                return with_others(values, cells(*holders[other]))
            if other.isdigit():
                what = f'image "{other}" is no picture and no index of another row that holds one.'
                return Row(number, values, (), Fault("image missing", what))
        listed = {
            key: _as_list(value) if key in PICTURES and isinstance(value, str) else value
            for key, value in values.items()
        }
        return row_of(path, "row", number, listed, folder)

    return Table(path, header, lambda: records, row)


def _separator(path: Path, usual: str) -> str:
    """What separates the columns: what the name says, unless the header has none of it and another one."""
    file, _ = open_text(path)
    with file:
        header = file.readline().decode("utf-8", "replace")
    return next((mark for mark in (usual, "\t", ";", ",") if mark in header), usual)


@dataclass(frozen=True, slots=True)
class _Coded:
    """Stands for a cell of coded pictures, which is too long to keep: how many it holds."""

    count: int


def _short(name: str, cell: str) -> tuple[str, Any]:
    if name != "image" or len(cell) <= REFERENCE:
        return name, cell
    found = _as_list(cell)
    if isinstance(found, list):
        coded = [isinstance(part, str) and is_coded(part) for part in found]
        return name, _Coded(len(found)) if coded and all(coded) else cell
    return name, _Coded(1) if is_coded(cell.strip()) else cell


def _as_list(cell: str) -> Any:
    """A cell that is a list, written as JSON or as Python; else the cell."""
    text = cell.strip()
    if not text.startswith("["):
        return cell
    try:
        found = json.loads(text)
        return found if isinstance(found, list) else cell
    except ValueError:
        # A list as Python writes it: base64 and paths hold no quotes.
        return [part.strip().strip("'\"") for part in text.strip("[]").split(",") if part.strip()]


# ---- JSON


@dataclass(frozen=True)
class _JsonLines:
    """A file of JSON lines. A picture in one is read again, from the byte at which its line begins, when
    it is asked for."""

    path: Path

    def cell(self, row: int, column: str) -> Any:
        """What the line that begins at that byte has there."""
        with self.path.open("rb") as file:
            file.seek(row)
            return json.loads(file.readline())[column]


def _json_lines(path: Path, folder: Path) -> Table:
    source = _JsonLines(path)
    starts = dict[int, int]()

    def records() -> Iterator[tuple[int, Mapping[str, Any] | Fault]]:
        for number, offset, line in lines_of(path, LONGEST_LINE):
            if offset is not None and len(line) > LONGEST_NAME:
                starts[number] = offset
            try:
                yield number, json_object(line)
            except Fault as fault:
                yield number, fault

    def row(number: int, values: Mapping[str, Any]) -> Row:
        def cell(column: str, place: int) -> Picture:
            return PictureInCell(source, starts[number], column, place, f"{path.name} line {number} {column}")

        return row_of(path, "line", number, values, folder, cell if number in starts else None)

    columns = dict[str, None]()
    for _, values in records():
        columns |= dict.fromkeys(() if isinstance(values, Fault) else values)
    return Table(path, tuple(columns), records, row, "line")


def json_object(raw: bytes) -> dict[str, Any]:
    """A line as an object. Raises Fault where it is none."""
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_twins)
    except UnicodeDecodeError as error:
        raise Fault(
            "not UTF-8", f"byte {error.start + 1} of the line is not UTF-8. Save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise Fault("broken JSON", f"no valid JSON at column {error.colno}: {error.msg}.") from error
    except (RecursionError, ValueError) as error:
        raise Fault("broken JSON", f"no usable JSON ({error}).") from error
    if not isinstance(data, dict):
        raise Fault("broken JSON", f"the line is {KINDS[type(data)]}; it must be an object, {{...}}.")
    texts = (value for name, value in data.items() if name not in PICTURES and isinstance(value, str))
    if len(raw) > LONGEST_TEXT and any(len(text) > LONGEST_TEXT for text in texts):
        raise Fault("line too long", f"the line has a text of more than {LONGEST_TEXT} characters.")
    return data


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twins = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twins:
        raise Fault("duplicate key", f'key "{twins[0]}" is given twice.')
    return dict(pairs)


def _json_list(path: Path, folder: Path) -> Table:
    found = rows_in(read_json(path))
    if found is None:
        raise DataError(f"{path}: holds no list of records. Write [{{...}}, ...], or one record a line.")
    what = "it must be an object, {...}."
    records = [
        (
            number,
            record
            if isinstance(record, dict)
            else Fault("broken JSON", f"the row is {KINDS[type(record)]}; {what}"),
        )
        for number, record in enumerate(found, start=1)
    ]
    columns = dict.fromkeys(key for record in found if isinstance(record, dict) for key in record)
    return Table(
        path,
        tuple(columns),
        lambda: records,
        lambda number, values: row_of(path, "row", number, values, folder),
    )


def rows_in(whole: Any) -> list[Any] | None:
    """The records of a parsed file: a list; an object whose only list of objects they are; an object of
    objects by their ids."""
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, dict):
        return None
    lists = [
        value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if len(lists) == 1:
        return list(lists[0])
    if whole and all(isinstance(value, dict) for value in whole.values()):
        return [{"id": key} | value for key, value in whole.items()]
    return None
