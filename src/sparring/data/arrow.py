"""Rows of Parquet files, of folders of them, and of data sets that `datasets` saved; see
`sparring.data.tables`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from sparring.data.errors import DataError, Fault
from sparring.data.files import read_json
from sparring.data.images import ImageError
from sparring.data.pictures import Picture, PictureInCell, is_coded, pictures_of
from sparring.data.tables import PICTURES, Row, Table, parquet_files


@dataclass(frozen=True, slots=True)
class _Cells:
    """Files of rows, of which one group of rows of one column is in memory at a time. firsts: the number
    of each file's first row."""

    files: tuple[Path, ...]
    firsts: tuple[int, ...]
    stream: bool

    def cell(self, row: int, column: str) -> Any:
        """What stands in that row of all files together."""
        place = next(place for place in reversed(range(len(self.files))) if self.firsts[place] <= row)
        groups = _groups(self.files[place], self.stream)
        inside = row - self.firsts[place]
        group = next(at for at in reversed(range(len(groups))) if groups[at] <= inside)
        return _column(self.files[place], self.stream, group, column)[inside - groups[group]].as_py()


def _open(file: Path, stream: bool) -> Any:
    try:
        if not stream:
            return parquet.ParquetFile(file)
        source = arrow.memory_map(str(file))
        try:
            return arrow.ipc.open_file(source)
        except arrow.ArrowInvalid:
            return arrow.ipc.open_stream(source).read_all().to_batches()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: no readable {'Arrow' if stream else 'Parquet'} file ({error}).") from error


@lru_cache(maxsize=4)
def _opened(file: Path, stream: bool) -> Any:
    return _open(file, stream)


@lru_cache(maxsize=256)
def _groups(file: Path, stream: bool) -> tuple[int, ...]:
    """The first row of every group of rows."""
    firsts, total = list[int](), 0
    for size in _sizes(_opened(file, stream), stream):
        firsts.append(total)
        total += size
    return tuple(firsts)


def _sizes(found: Any, stream: bool) -> list[int]:
    if not stream:
        return [found.metadata.row_group(at).num_rows for at in range(found.num_row_groups)]
    return [_batch(found, at).num_rows for at in range(_batches(found))]


def _batches(found: Any) -> int:
    return len(found) if isinstance(found, list) else int(found.num_record_batches)


def _batch(found: Any, at: int) -> Any:
    return found[at] if isinstance(found, list) else found.get_batch(at)


@lru_cache(maxsize=1)
def _kept(file: Path, stream: bool, group: int) -> dict[str, Any]:
    """The columns of a group of rows that were read; those of another group take their place."""
    return {}


def _column(file: Path, stream: bool, group: int, column: str) -> Any:
    kept = _kept(file, stream, group)
    if column not in kept:
        found = _opened(file, stream)
        own = _batch(found, group) if stream else found.read_row_group(group, columns=[column])
        kept[column] = own.column(column)
    return kept[column]


def read_arrow(path: Path, folder: Path, kind: str) -> Table:
    """A Parquet file or a folder of them ("parquet"), an Arrow file ("arrow"), a folder of
    `datasets.save_to_disk` ("saved").

    Of several splits all are read, one after another; a folder that holds some is named to read one alone.
    folder: that paths of pictures are relative to. Raises DataError where a file cannot be read, or where
    files hold other columns than the first.
    """
    for cached in (_opened, _groups, _kept, _schema):
        cached.cache_clear()  # a file may have been written anew
    if kind == "saved":
        files = _saved_files(path)
    else:
        files = parquet_files(path) if path.is_dir() else [path]
    stream = kind != "parquet"
    schemas = [_schema(file, stream) for file in files]
    names = tuple(dict.fromkeys(name for schema in schemas for name in schema.names))
    sizes = [sum(_sizes(_opened(file, stream), stream)) for file in files]
    cells = _Cells(tuple(files), tuple(sum(sizes[:place]) for place in range(len(files))), stream)
    held = tuple(name for name in names if name in PICTURES or _is_picture(schemas, name))
    classes = _class_names(schemas)

    splits = _splits(path, files)

    def records() -> Iterator[tuple[int, Mapping[str, Any]]]:
        first = 0
        for file, schema, size, split in zip(files, schemas, sizes, splits, strict=True):
            own = {"split": split} if split and "split" not in schema.names else {}
            found = _opened(file, stream)
            texts = [name for name in schema.names if name not in held]
            for group in range(len(_groups(file, stream))):
                part = (
                    arrow.Table.from_batches([_batch(found, group)]).select(texts)
                    if stream
                    else found.read_row_group(group, columns=texts)
                )
                start = first + _groups(file, stream)[group]
                rows = part.num_rows
                listed = part.to_pylist() if texts else [{} for _ in range(rows)]
                for place, values in enumerate(listed):
                    yield (
                        start + place + 1,
                        {name: _named(value, classes.get(name)) for name, value in values.items()} | own,
                    )
            first += size

    def row(number: int, values: Mapping[str, Any]) -> Row:
        name = f"{path.name} row {number}"

        def cell(column: str, place: int) -> Picture:
            return PictureInCell(cells, number - 1, column, place, f"{name} {column}")

        fields = {
            column: cells.cell(number - 1, column) for column in held if _has(cells, number - 1, column)
        }
        kept = dict(values) | {
            key: value for key, value in fields.items() if isinstance(value, str) and not is_coded(value)
        }
        try:
            return Row(
                number,
                kept,
                pictures_of(fields, folder, name, cell, [key for key in held if key not in PICTURES]),
            )
        except ImageError as error:
            return Row(number, kept, (), Fault(error.reason, f"{error}."))

    return Table(path, names, records, row, pictures=held)


def _has(cells: _Cells, row: int, column: str) -> bool:
    place = next(place for place in reversed(range(len(cells.files))) if cells.firsts[place] <= row)
    return column in _schema(cells.files[place], cells.stream).names


@lru_cache(maxsize=256)
def _schema(file: Path, stream: bool) -> Any:
    found = _opened(file, stream)
    if not stream:
        return found.schema_arrow
    return found[0].schema if isinstance(found, list) else found.schema


def _is_picture(schemas: Sequence[Any], name: str) -> bool:
    """Does a column hold pictures, whatever its name: an object of bytes and path, or a list of these? Or
    bytes, by its name?
    """
    for schema in schemas:
        if name in schema.names:
            kind = schema.field(name).type
            while isinstance(kind, arrow.ListType | arrow.LargeListType | arrow.FixedSizeListType):
                kind = kind.value_type
            if arrow.types.is_struct(kind):
                return {"bytes", "path"} <= {kind.field(at).name for at in range(kind.num_fields)}
            return name.startswith(("image", "img")) and (
                arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)
            )
    return False


def _splits(path: Path, files: Sequence[Path]) -> list[str]:
    """The split that each file belongs to, by the start of its name, or by its folder where that begins with
    0, as numbers of shards do, or the file is of Arrow; "" where all are of one."""
    starts = [re.split(r"[-_.]", file.name)[0] for file in files]
    names = [
        file.parent.name if file.suffix == ".arrow" or re.fullmatch(r"0\d*", start) else start
        for file, start in zip(files, starts, strict=True)
    ]
    return names if len(set(names)) > 1 else [""] * len(files)


def _saved_files(path: Path) -> list[Path]:
    """The Arrow files of a saved data set, split after split, in the order in which they were saved."""
    folders = [path]
    if (path / "dataset_dict.json").is_file():
        folders = [path / str(split) for split in read_json(path / "dataset_dict.json").get("splits", ())]
    files = list[Path]()
    for folder in folders:
        if (folder / "state.json").is_file():
            named = [
                str(file.get("filename")) for file in read_json(folder / "state.json").get("_data_files", ())
            ]
            found = [folder / name for name in named if "/" not in name]
        else:
            found = sorted(folder.glob("*.arrow"))
        missing = next((file for file in found if not file.is_file()), None)
        if missing is not None or not found:
            raise DataError(
                f"{folder}: its file {missing.name if missing else '*.arrow'} is missing. Save the data "
                f"set anew."
            )
        files += found
    if not files:
        raise DataError(f"{path}: holds no split.")
    return files


def _class_names(schemas: Sequence[Any]) -> dict[str, list[str]]:
    """Column -> the names of its classes, where a column of numbers stands for names
    (`datasets.ClassLabel`)."""
    found = dict[str, list[str]]()
    for schema in schemas:
        noted = (schema.metadata or {}).get(b"huggingface")
        features = json.loads(noted).get("info", {}).get("features", {}) if noted else {}
        for name, feature in features.items():
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names"):
                found.setdefault(name, [str(own) for own in feature["names"]])
    return found


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is None or not isinstance(value, int) or not 0 <= value < len(names):
        return value
    return names[value]
