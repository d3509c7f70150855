"""Rows of Parquet files and of data sets that `datasets` saved; see `sparring.evaluation.tables`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as parquet
from datasets import Dataset, load_from_disk
from datasets import Image as ImageFeature
from PIL.Image import Image

from sparring.data.errors import DataError
from sparring.data.images import ImageError, decode_image
from sparring.evaluation.tables import Row, Table


class _Records(Protocol):
    def record(self, row: int, column: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class PictureInRecord:
    """A picture in a record of a Parquet file or a saved data set."""

    source: _Records
    row: int
    column: str
    name: str

    def load(self) -> Image:
        return decode_image(self.data(), self.name)

    def data(self) -> bytes:
        held = self.source.record(self.row, self.column)
        data = held.get("bytes") if isinstance(held, dict) else held
        if not isinstance(data, bytes):
            raise ImageError("not an image", f"{self.name}: holds no bytes of a picture.")
        return data


class _ParquetFile:
    """A Parquet file, of which one group of rows of one column is in memory at a time."""

    def __init__(self, path: Path) -> None:
        self.file = parquet.ParquetFile(path)
        self.firsts = [0]
        for group in range(self.file.num_row_groups):
            self.firsts.append(self.firsts[-1] + self.file.metadata.row_group(group).num_rows)
        self._group = lru_cache(maxsize=1)(lambda group, column: self.file.read_row_group(group, columns=[column])[column])

    def record(self, row: int, column: str) -> Any:
        group = next(place for place, first in enumerate(self.firsts[1:]) if row < first)
        return self._group(group, column)[row - self.firsts[group]].as_py()


class _SavedDataset:
    """A data set in memory-mapped files."""

    def __init__(self, data: Dataset) -> None:
        pictures = [name for name, feature in data.features.items() if isinstance(feature, ImageFeature)]
        for name in pictures:
            data = data.cast_column(name, ImageFeature(decode=False))
        self.data, self.pictures = data, pictures

    def record(self, row: int, column: str) -> Any:
        return self.data[row][column]


def read_parquet(path: Path) -> Table:
    """A Parquet file; pictures are structs of bytes and path, or bytes. Raises DataError where it cannot be read."""
    try:
        source = _ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable Parquet file ({error}).") from error
    schema = source.file.schema_arrow
    pictures = [name for name in schema.names if name.startswith("image") and str(schema.field(name).type).startswith(("struct", "binary"))]
    texts = [name for name in schema.names if name not in pictures]
    values = source.file.read(columns=texts).to_pylist()
    # Which pictures are there is told by the lengths of their bytes, without keeping these.
    present: dict[str, list[bool]] = {}
    for name in pictures:
        found = []
        for batch in source.file.iter_batches(batch_size=16, columns=[name]):
            found += [
                cell is not None and (cell.get("bytes") if isinstance(cell, dict) else cell) is not None for cell in batch[0].to_pylist()
            ]
        present[name] = found
    return _from_records(path, tuple(schema.names), values, source, present)


def read_saved(path: Path) -> Table:
    """A folder that `datasets` saved. Raises DataError where it holds several splits."""
    data = load_from_disk(str(path))
    if not isinstance(data, Dataset):
        raise DataError(f"{path}: holds several splits ({', '.join(data)}). Name the folder of one of them.")
    source = _SavedDataset(data)
    values = source.data.remove_columns(source.pictures).to_list()
    present = {name: [cell is not None for cell in source.data[name]] for name in source.pictures}
    return _from_records(path, tuple(data.column_names), values, source, present)


def _from_records(
    path: Path, columns: tuple[str, ...], values: list[dict[str, Any]], source: _Records, present: Mapping[str, Sequence[bool]]
) -> Table:
    rows = []
    for place, record in enumerate(values):
        held = tuple(
            PictureInRecord(source, place, name, f"{path.name} row {place + 1} {name}") for name in present if present[name][place]
        )
        rows.append(Row(place + 1, record, {"image": held} if held else {}))
    return Table(path, columns, rows)
