"""The ledger: every edit, answer, verdict and update of a run, in one SQLite file with the pictures beside
it.

`OUT/ledger.sqlite` holds the tables below, `OUT/pictures/` the PNG files that `edits.picture` names relative
to `OUT`. A row's key is (stage, step, question, sample): a stage that is done again after a kill overwrites
its own rows and adds none.

Stages are named by their folder below `OUT`: "round0/bootstrap", "round1/attacker", "round1/curriculum",
"round1/defender", and "evaluation/<opponent>" for held-out play, where `answers.defender` tells the players
of the payoff matrix apart. In "evaluation/<opponent>" an edit that was not accepted has no answers: the
answer to the clean picture ("evaluation/clean") stands for it. In "round<i>/defender" the answers are those
that the Defender was trained on: `sample` numbers the groups of an update, `trial` a group's answers.
Elsewhere `trial` counts how often the Defender was asked about the same edit.

`times` holds when an update was written, in seconds since 1970, and under step -1 when a process last began
or resumed its stage. No figure of a run depends on it, and ledgers of earlier versions have none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from sparring.data.records import Answer, Edit, Verdict, VisualQuestion
from sparring.engine.files import open_database, require_rules, write_whole

SCHEMA = """
CREATE TABLE IF NOT EXISTS questions (
    id TEXT PRIMARY KEY, split TEXT, image TEXT, question TEXT, options TEXT, answer TEXT, targets TEXT,
    category TEXT);
CREATE TABLE IF NOT EXISTS edits (
    stage TEXT, step INTEGER, question_id TEXT, sample INTEGER, attacker TEXT, instruction TEXT,
    seed INTEGER, picture TEXT, PRIMARY KEY (stage, step, question_id, sample));
CREATE TABLE IF NOT EXISTS answers (
    stage TEXT, step INTEGER, question_id TEXT, sample INTEGER, trial INTEGER, defender TEXT,
    text TEXT, choice TEXT, rule TEXT, right INTEGER, right_probability REAL, tokens INTEGER, notes TEXT,
    PRIMARY KEY (stage, step, question_id, sample, trial, defender));
CREATE TABLE IF NOT EXISTS verdicts (
    stage TEXT, step INTEGER, question_id TEXT, sample INTEGER, integrity REAL, intact INTEGER,
    duplicate INTEGER, accepted INTEGER, efficacy REAL, reward REAL, probability_drop REAL,
    label_valid INTEGER, notes TEXT, PRIMARY KEY (stage, step, question_id, sample));
CREATE TABLE IF NOT EXISTS updates (stage TEXT, step INTEGER, metrics TEXT, PRIMARY KEY (stage, step));
CREATE TABLE IF NOT EXISTS stages (name TEXT PRIMARY KEY, status TEXT, seconds REAL, result TEXT);
CREATE TABLE IF NOT EXISTS times (stage TEXT, step INTEGER, at REAL, PRIMARY KEY (stage, step));
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value REAL);
"""

BEGUN = -1
"""The step of `times` at which a stage was begun or resumed."""
RESTARTS = "restarts/"
"""What a key of `meta` begins with that counts how often a stage has lost its workers."""


def picture_name(stage: str, step: int, question_id: str, sample: int) -> str:
    """Where a picture lies below the run's folder. An id may hold any character, so its hash keeps the name
    unique and inside.
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", question_id)[:40]
    digest = hashlib.sha256(question_id.encode()).hexdigest()[:8]
    return f"pictures/{stage}/{step:05d}/{slug}-{digest}-{sample:02d}.png"


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Ledger:
    """The one writer of a run's ledger. Every `record_*` is one transaction: after a kill it is there whole
    or not at all.
    """

    def __init__(self, folder: Path) -> None:
        """Raises RunError for a ledger whose answers were read by other rules than this version's: one run's
        figures may not mix two readings.
        """
        self.folder = folder
        self._db = open_database(folder / "ledger.sqlite", SCHEMA)
        self._db.row_factory = sqlite3.Row
        self._clock = time.monotonic()
        require_rules(self._db, folder, answers="SELECT 1 FROM answers LIMIT 1")

    def close(self) -> None:
        """Note the time spent and close the file."""
        self.tick()
        self._db.close()

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            with self._db:
                self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)

    # -- writing

    def record_questions(self, split: str, questions: Sequence[VisualQuestion]) -> None:
        """The questions of a split ("train", "held_out"); images inside the run's folder are named relative
        to it.
        """

        def where(path: Path) -> str:
            return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

        targets = [json.dumps([{"name": t.name, "box": list(t.box)} for t in q.targets]) for q in questions]
        self._insert(
            "questions",
            [
                (q.id, split, where(q.image), q.question, json.dumps(q.options), q.answer, t, q.category)
                for q, t in zip(questions, targets, strict=True)
            ],
        )

    def record_edits(
        self, stage: str, step: int, edits: Sequence[Edit], samples: Sequence[int] | None = None
    ) -> None:
        """Write the pictures, then the rows that name them (so that a row never names a picture that is not
        there).
        """
        rows = []
        for edit, sample in zip(edits, samples or [0] * len(edits), strict=True):
            name = picture_name(stage, step, edit.question_id, sample)
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = io.BytesIO()
            edit.image.save(picture, "PNG", compress_level=1)
            write_whole(path, picture.getvalue())  # not in place: it may be linked from elsewhere
            rows.append(
                (stage, step, edit.question_id, sample, edit.attacker, edit.instruction, edit.seed, name)
            )
        self._insert("edits", rows)

    def record_answers(
        self,
        stage: str,
        step: int,
        answers: Sequence[Answer],
        samples: Sequence[int] | None = None,
        trials: Sequence[int] | None = None,
    ) -> None:
        """Replies of Defenders; `samples` are the numbers of the edits they look at, `trials` count repeated
        asking.
        """
        zeros = [0] * len(answers)
        self._insert(
            "answers",
            [
                (stage, step, a.question_id, sample, trial, a.defender, *_said(a))
                for a, sample, trial in zip(answers, samples or zeros, trials or zeros, strict=True)
            ],
        )

    def record_verdicts(
        self, stage: str, step: int, verdicts: Sequence[Verdict], samples: Sequence[int] | None = None
    ) -> None:
        """What the judge said of the edits with the same keys."""
        self._insert(
            "verdicts",
            [
                (stage, step, v.question_id, sample, *_judged(v))
                for v, sample in zip(verdicts, samples or [0] * len(verdicts), strict=True)
            ],
        )

    def record_update(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """The metrics of one update of a player."""
        self._insert("updates", [(stage, step, json.dumps(dict(metrics)))])
        self._insert("times", [(stage, step, time.time())])
        self.tick()

    def record_stage(
        self, name: str, status: str, seconds: float = 0.0, result: Mapping[str, Any] | None = None
    ) -> None:
        """That a stage is "running" or "done"; for readers of the ledger. What counts on resume is the
        stage's own done-marker.
        """
        self._insert("stages", [(name, status, seconds, json.dumps(dict(result or {})))])
        if status == "running":
            self._insert("times", [(name, BEGUN, time.time())])
        self.tick()

    def forget(self, stage: str, from_step: int = 0) -> None:
        """Drop what a stage wrote from a step on, because it is about to be done again."""
        with self._db:
            for table in ("edits", "answers", "verdicts", "updates", "times"):
                self._db.execute(f"DELETE FROM {table} WHERE stage = ? AND step >= ?", (stage, from_step))

    def take_over(self, stage: str, other: Path) -> None:
        """Edits and verdicts of a stage from another folder on the same disk; the pictures are linked."""
        with closing(sqlite3.connect(other / "ledger.sqlite")) as source:
            for table in ("edits", "verdicts"):
                rows = source.execute(f"SELECT * FROM {table} WHERE stage = ?", (stage,)).fetchall()
                for picture in [self.folder / row[-1] for row in rows if table == "edits"]:
                    picture.parent.mkdir(parents=True, exist_ok=True)
                    picture.unlink(missing_ok=True)
                    os.link(other / picture.relative_to(self.folder), picture)
                self._insert(table, rows)

    def tick(self) -> None:
        """Add the time since the last tick to the run's wall seconds, and note the peak of memory. A kill
        loses one tick.
        """
        now = time.monotonic()
        with self._db:
            for key, value, joined in (
                ("wall_seconds", now - self._clock, "value + ?2"),
                ("peak_rss_mb", peak_rss_mb(), "max(value, ?2)"),
            ):
                statement = (
                    f"INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = {joined}"
                )
                self._db.execute(statement, (key, value))
        self._clock = now

    # -- reading

    def meta(self, key: str) -> float:
        """`wall_seconds` or `peak_rss_mb`, over all the processes that worked on the run."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return float(row["value"]) if row else 0.0

    def running(self) -> str:
        """The stage that was begun last and is not done; "" where there is none."""
        row = self._db.execute(
            "SELECT name FROM stages WHERE status = 'running' ORDER BY rowid DESC LIMIT 1"
        ).fetchone()
        return "" if row is None else str(row["name"])

    def count_restart(self, stage: str) -> int:
        """Note that a stage has lost its workers; how often it now has."""
        with self._db:
            self._db.execute(
                "INSERT INTO meta VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET value = value + 1",
                (RESTARTS + stage,),
            )
        return int(self.meta(RESTARTS + stage))

    def restarts(self) -> dict[str, int]:
        """How often each stage has lost its workers, of those that have."""
        rows = self._db.execute("SELECT key, value FROM meta WHERE key LIKE ?", (RESTARTS + "%",))
        return {row["key"].removeprefix(RESTARTS): int(row["value"]) for row in rows}

    def count(self, table: str, stage: str) -> int:
        """How many rows of a table belong to a stage."""
        return int(
            self._db.execute(f"SELECT count(*) AS n FROM {table} WHERE stage = ?", (stage,)).fetchone()["n"]
        )

    def updates(self, stage: str) -> list[dict[str, Any]]:
        """The metrics of a stage's updates, in order."""
        rows = self._db.execute("SELECT metrics FROM updates WHERE stage = ? ORDER BY step", (stage,))
        return [json.loads(row["metrics"]) for row in rows]

    def updates_after(self, row: int) -> list[dict[str, Any]]:
        """All stages' updates after a row of the table, in the order in which they were written: `row`,
        `stage`, `step`, `metrics`; `edits`, how many were made for it; `seconds` since the update before it,
        None where the same process did not do that one, or did none.
        """
        rows = self._db.execute(
            "SELECT u.rowid AS row, u.stage, u.step, metrics, this.at - last.at AS seconds,"
            " (SELECT count(*) FROM edits e WHERE e.stage = u.stage AND e.step = u.step) AS edits"
            " FROM updates u LEFT JOIN times begun ON begun.stage = u.stage AND begun.step = ?"
            " LEFT JOIN times this ON this.stage = u.stage AND this.step = u.step LEFT JOIN times last"
            " ON last.stage = u.stage AND u.step > 0 AND last.step = u.step - 1 AND last.at >= begun.at"
            " WHERE u.rowid > ? ORDER BY u.rowid",
            (BEGUN, row),
        )
        return [dict(found) | {"metrics": json.loads(found["metrics"])} for found in rows]

    def unjudged(self, stage: str) -> list[str]:
        """Ids of the questions with edits of a stage that have no verdict: the Defender refused them."""
        rows = self._db.execute(
            "SELECT DISTINCT question_id FROM edits LEFT JOIN verdicts USING (stage, step, question_id, "
            "sample)"
            " WHERE stage = ? AND intact IS NULL ORDER BY question_id",
            (stage,),
        )
        return [row["question_id"] for row in rows]

    def pictures(
        self, stage: str, *, only: Literal["all", "accepted", "effective"] = "all"
    ) -> list[tuple[str, Path]]:
        """(question id, picture) of a stage's edits, in the order of their keys; `effective`: accepted, and
        the Defender answered wrong.
        """
        condition = {"all": "", "accepted": " AND accepted", "effective": " AND accepted AND efficacy > 0"}[
            only
        ]
        rows = self._db.execute(
            "SELECT question_id, picture FROM edits LEFT JOIN verdicts USING (stage, step, question_id, "
            "sample)"
            f" WHERE stage = ?{condition} ORDER BY step, question_id, sample",
            (stage,),
        )
        return [(row["question_id"], self.folder / row["picture"]) for row in rows]

    def edits(self, stage: str, step: int = 0) -> list[dict[str, Any]]:
        """The rows of a stage's edits, in the order of their keys; `picture` is the file's path."""
        rows = self._db.execute(
            "SELECT * FROM edits WHERE stage = ? AND step = ? ORDER BY question_id, sample", (stage, step)
        )
        return [dict(row) | {"picture": self.folder / row["picture"]} for row in rows]

    def verdicts(self, stage: str, step: int = 0) -> list[Verdict]:
        """The verdicts of a stage's step, in the order of their keys."""
        rows = self._db.execute(
            "SELECT * FROM verdicts WHERE stage = ? AND step = ? ORDER BY question_id, sample", (stage, step)
        )
        return [
            Verdict(
                row["question_id"],
                row["integrity"],
                bool(row["intact"]),
                bool(row["duplicate"]),
                row["efficacy"],
                row["reward"],
                row["probability_drop"],
                None if row["label_valid"] is None else bool(row["label_valid"]),
                json.loads(row["notes"]),
            )
            for row in rows
        ]

    def keys(
        self, table: Literal["edits", "verdicts", "answers"], stage: str, step: int = 0
    ) -> list[tuple[str, int]]:
        """(question id, sample) of a table's rows, first trials only, in the order in which `verdicts` and
        `answers` give theirs.

        In a stage of several Defenders a key of answers comes once for each.
        """
        first = " AND trial = 0" if table == "answers" else ""
        rows = self._db.execute(
            f"SELECT question_id, sample FROM {table} WHERE stage = ? AND step = ?{first} ORDER BY "
            f"question_id, sample",
            (stage, step),
        )
        return [(row["question_id"], row["sample"]) for row in rows]

    def alike(self, stage: str, step: int) -> list[bool]:
        """Of a step's samples, in their order: were all their answers right, or all wrong?"""
        rows = self._db.execute(
            "SELECT min(right) = max(right) FROM answers WHERE stage = ? AND step = ? GROUP BY sample "
            "ORDER BY sample",
            (stage, step),
        )
        return [bool(same) for (same,) in rows]

    def answers(self, stage: str, defender: str, step: int = 0) -> list[Answer]:
        """A Defender's first-trial answers in a stage's step, in the order of their keys."""
        rows = self._db.execute(
            "SELECT * FROM answers WHERE stage = ? AND step = ? AND defender = ? AND trial = 0 ORDER BY "
            "question_id, sample",
            (stage, step, defender),
        )
        return [
            Answer(
                row["question_id"],
                defender,
                row["text"],
                row["choice"],
                row["rule"],
                bool(row["right"]),
                row["right_probability"],
                row["tokens"],
                json.loads(row["notes"]),
            )
            for row in rows
        ]


def _said(a: Answer) -> tuple[Any, ...]:
    return a.text, a.choice, a.rule, a.right, a.right_probability, a.tokens, json.dumps(a.notes)


def _judged(v: Verdict) -> tuple[Any, ...]:
    gate = v.integrity, v.intact, v.duplicate, v.accepted
    return *gate, v.efficacy, v.reward, v.probability_drop, v.label_valid, json.dumps(v.notes)
