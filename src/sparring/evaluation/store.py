"""`items.parquet`: every item as it was shown with its raw replies; all that scoring needs, without the model and without the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from sparring.data.errors import RunError
from sparring.data.records import Target
from sparring.data.texts import storable
from sparring.evaluation.items import Item
from sparring.evaluation.marks import Answered, Mark

FILE = "items.parquet"


def write_items(folder: Path, answered: Sequence[Answered], marks: dict[str, list[Mark]]) -> Path:
    """Write the items, with what every profile makes of them in columns `PROFILE_said`, `PROFILE_score`, `PROFILE_rule`, `PROFILE_status`."""
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(answered):
        item = one.item
        row: dict[str, Any] = {name: getattr(item, name) for name in ("id", "kind", "question", "answer", "category", "hint")}
        row |= {
            "options": list(item.options),
            "meta": json.dumps(dict(item.meta)),
            "targets": json.dumps([asdict(t) for t in item.targets]),
        }
        row |= {
            name: getattr(one, name)
            for name in ("trouble", "error", "cluster", "prompt", "tokens", "finished", "judge_asked", "judge_reply")
        }
        row |= {"replies": list(one.replies), "sizes": [list(size) for size in one.sizes]}
        for profile, own in marks.items():
            row |= {f"{profile}_{name}": getattr(own[place], name) for name in ("said", "score", "rule", "status")}
        rows.append(row)
    texts = (
        "id",
        "kind",
        "question",
        "answer",
        "category",
        "hint",
        "meta",
        "targets",
        "trouble",
        "error",
        "cluster",
        "prompt",
        "judge_reply",
    )
    schema = [(name, arrow.string()) for name in texts]
    schema += [("options", arrow.list_(arrow.string())), ("replies", arrow.list_(arrow.string()))]
    schema += [
        ("tokens", arrow.int64()),
        ("finished", arrow.bool_()),
        ("judge_asked", arrow.bool_()),
        ("sizes", arrow.list_(arrow.list_(arrow.int64()))),
    ]
    for profile in marks:
        schema += [
            (f"{profile}_{name}", arrow.float64() if name == "score" else arrow.string()) for name in ("said", "score", "rule", "status")
        ]
    rows = [{name: _storable(value) for name, value in row.items()} for row in rows]
    path, partial = folder / FILE, folder / f"{FILE}.partial"
    parquet.write_table(arrow.Table.from_pylist(rows, schema=arrow.schema(schema)), partial, compression="zstd")
    partial.replace(path)
    return path


def _storable(value: Any) -> Any:
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return storable(value) if isinstance(value, str) else value


def read_items(folder: Path) -> list[Answered]:
    """The items of a finished evaluation, without their pictures. Raises RunError where the folder holds none."""
    path = folder / FILE
    if not path.is_file():
        raise RunError(
            f"{folder} holds no finished evaluation: {FILE} is not there. Begin or go on with `sparring eval ... --out {folder}`."
        )
    return [_answered(row) for row in parquet.read_table(path).to_pylist()]


def _answered(row: dict[str, Any]) -> Answered:
    item = Item(
        id=row["id"],
        kind=row["kind"],
        question=row["question"],
        answer=row["answer"],
        options=tuple(row["options"]),
        category=row["category"],
        hint=row["hint"],
        targets=tuple(Target(target["name"], tuple(target["box"])) for target in json.loads(row["targets"])),
        meta=json.loads(row["meta"]),
    )
    return Answered(
        item,
        tuple(row["replies"]),
        row["trouble"],
        row["error"] or "",
        row["cluster"] or "",
        row["prompt"] or "",
        row["tokens"],
        row["finished"],
        tuple((width, height) for width, height in row["sizes"]),
        bool(row.get("judge_asked")),
        row.get("judge_reply"),
    )
