"""The items of an evaluation: once it is finished every one with its mark, before that what was answered so
far."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from sparring.benchmarks.items import Answered, Mark
from sparring.benchmarks.scoring import THUMBNAILS, marks_of, read_results
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

SORTS = (("wrong", "wrong first"), ("file", "as in the benchmark"))
STATUSES = {
    "right": "right",
    "wrong": "wrong",
    "unparsed": "unparsed",
    "error": "error",
    "left_out": "left out",
}
Marked = tuple[Answered, Mark]


class Items:
    """The gallery of a finished evaluation under one of its profiles."""

    keys: Sequence[str] = ("item",)

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.version = folder, version
        self.profiles = list(read_results(folder)["profiles"])
        self.quoted = str(read_results(folder)["profile"])

    def _marked(self, filters: Filters) -> list[Marked]:
        wanted = filters.get("profile", self.quoted)
        return list(_read(self.folder, wanted if wanted in self.profiles else self.quoted, self.version))

    def facets(self) -> list[Facet]:
        categories = sorted({one.item.category for one, _ in self._marked({}) if one.item.category})
        return [
            Facet("status", "Answer", tuple(STATUSES.items())),
            Facet("category", "Category", tuple((name, name) for name in categories)),
            Facet("profile", "Profile", tuple((name, name) for name in self.profiles)),
            Facet("sort", "Order", SORTS),
        ]

    def _chosen(self, filters: Filters) -> list[Marked]:
        tests: list[Callable[[Marked], bool]] = []
        if status := filters.get("status"):
            tests.append(lambda one: status in _statuses(one[1]))
        if category := filters.get("category"):
            tests.append(lambda one: one[0].item.category == category)
        found = [one for one in self._marked(filters) if all(test(one) for test in tests)]
        return found if filters.get("sort") == "file" else sorted(found, key=lambda one: one[1].score)

    def page(self, filters: Filters, start: int, most: int = PAGE) -> Tiles:
        found = self._chosen(filters)
        return Tiles(tuple(self._tile(one) for one in found[start : start + most]), len(found), start)

    def _tile(self, marked: Marked) -> Tile:
        one, mark = marked
        return Tile(
            {"item": one.item.id},
            one.item.question,
            one.item.category or "",
            _outcome(mark),
            "",
            self._pair(one),
        )

    def _pair(self, one: Answered) -> Pair:
        return Pair(inside(self.folder, f"{THUMBNAILS}/{one.cluster}.webp") if one.cluster else None, None)

    def _one(self, key: Key, filters: Filters) -> Marked | None:
        return next((one for one in self._marked(filters) if one[0].item.id == key.get("item")), None)

    def pair(self, key: Key) -> Pair | None:
        found = self._one(key, {})
        return None if found is None else self._pair(found[0])

    def neighbours(self, key: Key, filters: Filters) -> Neighbours:
        names = [one.item.id for one, _ in self._chosen(filters)]
        if key["item"] not in names:
            return Neighbours(None, len(names))
        place = names.index(key["item"])
        around = [names[i] if 0 <= i < len(names) else None for i in (place - 1, place + 1)]
        before, after = (None if name is None else {"item": name} for name in around)
        return Neighbours(place + 1, len(names), before, after)

    def exhibit(self, key: Key) -> Exhibit | None:
        found = self._one(key, {})
        if found is None:
            return None
        one, mark = found
        item = one.item
        replies = tuple(Reply(text, mark.said, mark.score == 1, rule=mark.rule) for text in one.replies)
        others = [(name, self._one(key, {"profile": name})) for name in self.profiles]
        return Exhibit(
            {"item": item.id},
            self._pair(one),
            _outcome(mark),
            item.question,
            item.options,
            item.answer,
            targets=item.targets,
            witnesses=(Witness("Defender", replies, ()),),
            verdict=tuple(
                Fact(f"By {name}", f"{own[1].said or 'nothing read'}, {own[1].score:g}", own[1].score < 1)
                for name, own in others
                if own is not None
            ),
            origin=(
                Fact("Item", item.id),
                *([Fact("Category", item.category)] if item.category else []),
                *([Fact("Trouble", one.error, True)] if one.trouble else []),
                Fact("Prompt", one.prompt),
            ),
        )


class Answers:
    """What was answered so far, of an evaluation that is not finished: no item has a mark yet."""

    keys: Sequence[str] = ("answer",)

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self.db, self.folder = db, folder

    def facets(self) -> list[Facet]:
        return []

    def page(self, filters: Filters, start: int, most: int = PAGE) -> Tiles:
        (count,) = self.db.execute("SELECT count(*) FROM answers").fetchone()
        rows = self.db.execute(
            "SELECT * FROM answers ORDER BY rowid DESC LIMIT ? OFFSET ?", (most, start)
        ).fetchall()
        return Tiles(tuple(self._tile(row) for row in rows), count, start)

    def _tile(self, row: sqlite3.Row) -> Tile:
        prompt = str(json.loads(row["asked"]).get("prompt", "")) or row["key"]
        text = str(json.loads(row["answer"]).get("text", ""))
        return Tile({"answer": row["key"]}, prompt, text, "waiting", "", self._pair(row))

    def _pair(self, row: sqlite3.Row) -> Pair:
        asked = json.loads(row["asked"])
        images = asked.get("images") or asked.get("image") or []  # of a local Defender, of an endpoint
        name = images if isinstance(images, str) else next(iter(images), None)
        return Pair(inside(self.folder, f"{THUMBNAILS}/{name}.webp") if name else None, None)

    def _one(self, key: Key) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self.db.execute(
            "SELECT rowid, * FROM answers WHERE key = ?", (key.get("answer"),)
        ).fetchone()
        return found

    def pair(self, key: Key) -> Pair | None:
        row = self._one(key)
        return None if row is None else self._pair(row)

    def neighbours(self, key: Key, filters: Filters) -> Neighbours:
        row = self._one(key)
        (count,) = self.db.execute("SELECT count(*) FROM answers").fetchone()
        if row is None:
            return Neighbours(None, count)
        here = row["rowid"]
        found = [
            self.db.execute(query, (here,)).fetchone()
            for query in (
                "SELECT key FROM answers WHERE rowid > ? ORDER BY rowid LIMIT 1",
                "SELECT key FROM answers WHERE rowid < ? ORDER BY rowid DESC LIMIT 1",
                "SELECT count(*) FROM answers WHERE rowid >= ?",
            )
        ]
        before, after = ({"answer": one["key"]} if one else None for one in found[:2])
        return Neighbours(found[2][0], count, before, after)

    def exhibit(self, key: Key) -> Exhibit | None:
        row = self._one(key)
        if row is None:
            return None
        tile = self._tile(row)
        witness = Witness(row["address"], (Reply(tile.note, None, False, rule="not yet read"),), ())
        return Exhibit(tile.key, tile.pair, "waiting", tile.title, (), "", witnesses=(witness,))


@lru_cache(maxsize=2)
def _read(folder: Path, profile: str, version: str) -> tuple[Marked, ...]:
    _, answered, marks = marks_of(folder, profile)
    return tuple(zip(answered, marks, strict=True))


def _outcome(mark: Mark) -> Outcome:
    return "rejected" if mark.status == "left_out" else "right" if mark.score == 1 else "wrong"


def _statuses(mark: Mark) -> tuple[str, ...]:
    if mark.status == "left_out":
        return ("left_out",)
    return ("right" if mark.score == 1 else "wrong", mark.status)
