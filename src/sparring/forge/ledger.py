"""What has been forged so far: one SQLite file, `forge.sqlite`, with the pictures beside it in `pictures/`,
named by their pixels.

A batch is written whole or not at all, pictures first, and batches are written in order: what is there is
the source's beginning, without a gap.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sparring.data.errors import RunError
from sparring.data.images import image_sha256
from sparring.data.records import Target, VisualQuestion
from sparring.engine.files import open_database, require_rules
from sparring.forge.records import OUTCOMES, Candidate, Outcome, Result

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY, id TEXT, outcome TEXT, stage TEXT, reason TEXT, message TEXT, source TEXT);
CREATE TABLE IF NOT EXISTS candidates (
    number INTEGER, attempt INTEGER, outcome TEXT, stage TEXT, reason TEXT, message TEXT, clean TEXT,
    picture TEXT, content TEXT, PRIMARY KEY (number, attempt));
CREATE INDEX IF NOT EXISTS candidates_by_outcome ON candidates (outcome, number);
CREATE TABLE IF NOT EXISTS ids (id TEXT PRIMARY KEY, number INTEGER);
CREATE TABLE IF NOT EXISTS batches (batch INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT);
"""


@dataclass(slots=True)
class Packed:
    """A result without its pictures, and their files: name (the hash of the pixels) -> PNG."""

    result: Result
    rows: list[tuple[Any, ...]]
    pictures: dict[str, bytes]


def pack(result: Result) -> Packed:
    """What is written of a result. Pictures are coded where they were made, which is another process if there
    are several.
    """
    pictures: dict[str, bytes] = {}

    def name(image: Image | None) -> str | None:
        if image is None:
            return None
        key = image_sha256(image)
        if key not in pictures:
            stream = io.BytesIO()
            image.convert("RGB").save(stream, "PNG", compress_level=4)
            pictures[key] = stream.getvalue()
        return key

    rows = [
        (
            result.number,
            c.attempt,
            c.outcome,
            c.stage,
            c.reason,
            c.message,
            name(c.clean),
            name(c.picture),
            json.dumps(_content(c), sort_keys=True),
        )
        for c in result.candidates
    ]
    result.candidates = []
    return Packed(result, rows, pictures)


def _content(candidate: Candidate) -> dict[str, Any]:
    question = candidate.question
    return {
        "question": _question(question) if question else None,
        "instruction": candidate.instruction,
        "proposals": [asdict(proposal) for proposal in candidate.proposals],
        "figures": candidate.figures,
        "words": candidate.words,
    }


def _question(question: VisualQuestion) -> dict[str, Any]:
    return {
        "question": question.question,
        "options": list(question.options),
        "answer": question.answer,
        "targets": [{"name": target.name, "box": list(target.box)} for target in question.targets],
        "category": question.category,
    }


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate as it was written. `source` is the hash of the source picture's pixels; `content` holds
    question, instruction, proposals, figures, words.
    """

    number: int
    id: str
    source: str
    attempt: int
    outcome: Outcome
    stage: str
    reason: str
    message: str
    clean: str
    picture: str | None
    content: dict[str, Any]


class Ledger:
    """The one writer of a forge's ledger."""

    def __init__(self, folder: Path) -> None:
        """Raises RunError for a ledger whose answers were read by other rules."""
        self.folder = folder
        self._db = open_database(folder / "forge.sqlite", SCHEMA)
        self._db.row_factory = sqlite3.Row
        require_rules(self._db, folder, answers="SELECT 1 FROM records LIMIT 1")
        self._clock = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- writing

    def bind(self, fingerprint: str, where: str) -> None:
        """Note what the source is; RunError where it is not the one that this forge began with."""
        known = self._meta("source")
        if known is None:
            with self._db:
                self._db.execute("INSERT INTO meta VALUES ('source', ?)", (fingerprint,))
        elif known != fingerprint:
            raise RunError(
                f"{where} has changed since the forge in {self.folder} began. Begin another one with --out."
            )

    def write(self, packed: Sequence[Packed]) -> None:
        """The next batch. Of records with the same id the first is kept."""
        with self._db:
            for each in packed:
                self._write(each)
            self._db.execute("INSERT INTO batches VALUES (?)", (self.batches,))
            now = time.monotonic()
            self._add("seconds", now - self._clock)
        self._clock = now

    def _write(self, packed: Packed) -> None:
        result, rows = packed.result, packed.rows
        if result.id is not None:
            self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (result.id, result.number))
            (first,) = self._db.execute("SELECT number FROM ids WHERE id = ?", (result.id,)).fetchone()
            if first != result.number and result.reason != "duplicate id":
                message = f'id "{result.id}" was already given to record {first}. Ids are unique in a source.'
                result, rows = (
                    Result(result.number, result.id, "refused", "intake", "duplicate id", message),
                    [],
                )
        for name in {name for row in rows for name in row[6:8] if name}:
            self._save(name, packed.pictures[name])
        record = (
            result.number,
            result.id,
            result.outcome,
            result.stage,
            result.reason,
            result.message,
            result.source_sha256,
        )
        self._db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", record)
        self._db.executemany("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _save(self, name: str, data: bytes) -> None:
        path = self.path(name)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(data)
            os.replace(partial, path)

    def _add(self, key: str, value: float) -> None:
        total = float(self._meta(key) or 0) + value
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, repr(total)))

    # -- reading

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row["value"])

    @property
    def seconds(self) -> float:
        """Time that was spent on batches, over all processes that worked on the forge."""
        return float(self._meta("seconds") or 0)

    @property
    def batches(self) -> int:
        """Batches that have been written."""
        return int(self._db.execute("SELECT count(*) FROM batches").fetchone()[0])

    def path(self, picture: str) -> Path:
        """Where a picture of that name lies."""
        return self.folder / "pictures" / picture[:2] / f"{picture}.png"

    def question(self, row: Row) -> VisualQuestion:
        """The question of a candidate, about its clean picture."""
        told = row.content["question"]
        targets = tuple(Target(target["name"], tuple(target["box"])) for target in told["targets"])
        return VisualQuestion(
            row.id,
            self.path(row.clean),
            told["question"],
            tuple(told["options"]),
            told["answer"],
            targets,
            told["category"],
        )

    def counts(self) -> dict[str, int]:
        """Outcome -> number of records."""
        found = dict(self._db.execute("SELECT outcome, count(*) FROM records GROUP BY outcome").fetchall())
        return {outcome: found.get(outcome, 0) for outcome in OUTCOMES}

    def drops(self, table: str = "records") -> list[tuple[str, str, str, int]]:
        """(stage, outcome, reason, count) of all records, or of all candidates, that were not kept."""
        assert table in ("records", "candidates")
        query = (
            f"SELECT stage, outcome, reason, count(*) FROM {table} WHERE outcome != 'kept' GROUP BY "
            f"stage, outcome, reason ORDER BY 4 DESC, 3"
        )
        return [tuple(row) for row in self._db.execute(query)]

    def set_aside(self, outcome: Outcome) -> Iterator[dict[str, Any]]:
        """Records of an outcome that have no candidates: number, id, reason, message."""
        query = "SELECT number, id, reason, message FROM records WHERE outcome = ? ORDER BY number"
        return (dict(row) for row in self._db.execute(query, (outcome,)))

    def rows(self, outcome: Outcome) -> Iterator[Row]:
        """Candidates of an outcome, in the order of the source."""
        query = (
            "SELECT number, id, source, attempt, c.outcome, c.stage, c.reason, c.message, clean, picture, "
            "content"
            " FROM candidates c JOIN records USING (number) WHERE c.outcome = ? ORDER BY number, attempt"
        )
        for row in self._db.execute(query, (outcome,)):
            yield Row(**{**dict(row), "content": json.loads(row["content"])})
