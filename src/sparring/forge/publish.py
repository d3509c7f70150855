"""A finished forge as a data set that `datasets.load_dataset` opens: Parquet files with the pictures inside, a card, and exports for other tools.

Of source pictures, by their pixels, each is in one split only. Candidates that are useless, and those that were rejected, are configurations of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sparring.config import ForgeSettings
from sparring.engine.files import named_by_content
from sparring.forge.card import write_card
from sparring.forge.exports import write_exports
from sparring.forge.ledger import Ledger, Row
from sparring.forge.records import Outcome
from sparring.rl.seeds import derive_seed

SPLITS = ("train", "validation", "test")
ROWS_AT_ONCE = 64  # pictures in memory while a file is written
APART: tuple[Outcome, ...] = ("useless", "rejected")


def split_of(source: str, settings: ForgeSettings) -> str:
    """The split of everything that was made of a source picture: a function of the seed and of the picture's pixels."""
    place = derive_seed(settings.seed, "split", source) / 2**62
    validation, test = settings.stages.splits
    return "test" if place < test else "validation" if place < test + validation else "train"


def content_hash(ledger: Ledger, settings: ForgeSettings) -> str:
    """SHA-256 over the kept records, in the order of the source: all that is known of each, and the pixels of both pictures."""
    digest = hashlib.sha256()
    for row in ledger.rows("kept"):
        text = [row.id, split_of(row.source, settings), row.attempt, row.clean, row.picture, row.content]
        digest.update(json.dumps(text, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def publish(out: Path, settings: ForgeSettings, ledger: Ledger, funnel: dict[str, Any]) -> Path:
    """Write `out/dataset`, whole or not at all; gives its path."""
    partial, final = out / "dataset.partial", out / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "apart").mkdir(parents=True)
    splits, apart = dict[str, str](), dict[str, str]()
    for split in SPLITS:
        own = (row for row in ledger.rows("kept") if split_of(row.source, settings) == split)
        if (file := write_rows(partial / "data" / f"{split}-00000-of-00001.parquet", own, ledger)) is not None:
            splits[split] = file.relative_to(partial).as_posix()
    for outcome in APART:
        if (file := write_rows(partial / "apart" / f"{outcome}-00000-of-00001.parquet", ledger.rows(outcome), ledger)) is not None:
            apart[outcome] = file.relative_to(partial).as_posix()
    for outcome in ("refused", "broken"):
        with open(partial / "apart" / f"{outcome}.jsonl", "w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in ledger.set_aside(outcome))
    write_exports(partial / "exports", settings, ledger, lambda row: split_of(row.source, settings))
    write_card(partial, settings, ledger, funnel, splits, apart)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    return final


def write_rows(path: Path, rows: Iterable[Row], ledger: Ledger) -> Path | None:
    """Write one Parquet file and give its path, with a hash of the content in its name; None where there are
    no rows: `datasets` opens no empty split."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = _records(rows, ledger)
    some = list(islice(made, ROWS_AT_ONCE))
    if not some:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = features().arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        while some:
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            some = list(islice(made, ROWS_AT_ONCE))
    return named_by_content(path)


def features() -> Any:
    """The columns of every configuration."""
    import datasets

    text, number = datasets.Value("string"), datasets.Value("float64")
    box = datasets.List(datasets.Value("int32"))
    return datasets.Features(
        {
            "id": text,
            "attempt": datasets.Value("int32"),
            "image": datasets.Image(),
            "adversarial_image": datasets.Image(),
            "instruction": text,
            "question": text,
            "options": datasets.List(text),
            "answer": text,
            "category": text,
            "targets": datasets.List({"name": text, "box": box}),
            "distractors": datasets.List({"object": text, "box": box}),
            "outcome": text,
            "stage": text,
            "reason": text,
            "message": text,
            "integrity": number,
            "efficacy": number,
            "log_probability_drop": number,
            "clean_reply": text,
            "reply": text,
            "notes": text,
            "source_sha256": text,
        }
    )


def _records(rows: Iterable[Row], ledger: Ledger) -> Iterator[dict[str, Any]]:
    for row in rows:
        content, figures, words = row.content, dict(row.content["figures"]), dict(row.content["words"])
        question = content["question"]
        yield {
            "id": row.id,
            "attempt": row.attempt,
            "image": picture(ledger, row.clean),
            "adversarial_image": picture(ledger, row.picture) if row.picture else None,
            "instruction": content["instruction"],
            **{name: question[name] for name in ("question", "options", "answer", "category", "targets")},
            "distractors": content["proposals"],
            **{name: getattr(row, name) for name in ("outcome", "stage", "reason", "message")},
            **{name: figures.pop(name, None) for name in ("integrity", "efficacy", "log_probability_drop")},
            **{name: words.pop(name, None) for name in ("clean_reply", "reply")},
            "notes": json.dumps(figures | words, sort_keys=True, ensure_ascii=False),
            "source_sha256": row.source,
        }


def picture(ledger: Ledger, name: str) -> dict[str, Any]:
    """A picture as `datasets.Image` stores it."""
    return {"bytes": ledger.path(name).read_bytes(), "path": f"{name[:16]}.png"}
