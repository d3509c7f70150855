"""Answers of endpoints on disk: what was answered once is never asked again, in this process or the next.

An answer's key is a hash of all that decides it: the address, the picture's pixels (not its file, its id or
its name), the text beside it and the settings of generation with their seed. Every answer is a transaction
of its own, so a kill loses at most those on their way.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.engine.files import open_database

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, address TEXT, asked TEXT, answer TEXT);
CREATE TABLE IF NOT EXISTS spending (
    address TEXT PRIMARY KEY, requests INTEGER, failures INTEGER, prompt_tokens INTEGER,
    completion_tokens INTEGER);
"""
SPENT = ("requests", "failures", "prompt_tokens", "completion_tokens")


def answer_key(asked: Mapping[str, Any]) -> str:
    """SHA-256 of what was asked, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class AnswerCache:
    """A SQLite file of answers and of what they cost; several processes may share it. Without a path it lives
    in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        # Written by the thread that asks, read by its caller and by who looks ahead.
        self._db = open_database(path, SCHEMA, timeout=60, check_same_thread=False)
        self._lock = threading.Lock()

    def get(self, key: str) -> dict[str, Any] | None:
        """What was answered, or None."""
        with self._lock:
            row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def knows(self, address: str) -> bool:
        """Has this address ever answered?"""
        return (
            self._db.execute("SELECT 1 FROM answers WHERE address = ? LIMIT 1", (address,)).fetchone()
            is not None
        )

    def holds_earlier_probe(self) -> bool:
        """Are there answers of models on this machine as probes kept them before they asked by
        `sparring.asking.desk`?
        """
        like = '%"probed": %'  # as a key: the quotes of one in a text are escaped
        query = "SELECT 1 FROM answers WHERE address NOT LIKE '%://%' AND asked LIKE ? LIMIT 1"
        with self._lock:
            return self._db.execute(query, (like,)).fetchone() is not None

    def put(self, key: str, address: str, asked: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Keep an answer, with what was asked beside it for people who look."""
        self.put_all(address, {key: (asked, answer)})

    def put_all(
        self, address: str, answers: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
    ) -> None:
        """Keep answers, key -> (what was asked, what was answered), all of them or none."""
        rows = [
            (key, address, json.dumps(dict(asked), sort_keys=True), json.dumps(dict(answer)))
            for key, (asked, answer) in answers.items()
        ]
        with self._lock, self._db:
            self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)

    def spend(self, address: str, **amounts: int) -> None:
        """Add to what an address has cost: requests, failures, prompt_tokens, completion_tokens."""
        row = tuple(amounts.get(name, 0) for name in SPENT)
        added = ", ".join(f"{name} = {name} + excluded.{name}" for name in SPENT)
        with self._lock, self._db:
            self._db.execute(
                f"INSERT INTO spending VALUES (?, ?, ?, ?, ?) ON CONFLICT (address) DO UPDATE SET {added}",
                (address, *row),
            )

    def take(self, address: str, budget: int | None) -> bool:
        """Count a request if an address has made fewer than `budget`, in one step for all processes that use
        this file; False where it has not.
        """
        with self._lock, self._db:
            self._db.execute("INSERT OR IGNORE INTO spending VALUES (?, 0, 0, 0, 0)", (address,))
            taken = self._db.execute(
                "UPDATE spending SET requests = requests + 1 "
                "WHERE address = ?1 AND (?2 IS NULL OR requests < ?2)",
                (address, budget),
            )
            return taken.rowcount == 1

    def spent(self, address: str) -> dict[str, int]:
        """What an address has cost so far, in all processes that used this file."""
        row = self._db.execute(
            f"SELECT {', '.join(SPENT)} FROM spending WHERE address = ?", (address,)
        ).fetchone()
        return dict(zip(SPENT, row or (0, 0, 0, 0), strict=True))

    def close(self) -> None:
        """Close the file."""
        self._db.close()
