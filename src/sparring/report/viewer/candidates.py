"""The candidates of a forge: questions with distractors put into their pictures, kept or dropped and why."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.data.records import Target
from sparring.report.viewer.exhibits import (
    PAGE,
    Exhibit,
    Facet,
    Fact,
    Filters,
    Key,
    Neighbours,
    Outcome,
    Pair,
    Reply,
    Tile,
    Tiles,
    Witness,
    inside,
)

OUTCOMES: dict[str, Outcome] = {"kept": "fooled", "useless": "held"}
"""What the forge calls a pair that fools its Defender, and one that does not; all else is rejected."""
SORTS = {
    "newest": ("newest first", "c.number DESC, c.attempt DESC"),
    "oldest": ("oldest first", "c.number, c.attempt"),
}
FILTERS = {"outcome": "c.outcome", "dropped": "c.stage", "reason": "c.reason", "category": "category"}
ROWS = """rows AS (SELECT c.*, r.id, c.content ->> '$.question.question' AS question,
    c.content ->> '$.question.category' AS category FROM candidates c JOIN records r USING (number)
    WHERE c.clean IS NOT NULL)"""


class Candidates:
    """The gallery of a forge's ledger."""

    keys: Sequence[str] = ("number", "attempt")

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self.db, self.folder = db, folder

    def facets(self) -> list[Facet]:
        found = []
        for name, label in (
            ("outcome", "Outcome"),
            ("dropped", "Dropped at"),
            ("reason", "Reason"),
            ("category", "Category"),
        ):
            column = FILTERS[name]
            told = self.db.execute(
                f"WITH {ROWS} SELECT {column}, count(*) FROM rows c WHERE {column} != ''"
                " GROUP BY 1 ORDER BY 1"
            )
            found.append(Facet(name, label, tuple((value, f"{value} ({count})") for value, count in told)))
        return [*found, Facet("sort", "Order", tuple((name, words) for name, (words, _) in SORTS.items()))]

    def _chosen(self, filters: Filters) -> tuple[str, list[Any], str]:
        own = {FILTERS[name]: value for name, value in filters.items() if name in FILTERS}
        where = " AND ".join(f"{column} = ?" for column in own) or "1"
        order = SORTS.get(filters.get("sort", ""), SORTS["newest"])[1]
        return f"FROM rows c WHERE {where}", list(own.values()), order

    def page(self, filters: Filters, start: int, most: int = PAGE) -> Tiles:
        source, values, order = self._chosen(filters)
        (count,) = self.db.execute(f"WITH {ROWS} SELECT count(*) {source}", values).fetchone()
        query = f"WITH {ROWS} SELECT c.* {source} ORDER BY {order} LIMIT ? OFFSET ?"
        rows = self.db.execute(query, [*values, most, start])
        return Tiles(tuple(self._tile(row) for row in rows), count, start)

    def _tile(self, row: sqlite3.Row) -> Tile:
        parts = [row["category"], row["outcome"], row["reason"]]
        return Tile(
            _key(row),
            row["question"] or row["id"],
            ", ".join(part for part in parts if part),
            OUTCOMES.get(row["outcome"], "rejected"),
            "",
            self._pair(row),
        )

    def _pair(self, row: sqlite3.Row) -> Pair:
        def file(name: str | None) -> Path | None:
            return inside(self.folder, f"pictures/{name[:2]}/{name}.png") if name else None

        return Pair(file(row["clean"]), file(row["picture"]))

    def _one(self, key: Key) -> sqlite3.Row | None:
        if not (key.get("number", "").isdecimal() and key.get("attempt", "").isdecimal()):
            return None
        query = f"WITH {ROWS} SELECT * FROM rows WHERE number = ? AND attempt = ?"
        found: sqlite3.Row | None = self.db.execute(
            query, (int(key["number"]), int(key["attempt"]))
        ).fetchone()
        return found

    def pair(self, key: Key) -> Pair | None:
        row = self._one(key)
        return None if row is None else self._pair(row)

    def neighbours(self, key: Key, filters: Filters) -> Neighbours:
        source, values, order = self._chosen(filters)
        query = f"""WITH {ROWS}, ranked AS MATERIALIZED (
            SELECT c.number, c.attempt, row_number() OVER (ORDER BY {order}) AS turn {source}),
            here AS (SELECT turn FROM ranked WHERE number = ? AND attempt = ?)
            SELECT r.*, (SELECT turn FROM here) AS here, (SELECT count(*) FROM ranked) AS total
            FROM ranked r WHERE r.turn BETWEEN (SELECT turn FROM here) - 1 AND (SELECT turn FROM here) + 1"""
        rows = self.db.execute(query, [*values, int(key["number"]), int(key["attempt"])]).fetchall()
        if not rows:
            return Neighbours(None, self.page(filters, 0, 0).of)
        at = {row["turn"] - row["here"]: _key(row) for row in rows}
        return Neighbours(rows[0]["here"], rows[0]["total"], at.get(-1), at.get(1))

    def exhibit(self, key: Key) -> Exhibit | None:
        row = self._one(key)
        if row is None:
            return None
        content = json.loads(row["content"])
        question = content["question"] or {}
        words: dict[str, str] = dict(content["words"])
        right, said = (
            str(question.get("answer", "")),
            (words.pop("clean_reply", None), words.pop("reply", None)),
        )
        replies = [
            (Reply(text, None, works),) if text is not None else ()
            for text, works in zip(said, (True, row["outcome"] != "kept"), strict=True)
        ]
        drop = [Fact("Why", row["message"] or row["reason"], True)] if row["outcome"] != "kept" else []
        rows = self.db.execute(
            f"WITH {ROWS} SELECT * FROM rows WHERE number = ? ORDER BY attempt", (row["number"],)
        )
        return Exhibit(
            _key(row),
            self._pair(row),
            OUTCOMES.get(row["outcome"], "rejected"),
            question.get("question", ""),
            tuple(question.get("options", ())),
            right,
            targets=tuple(Target(each["name"], tuple(each["box"])) for each in question.get("targets", ())),
            witnesses=(Witness("Defender", *replies),) if any(replies) else (),
            verdict=(
                Fact("Outcome", row["outcome"], row["outcome"] not in OUTCOMES),
                Fact("Came as far as", row["stage"]),
                *drop,
                *(Fact(name.replace("_", " "), f"{value:.3f}") for name, value in content["figures"].items()),
            ),
            origin=(
                Fact("Record", f"{row['number']}, {row['id']}"),
                Fact("Attempt", str(row["attempt"] + 1)),
                Fact("Instruction", content["instruction"]),
                *(
                    Fact("Proposal", f"{each['object'] or 'anything'} at {each['box']}")
                    for each in content["proposals"]
                ),
                *(Fact(name.replace("_", " "), text) for name, text in words.items()),
            ),
            related=tuple(self._tile(each) for each in rows),
            related_title="Every attempt at this question",
        )


def _key(row: sqlite3.Row) -> Key:
    return {"number": str(row["number"]), "attempt": str(row["attempt"])}
