"""Sources that are a table: JSONL, VLMEvalKit's TSV, Hugging Face data sets on disk."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sparring.data.errors import DataError
from sparring.data.questions import Picture
from sparring.data.records import LETTERS
from sparring.forge.records import Refused, Unit
from sparring.forge.sources.base import Source

LONGEST_LINE = 2**24
"""Bytes of a JSONL line above which it is refused unread."""


class Jsonl(Source):
    """The format of `data.questions`: one JSON object a line, pictures in the file's folder."""

    unit = "line"

    def payloads(self) -> Iterator[bytes]:
        return (line for _, line in self._lines())

    def units(self) -> Iterator[Unit]:
        """Numbered by their lines, empty ones included."""
        return (Unit(number, line) for number, line in self._lines())

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with open(self.path, "rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                whole = line
                while not whole.endswith(b"\n") and (whole := file.readline(LONGEST_LINE)):
                    pass  # the rest of a line that is too long
                text = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip(b"\r\n")
                if text.strip():
                    yield number, text

    def record(self, unit: Unit, picture: Picture) -> tuple[bytes, None]:
        if len(unit.payload) > LONGEST_LINE:
            raise Refused("line too long", f"the line has more than {LONGEST_LINE} bytes.")
        return unit.payload, None

    def files(self) -> Iterator[Path]:
        yield self.path


class VlmEvalKit(Source):
    """VLMEvalKit's TSV: index, image (base64) or image_path, question, A, B, ..., answer, and where they are there category and targets (JSON)."""

    unit = "row"

    def payloads(self) -> Iterator[dict[str, Any]]:
        with self._open() as file:
            rows = csv.DictReader(file, delimiter="\t")
            missing = {"question", "answer", "A", "B"} - set(rows.fieldnames or ())
            if missing:
                raise DataError(
                    f"{self.path}: the TSV has no column {', '.join(sorted(missing))}; VLMEvalKit's multiple-choice format has them."
                )
            yield from rows

    def _open(self) -> io.TextIOWrapper:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        return open(self.path, encoding="utf-8-sig", errors="surrogateescape", newline="")

    def record(self, unit: Unit, picture: Picture) -> tuple[dict[str, Any], bytes | None]:
        row: Mapping[str | None, Any] = unit.payload
        if None in row or any(value is None for value in row.values()):
            raise Refused("wrong number of columns", "the row has more or fewer columns than the header.")
        letters = [letter for letter in LETTERS if letter in row and row[letter].strip()]
        record: dict[str, Any] = {
            "id": str(row.get("index") or unit.number),
            "question": row["question"],
            "options": [row[letter] for letter in letters],
            "answer": row["answer"].strip(),
            "targets": self._targets(row.get("targets") or "[]"),
        }
        if category := row.get("category"):
            record["category"] = category
        encoded = (row.get("image") or "").strip()
        if not encoded:
            record["image"] = row.get("image_path") or ""
            return record, None
        if encoded.isdigit() and len(encoded) < 20:
            raise Refused("picture of another row", f"its picture is that of row {encoded}: write the picture itself into every row.")
        try:
            return record, base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused("broken base64", f"image is no base64 ({error}).") from error

    @staticmethod
    def _targets(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise Refused("broken JSON", f"targets is no JSON ({error}).") from error

    def files(self) -> Iterator[Path]:
        yield self.path


class HuggingFace(Source):
    """A data set on this disk: what `Dataset.save_to_disk` wrote, or Parquet files. Columns: id, image, question, options or choices, answer (a
    letter, a number from 0, or the option's text), targets, category; others are not read."""

    unit = "row"

    @cached_property
    def _parquet(self) -> list[Path]:
        return sorted(self.path.rglob("*.parquet"))

    @cached_property
    def _tables(self) -> list[Any]:
        import datasets

        loaded = datasets.load_from_disk(str(self.path))
        parts = list(loaded.values()) if isinstance(loaded, datasets.DatasetDict) else [loaded]
        return [
            part.cast_column("image", datasets.Image(decode=False)) if isinstance(part.features.get("image"), datasets.Image) else part
            for part in parts
        ]

    def payloads(self) -> Iterator[tuple[int, int, int]]:
        """(file, row group, row) of Parquet, or (split, 0, row)."""
        if self._parquet:
            import pyarrow.parquet as pq

            for place, file in enumerate(self._parquet):
                metadata = pq.ParquetFile(file).metadata
                for group in range(metadata.num_row_groups):
                    yield from ((place, group, row) for row in range(metadata.row_group(group).num_rows))
        else:
            for place, table in enumerate(self._tables):
                yield from ((place, 0, row) for row in range(len(table)))

    def _row(self, place: int, group: int, row: int) -> dict[str, Any]:
        if not self._parquet:
            return dict(self._tables[place][row])
        return {name: column[row].as_py() for name, column in _row_group(self._parquet[place], group).items()}

    def record(self, unit: Unit, picture: Picture) -> tuple[dict[str, Any], bytes | None]:
        row = self._row(*unit.payload)
        options = row.get("options", row.get("choices"))
        record = {
            "id": str(row["id"]) if row.get("id") is not None else str(unit.number),
            "question": row.get("question"),
            "options": options,
            "answer": _letter(row.get("answer"), options),
            "targets": _targets(row.get("targets")),
        }
        if row.get("category") is not None:
            record["category"] = row["category"]
        image = row.get("image")
        if isinstance(image, bytes):
            return record, image
        if isinstance(image, dict) and image.get("bytes") is not None:
            return record, image["bytes"]
        record["image"] = image.get("path") if isinstance(image, dict) else image
        return record, None

    def files(self) -> Iterator[Path]:
        yield from self._parquet or sorted(path for path in self.path.rglob("*") if path.suffix in (".arrow", ".json"))


@lru_cache(maxsize=1)
def _row_group(file: Path, group: int) -> dict[str, Any]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read_row_group(group)
    return dict(zip(table.column_names, table.columns, strict=True))


def _letter(answer: Any, options: Any) -> Any:
    """An answer given as a number or as the option's text as its letter; anything else as it is, for the reader to judge."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(LETTERS):
        return LETTERS[answer]
    if isinstance(answer, str) and isinstance(options, list) and answer not in LETTERS and options.count(answer) == 1:
        return LETTERS[options.index(answer)]
    return answer


def _targets(value: Any) -> Any:
    """Targets as a list of objects; data sets also hold them as an object of lists."""
    if value is None:
        return []
    if isinstance(value, dict) and value.keys() == {"name", "box"}:
        return [{"name": name, "box": box} for name, box in zip(value["name"], value["box"], strict=False)]
    return value
