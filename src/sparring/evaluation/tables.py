"""Rows of the files that benchmarks come in: TSV, JSON lines, a JSON list, Parquet, a data set that `datasets` saved.

Texts are read at once; pictures stay in the file and are decoded when they are asked for, so that a suite of large pictures takes no more memory
than a small one.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sparring.data.errors import DataError
from sparring.data.images import ImageError, decode_image
from sparring.evaluation.items import Picture, PictureFile

LONGEST_CELL = 2**28
"""Characters of one cell of a TSV: a picture of 200 MB in base64."""
REFERENCE = 64
"""An `image` of at most so many characters is the index of the row that holds the picture (VLMEvalKit)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its texts and numbers, and the columns that hold pictures."""

    number: int
    values: Mapping[str, Any]
    held: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)

    def text(self, *names: str) -> str:
        """The first of these columns that is not empty, as text; "" where all are."""
        for name in names:
            value = self.values.get(name)
            if not is_empty(value):
                return str(value).strip()
        return ""


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows and its columns."""

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Row]

    def require(self, benchmark: str, *needed: str | tuple[str, ...]) -> None:
        """Raise DataError, naming every column that is missing; a tuple of names means that one of them is enough."""
        missing = [names for names in needed if not any(name in self.columns for name in ([names] if isinstance(names, str) else names))]
        if missing:
            named = ", ".join(f'"{names}"' if isinstance(names, str) else " or ".join(f'"{name}"' for name in names) for names in missing)
            raise DataError(f"{self.path}: {benchmark} needs the column {named}, which is missing. The file has {', '.join(self.columns)}.")

    def where(self, row: Row) -> str:
        """A row's name in errors."""
        return f"{self.path.name} row {row.number}"


def is_empty(value: Any) -> bool:
    """Nothing is there: null, an empty text, or the "nan" of pandas."""
    return value is None or value != value or (isinstance(value, str) and value.strip() in ("", "nan", "NaN"))


def read_table(path: Path, images: Path | None = None) -> Table:
    """Read a file or saved data set. images: the folder of pictures that are named by path; None: the file's own.

    Raises DataError where it is of no format that is known, or holds no row.
    """
    if path.is_dir() and (path / "dataset_info.json").is_file():
        from sparring.evaluation.records import read_saved  # seconds to import, which text files do not need

        table = read_saved(path)
    elif not path.is_file():
        raise DataError(f"{path}: no such file. Name a TSV, JSONL, JSON or Parquet file, or a folder saved with datasets.save_to_disk.")
    elif path.suffix in (".tsv", ".csv"):
        table = _separated(path, images or path.parent, "\t" if path.suffix == ".tsv" else ",")
    elif path.suffix in (".jsonl", ".json"):
        table = _json(path, images or path.parent)
    elif path.suffix == ".parquet":
        from sparring.evaluation.records import read_parquet

        table = read_parquet(path)
    else:
        raise DataError(f"{path}: its name ends in none of .tsv, .csv, .jsonl, .json, .parquet, so its format is not known.")
    if not table.rows:
        raise DataError(f"{path}: holds no row.")
    return table


# ---- text files with separators


@dataclass(frozen=True, slots=True)
class PictureInCell:
    """A picture in base64 in a cell of a TSV, by the byte at which its row begins; `place` where the cell is a list of pictures."""

    path: Path
    separator: str
    offset: int
    column: int
    place: int | None
    name: str = field(compare=False, repr=False)

    def load(self) -> Image:
        return decode_image(self.data(), self.name)

    def data(self) -> bytes:
        cell = _row_at(self.path, self.separator, self.offset)[self.column]
        coded = cell if self.place is None else _list(cell)[self.place]
        try:
            return base64.b64decode(coded.partition(",")[2] if coded.startswith("data:") else coded, validate=False)
        except (binascii.Error, ValueError) as error:
            raise ImageError("not an image", f"{self.name}: no picture in base64 ({error})") from error


class _Lines:
    """Lines of a file as text, counting the bytes that were read."""

    def __init__(self, file: Any, offset: int = 0) -> None:
        self.file, self.offset = file, offset
        file.seek(offset)

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            self.offset += len(line)
            yield line.decode("utf-8-sig" if self.offset == len(line) else "utf-8")


def _row_at(path: Path, separator: str, offset: int) -> list[str]:
    csv.field_size_limit(LONGEST_CELL)
    with path.open("rb") as file:
        return next(csv.reader(_Lines(file, offset), delimiter=separator))


def _separated(path: Path, folder: Path, separator: str) -> Table:
    csv.field_size_limit(LONGEST_CELL)
    rows: list[tuple[int, dict[str, Any]]] = []
    try:
        with path.open("rb") as file:
            lines = _Lines(file)
            reader = csv.reader(lines, delimiter=separator)
            header = next(reader, [])
            offset = lines.offset
            for cells in reader:
                if cells:
                    if len(cells) != len(header):
                        raise DataError(f"{path.name} row {len(rows) + 1}: {len(cells)} cells for {len(header)} columns.")
                    rows.append((offset, {name: _short(name, cell) for name, cell in zip(header, cells, strict=True)}))
                offset = lines.offset
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} row {len(rows) + 1}: cannot be read ({error}).") from error
    column = header.index("image") if "image" in header else -1
    by_index = {str(values.get("index")): offset for offset, values in rows}
    made = []
    for number, (offset, values) in enumerate(rows, start=1):
        where = f"{path.name} row {number}"
        held: tuple[Picture, ...] = ()
        image = values.pop("image", None)
        if isinstance(image, str) and len(image) <= REFERENCE and not is_empty(image):
            if image not in by_index:
                raise DataError(f'{where}: image "{image}" is no picture and no index of another row.')
            offset, image = by_index[image], _Pictures(0)
        if isinstance(image, _Pictures):
            places: Sequence[int | None] = range(image.count) if image.count else [None]
            held = tuple(PictureInCell(path, separator, offset, column, place, f"{where} image") for place in places)
        elif not is_empty(values.get("image_path")):
            held = tuple(picture_file(folder, name, where) for name in _list(str(values["image_path"])))
        made.append(Row(number, values, {"image": held} if held else {}))
    return Table(path, tuple(header), made)


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Stands for a cell of pictures that was too long to keep: how many, 0 for one that is no list."""

    count: int


def _short(name: str, cell: str) -> Any:
    if name != "image" or len(cell) <= REFERENCE:
        return cell
    return _Pictures(len(_list(cell)) if cell.startswith("[") else 0)


def _list(cell: str) -> list[str]:
    """A cell that is a list, written as JSON or as Python; else a list of the cell alone."""
    if not cell.startswith("["):
        return [cell]
    try:
        return [str(part) for part in json.loads(cell)]
    except ValueError:
        # A list as Python writes it: base64 and paths hold no quotes.
        return [part.strip().strip("'\"") for part in cell.strip("[] \n").split(",") if part.strip()]


def picture_file(folder: Path, name: str, where: str) -> PictureFile:
    """A picture named by path, which must stay inside the folder. Raises DataError where it leaves it or is not there."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f'{where}: image "{name}" leaves the folder {folder}.')
    if not path.is_file():
        raise DataError(f'{where}: image "{name}" is not in {folder}. Name the folder of the pictures with --images.')
    return PictureFile(path)


# ---- JSON


def _json(path: Path, folder: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json" and text.lstrip().startswith("["):
            records = json.loads(text)
        else:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{path}: no JSON list and no JSON lines ({error}).") from error
    rows, columns = [], dict[str, None]()
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(f"{path.name} row {number}: must be an object, {{...}}.")
        columns |= dict.fromkeys(record)
        named: Any = next((record[name] for name in ("image", "image_path", "images") if not is_empty(record.get(name))), [])
        files = tuple(
            picture_file(folder, str(name), f"{path.name} row {number}") for name in (named if isinstance(named, list) else [named])
        )
        rows.append(Row(number, record, {"image": files} if files else {}))
    return Table(path, tuple(columns), rows)
