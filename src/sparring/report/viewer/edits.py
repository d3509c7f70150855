"""The edits of a game, an attack or a probe, page by page out of the ledger.

Nothing is loaded whole: filters, order and paging are the database's. A page shows `PAGE` rows of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparring.data.records import UNCHANGED, Target
from sparring.judging.kinds import KINDS
from sparring.report import numbers
from sparring.report.training import LABELS
from sparring.report.viewer.conditions import (
    CLEAN,
    CLEAN_PICTURES,
    EDITS,
    KNEW,
    PHASES,
    PROBED_CLEAN,
    SAME,
    SORTS,
    TABLES,
    VERDICTS,
    where,
)
from sparring.report.viewer.conditions import KINDS as FILL_KINDS
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

KEY = ("stage", "step", "question", "sample")
SHOWN_TRIALS = 8


class Edits:
    """The gallery of a ledger. defenders: the names of those that answer there."""

    keys: Sequence[str] = KEY

    def __init__(self, db: sqlite3.Connection, folder: Path, defenders: Sequence[str] = ()) -> None:
        self.db, self.folder = db, folder
        self._kinds_told = False
        names = [name for (name,) in db.execute("SELECT name FROM stages")]
        rounds = [name for name in names if name.endswith("/clean") and name != CLEAN]
        self.clean_stages = [CLEAN, PROBED_CLEAN, *rounds]
        played = {name.removeprefix(f"{CLEAN}/") for name in names if name.startswith(f"{CLEAN}/")}
        # Spelled out, because they belong to what is selected, where no value can be bound by its place.
        quoted = ", ".join("('" + name.replace("'", "''") + "')" for name in self.clean_stages)
        self._shared = f"clean(value) AS MATERIALIZED (VALUES {quoted})"
        self.defenders = list(defenders) or sorted(played, key=by_round) or ["base"]

    # -- filters

    def facets(self) -> list[Facet]:
        stages = dict(self.db.execute("SELECT stage, max(step) FROM edits GROUP BY stage").fetchall())
        rounds = sorted({number for stage in stages if (number := round_of(stage)) is not None})
        phases = [name for name in PHASES if any(name in stage.split("/") for stage in stages)]
        attackers = [
            name for (name,) in self.db.execute("SELECT DISTINCT attacker FROM edits ORDER BY attacker")
        ]
        categories = [
            name
            for (name,) in self.db.execute(
                "SELECT DISTINCT category FROM questions WHERE category IS NOT NULL ORDER BY category"
            )
        ]
        self._tell_kinds()
        told = {kind for (kind,) in self.db.execute("SELECT DISTINCT kind FROM temp.kinds")}
        defenders = tuple((name, numbers.player(name)) for name in self.defenders)
        return [
            Facet("round", "Round", tuple((str(i), f"Round {i}" if i else "Bootstrap") for i in rounds)),
            Facet("phase", "Phase", tuple((name, PHASES[name][0]) for name in phases if len(phases) > 1)),
            Facet("update", "Update", tuple((str(i), str(i + 1)) for i in range(self._updates(stages)))),
            Facet("by", "Attacker", tuple((name, numbers.player(name)) for name in attackers)),
            Facet("verdict", "Verdict", tuple((name, words) for name, (words, _) in VERDICTS.items())),
            Facet("kind", "Kind", tuple((kind, numbers.kind(kind)) for kind in KINDS if kind in told)),
            Facet("category", "Category", tuple((name, name) for name in categories)),
            Facet("fooled", "Fooled", (("*", "any Defender"), *defenders)),
            Facet("held", "Not fooled", defenders),
            Facet("sort", "Order", tuple((name, words) for name, (words, _) in SORTS.items())),
        ]

    def _updates(self, stages: Mapping[str, int]) -> int:
        trained = [last + 1 for stage, last in stages.items() if stage.endswith("/attacker")]
        return max(trained, default=0)

    def _tell_kinds(self) -> None:
        """Make the table of kinds, once, for what asks for more than files."""
        if not self._kinds_told:
            self._kinds_told = True
            self.db.execute("PRAGMA temp_store = MEMORY")
            columns = "stage TEXT, question_id TEXT, kind TEXT, PRIMARY KEY (stage, question_id)"
            self.db.execute(f"CREATE TEMP TABLE kinds ({columns}) WITHOUT ROWID")
            self.db.execute(FILL_KINDS)

    def _with(self, filters: Filters) -> str:
        self._tell_kinds()
        source = CLEAN_PICTURES if filters.get("opponent") == "clean" else EDITS
        return f"WITH {self._shared}, source AS ({source})"

    # -- pages

    def page(self, filters: Filters, start: int, most: int = PAGE) -> Tiles:
        passing, values = where(filters)
        # Joined where a filter looks at them, and at nothing else: counting is what takes longest.
        (count,) = self.db.execute(
            f"{self._with(filters)} SELECT count(*) {TABLES} {passing}", values
        ).fetchone()
        order = SORTS.get(filters.get("sort", ""), SORTS["newest"])[1]
        query = f"""{self._with(filters)}, chosen AS MATERIALIZED (
            SELECT e.*, row_number() OVER (ORDER BY {order}) AS turn {TABLES} {passing}
            ORDER BY {order} LIMIT ? OFFSET ?) {self._select("chosen")} ORDER BY e.turn"""
        rows = self.db.execute(query, [*values, most, start]).fetchall()
        return Tiles(tuple(self._tile(row) for row in rows), count, start)

    def _select(self, source: str) -> str:
        said = f"a.defender || char(31) || a.right || char(31) || ({KNEW})"
        return f"""SELECT e.*, q.question, q.category, q.image, v.accepted, v.efficacy, v.reward, k.kind,
            (SELECT group_concat({said}, char(30)) FROM answers a
             WHERE {SAME.format("a")} AND a.trial = 0) AS said
            {TABLES.replace("source e", f"{source} e")}"""

    def _tile(self, row: sqlite3.Row) -> Tile:
        said = [each.rsplit("\x1f", 2) for each in (row["said"] or "").split("\x1e") if each]
        marks = tuple((name, right == "1") for name, right, _ in said)
        fooled = any(right == "0" and knew == "1" for _, right, knew in said)
        stage = row["stage"]
        where = (
            f"{numbers.player(stage.split('/')[0])}, update {row['step'] + 1}"
            if stage.endswith("/attacker")
            else numbers.player(row["attacker"] or "clean")
        )
        parts = [where, numbers.kind(row["kind"]) if row["kind"] else None, row["category"]]
        return Tile(
            _key(row),
            row["question"] or row["question_id"],
            ", ".join(part for part in parts if part),
            _outcome(row, marks, fooled),
            "" if row["reward"] is None or not trains(stage) else f"{row['reward']:.2f}",
            self._pair(row),
            tuple(sorted(marks, key=lambda mark: self._rank(mark[0]))),
        )

    def _rank(self, name: str) -> int:
        return self.defenders.index(name) if name in self.defenders else len(self.defenders)

    def _pair(self, row: sqlite3.Row) -> Pair:
        image = row["image"]
        # A question's picture may lie anywhere on this disk: the ledger names it by its whole path then.
        before = Path(image) if image and Path(image).is_absolute() else inside(self.folder, image)
        return Pair(before, inside(self.folder, row["picture"]))

    # -- one edit

    def _one(self, key: Key, select: str | None = None) -> sqlite3.Row | None:
        """The row of an edit. select: what of it, from `one e`; left out, all that a tile shows."""
        try:
            values = (key["stage"], int(key["step"]), key["question"], int(key["sample"]))
        except (KeyError, ValueError):
            return None
        if select is None:
            self._tell_kinds()
            select = self._select("one")
        source = CLEAN_PICTURES if key["stage"] == CLEAN else EDITS
        condition = "stage = ? AND step = ? AND question_id = ? AND sample = ?"
        one = f"one AS (SELECT * FROM ({source}) WHERE {condition})"
        found: sqlite3.Row | None = self.db.execute(f"WITH {self._shared}, {one} {select}", values).fetchone()
        return found

    def pair(self, key: Key) -> Pair | None:
        files = "SELECT e.picture, q.image FROM one e LEFT JOIN questions q ON q.id = e.question_id"
        row = self._one(key, files)
        return None if row is None else self._pair(row)

    def neighbours(self, key: Key, filters: Filters) -> Neighbours:
        passing, values = where(filters)
        order = SORTS.get(filters.get("sort", ""), SORTS["newest"])[1]
        query = f"""{self._with(filters)}, ranked AS MATERIALIZED (
            SELECT e.stage, e.step, e.question_id, e.sample, row_number() OVER (ORDER BY {order}) AS turn
            {TABLES} {passing}), here AS (SELECT turn FROM ranked
            WHERE stage = ? AND step = ? AND question_id = ? AND sample = ?)
            SELECT r.*, (SELECT turn FROM here) AS here, (SELECT count(*) FROM ranked) AS total
            FROM ranked r WHERE r.turn BETWEEN (SELECT turn FROM here) - 1 AND (SELECT turn FROM here) + 1"""
        own = [key["stage"], int(key["step"]), key["question"], int(key["sample"])]
        rows = self.db.execute(query, [*values, *own]).fetchall()
        if not rows:
            return Neighbours(None, self.page(filters, 0, 0).of)
        at = {row["turn"] - row["here"]: _key(row) for row in rows}
        return Neighbours(rows[0]["here"], rows[0]["total"], at.get(-1), at.get(1))

    def exhibit(self, key: Key) -> Exhibit | None:
        row = self._one(key)
        if row is None:
            return None
        question = self.db.execute("SELECT * FROM questions WHERE id = ?", (key["question"],)).fetchone()
        verdict = self.db.execute(
            f"SELECT * FROM verdicts v WHERE {KEY_CONDITION}", tuple(row[name] for name in COLUMNS)
        ).fetchone()
        notes = json.loads(verdict["notes"]) if verdict else {}
        targets = json.loads(question["targets"]) if question else []
        related, title = self._related(row)
        return Exhibit(
            _key(row),
            self._pair(row),
            self._tile(row).outcome,
            row["question"] or "",
            tuple(json.loads(question["options"])) if question else (),
            question["answer"] if question else "",
            row["kind"],
            tuple(Target(each["name"], tuple(each["box"])) for each in targets),
            self._witnesses(row),
            tuple(_verdict(verdict, notes)) if verdict else (),
            tuple(
                (LABELS.get(name, name).removeprefix("reward: "), value)
                for name, value in notes.items()
                if name.startswith("reward_")
            ),
            verdict["reward"] if verdict and trains(row["stage"]) else None,
            tuple(_origin(row)),
            related,
            title,
        )

    def _witnesses(self, row: sqlite3.Row) -> tuple[Witness, ...]:
        stages = ", ".join("?" * len(self.clean_stages))
        clean = self.db.execute(
            f"SELECT * FROM answers WHERE stage IN ({stages}) AND step = 0 AND question_id = ?"
            " AND sample = 0 ORDER BY trial",
            (*self.clean_stages, row["question_id"]),
        ).fetchall()
        edited = (
            []
            if row["stage"] == CLEAN
            else self.db.execute(
                f"SELECT * FROM answers v WHERE {KEY_CONDITION} ORDER BY trial",
                tuple(row[name] for name in COLUMNS),
            ).fetchall()
        )
        shown = {each["defender"] for each in edited} or {each["defender"] for each in clean}
        if row["stage"].startswith("evaluation/"):
            shown |= {each["defender"] for each in clean}
        return tuple(
            Witness(
                name,
                _replies([each for each in clean if each["defender"] == name]),
                _replies([each for each in edited if each["defender"] == name]),
            )
            for name in sorted(shown, key=lambda name: (self._rank(name), name))
        )

    def _related(self, row: sqlite3.Row) -> tuple[tuple[Tile, ...], str]:
        """The group that the edit was rewarded in, or the same question under the other opponents."""
        if row["stage"] == CLEAN or row["stage"].startswith(("evaluation/", "attack/")):
            stages = [name for (name,) in self.db.execute("SELECT DISTINCT stage FROM edits")]
            stages = [name for name in stages if name.split("/")[0] == row["stage"].split("/")[0]]
            condition = f"stage IN ({', '.join('?' * len(stages))}) AND step = 0 AND question_id = ?"
            values, title = [*stages, row["question_id"]], "The same question, every edit"
        else:
            condition, title = (
                "stage = ? AND step = ? AND question_id = ?",
                "Its group: edits of one question",
            )
            values = [row["stage"], row["step"], row["question_id"]]
        query = (
            f"WITH {self._shared}, some AS (SELECT * FROM ({EDITS}) WHERE {condition}) {self._select('some')}"
        )
        rows = self.db.execute(f"{query} ORDER BY e.place LIMIT {PAGE}", values).fetchall()
        return tuple(self._tile(each) for each in rows), title


COLUMNS = ("stage", "step", "question_id", "sample")
KEY_CONDITION = " AND ".join(f"v.{name} = ?" for name in COLUMNS)


def round_of(stage: str) -> int | None:
    """The round that a stage belongs to; 0 is the bootstrap, None neither."""
    part = stage.removeprefix("evaluation/").split("/")[0]
    if part == "bootstrap":
        return 0
    number = part.removeprefix("round")
    return int(number) if part.startswith("round") and number.isdecimal() else None


def trains(stage: str) -> bool:
    """Do rewards count in this stage?"""
    return stage.endswith(("/attacker", "/curriculum"))


def by_round(name: str) -> tuple[int, str]:
    """Puts players into the order in which they were made."""
    number = round_of(name)
    return (number if number is not None else 0, name)


def _key(row: sqlite3.Row) -> Key:
    return {name: str(row[column]) for name, column in zip(KEY, COLUMNS, strict=True)}


def _outcome(row: sqlite3.Row, marks: Sequence[tuple[str, bool]], fooled: bool) -> Outcome:
    """fooled: a Defender that was right on the clean picture is wrong on this one."""
    if row["picture"] is None:
        return "right" if all(right for _, right in marks) else "wrong"
    if row["accepted"] is not None and not row["accepted"]:
        return "rejected"
    if row["efficacy"] or fooled:
        return "fooled"
    return "held" if marks else "waiting"


def _replies(rows: Sequence[sqlite3.Row]) -> tuple[Reply, ...]:
    return tuple(
        Reply(
            row["text"],
            row["choice"],
            bool(row["right"]),
            row["right_probability"],
            row["tokens"],
            row["rule"],
        )
        for row in rows[:SHOWN_TRIALS]
    )


def _verdict(row: sqlite3.Row, notes: Mapping[str, float]) -> list[Fact]:
    relit, unchanged = notes.get("relit", 0) > 0, UNCHANGED in notes
    facts = [
        Fact("Accepted", "yes" if row["accepted"] else "no", not row["accepted"]),
        Fact(
            "Targets",
            f"{'intact' if row['intact'] or relit else 'damaged'} ({row['integrity']:.3f})",
            not row["intact"] and not relit,
        ),
        Fact("Object count", "changed" if row["duplicate"] else "kept", bool(row["duplicate"])),
    ]
    if "relit" in notes:
        level, spread = notes.get("light_level", 0.0), notes.get("light_spread", 0.0)
        words = "changed" if relit else "kept"
        facts.append(Fact("Light", f"{words} (level {level:.3f}, spread {spread:.3f})", relit))
    if unchanged:
        facts.append(Fact("Picture", "came back as it was", True))
    if row["label_valid"] is not None:
        valid = bool(row["label_valid"])
        facts.append(Fact("Right answer", "still right" if valid else "no longer right", not valid))
    if "answers" in notes:
        facts.append(Fact("Defender failed", f"{row['efficacy']:.0%} of {notes['answers']:.0f}"))
    if row["probability_drop"] is not None and "probability_clean" in notes:
        ends = notes["probability_clean"], notes["probability_edited"]
        facts.append(Fact("P(right answer)", f"{ends[0]:.3f} → {ends[1]:.3f}"))
    if "sharpness" in notes:
        facts.append(Fact("Sharpness, after over before", f"{notes['sharpness']:.2f}"))
    return facts


def _origin(row: sqlite3.Row) -> list[Fact]:
    facts = [Fact("Question", row["question_id"]), Fact("Stage", row["stage"])]
    if row["stage"].endswith("/attacker"):
        facts.append(Fact("Update", str(row["step"] + 1)))
    facts.append(Fact("Sample", str(row["sample"])))
    if row["category"]:
        facts.append(Fact("Category", row["category"]))
    if row["attacker"]:
        facts.append(Fact("Attacker", numbers.player(row["attacker"])))
    if row["seed"] is not None:
        facts.append(Fact("Seed", str(row["seed"])))
    if row["instruction"]:
        facts.append(Fact("Instruction", row["instruction"]))
    return facts
