"""A run's folder as the report reads it: finished or not, without writing to it and without loading
a model.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from sparring.data.errors import RunError
from sparring.data.records import LETTERS, UNCHANGED, Target
from sparring.report.heldout import HeldOut, StageRow, defenders_until, read_stages

Outcome = Literal["fooled", "held", "rejected"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a Defender said."""

    defender: str
    text: str
    choice: str | None
    right: bool


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One held-out edit with all that is known of it. `base` and `last` are None where the Defender was not
    asked, or not yet.
    """

    question_id: str
    question: str
    options: tuple[str, ...]
    answer: str
    category: str | None
    targets: tuple[Target, ...]
    image: Path
    picture: Path
    attacker: str
    integrity: float
    intact: bool
    duplicate: bool
    accepted: bool
    label_valid: bool | None
    clean_right: bool | None
    base: Reply | None
    last: Reply | None
    relit: bool = False
    unchanged: bool = False

    @property
    def outcome(self) -> Outcome:
        """What the edit did to the base Defender."""
        if not self.accepted or self.base is None:
            return "rejected"
        return "held" if self.base.right else "fooled"

    @property
    def won_back(self) -> bool:
        """The base Defender fell for it, the last one does not."""
        return self.outcome == "fooled" and self.last is not None and self.last.right

    def option(self, letter: str | None) -> str:
        """A letter with its option's text."""
        if letter is None or letter not in LETTERS[: len(self.options)]:
            return "no option"
        return f"{letter}. {self.options[LETTERS.index(letter)]}"


@dataclass(frozen=True)
class Run:
    """All that a report shows. `summary` is None until the run is finished; `payoff` has None where a cell
    has not been played.
    """

    out: Path
    recipe_text: str | None
    recipe: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    stages: Mapping[str, StageRow]
    histories: Mapping[str, list[tuple[int, dict[str, Any]]]]
    edits: Mapping[str, int]
    meta: Mapping[str, float]
    questions: Mapping[str, int]
    payoff: Mapping[str, Any]
    exhibits: tuple[Exhibit, ...]
    last_defender: str
    strategies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How many rounds the recipe asks for."""
        return int(self.recipe.get("selfplay", {}).get("rounds", 0)) or _rounds_in(self.stages)

    @property
    def rivals(self) -> Mapping[str, str]:
        """The opponents that nobody trained: name -> what they are."""
        return _rivals(self.recipe)

    @property
    def running(self) -> str | None:
        """The stage that is under way, or at which the run stopped."""
        return next((name for name, row in self.stages.items() if row.status != "done"), None)


def read_run(out: Path, *, played: bool = True, exhibits: bool = True) -> Run:
    """Read a run's folder. What is not there yet is empty.

    played: also the figures of held-out play; exhibits: also its edits, all of them. Both take longer to read
    than all the rest.

    Errors: RunError if the folder holds no run at all, or a file of it cannot be read.
    """
    out = out.resolve()
    ledger, recipe_path, summary_path = out / "ledger.sqlite", out / "recipe.yaml", out / "summary.json"
    if not ledger.is_file() and not recipe_path.is_file() and not summary_path.is_file():
        raise RunError(
            f"{out} holds no run: none of recipe.yaml, ledger.sqlite and summary.json is there. "
            "Name the folder that a run, a probe or an evaluation had as its --out."
        )
    try:
        recipe_text = recipe_path.read_text(encoding="utf-8") if recipe_path.is_file() else None
    except UnicodeDecodeError as error:
        raise RunError(f"{recipe_path} is no YAML: {error}") from error
    recipe, summary = _recipe(recipe_path, recipe_text), _summary(summary_path)
    if not ledger.is_file():
        payoff = (summary or {}).get("payoff", {})
        strategies = (summary or {}).get("strategies", {})
        return Run(
            out, recipe_text, recipe, summary, {}, {}, {}, {}, {}, payoff, (), _last(payoff), strategies
        )
    try:
        with closing(open_ledger(ledger)) as db:
            stages = read_stages(db)
            histories: dict[str, list[tuple[int, dict[str, Any]]]] = {}
            for row in db.execute("SELECT * FROM updates ORDER BY stage, step"):
                histories.setdefault(row["stage"], []).append((row["step"], json.loads(row["metrics"])))
            rounds = int(recipe.get("selfplay", {}).get("rounds", 0)) or _rounds_in(stages)
            payoff = (summary or {}).get("payoff", {})
            strategies = (summary or {}).get("strategies", {})
            if played and summary is None:
                so_far = HeldOut(db, stages, rounds, list(_rivals(recipe)))
                payoff = {
                    "defenders": so_far.defenders,
                    "opponents": so_far.opponents,
                    "accuracy": so_far.accuracy(),
                }
            asked = {
                row["defender"]
                for row in db.execute(
                    "SELECT DISTINCT defender FROM answers WHERE stage = 'evaluation/clean'"
                )
            }
            last = next((name for name in reversed(defenders_until(rounds)) if name in asked), "base")
            return Run(
                out=out,
                recipe_text=recipe_text,
                recipe=recipe,
                summary=summary,
                stages=stages,
                histories=histories,
                edits=dict(db.execute("SELECT stage, count(*) FROM edits GROUP BY stage").fetchall()),
                meta=dict(db.execute("SELECT key, value FROM meta").fetchall()),
                questions=dict(db.execute("SELECT split, count(*) FROM questions GROUP BY split").fetchall()),
                payoff=payoff,
                strategies=strategies,
                exhibits=tuple(read_exhibits(db, out, last)) if exhibits else (),
                last_defender=last,
            )
    except sqlite3.Error as error:
        raise RunError(f"{ledger} cannot be read as a run's ledger: {error}") from error


def open_ledger(path: Path) -> sqlite3.Connection:
    """Read-only. A ledger without a write-ahead log has no writer, and then the folder need not be writable
    either.
    """
    logged = path.with_name(path.name + "-wal").exists()
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro{'' if logged else '&immutable=1'}", uri=True)
    db.row_factory = sqlite3.Row
    return db


def _recipe(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RunError(f"{path} is no YAML: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds no recipe: a mapping is expected")
    return value


def _summary(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict) or value.get("schema") != 1:
        raise RunError(f"{path} is no summary of schema 1, the only one that this version reads")
    return value


def _rounds_in(stages: Mapping[str, StageRow]) -> int:
    return max(
        (int(name.split("/")[0].removeprefix("round")) for name in stages if name.startswith("round")),
        default=0,
    )


def _last(payoff: Mapping[str, Any]) -> str:
    return str((payoff.get("defenders") or ["base"])[-1])


def _rivals(recipe: Mapping[str, Any]) -> Mapping[str, str]:
    return (recipe.get("evaluation") or {}).get("rivals") or {}


def read_exhibits(
    db: sqlite3.Connection,
    out: Path,
    last: str,
    *,
    base: str = "base",
    clean: str = "evaluation/clean",
    stages: str = "evaluation/%",
    but: Collection[str] = (),
) -> Iterator[Exhibit]:
    """The edits of held-out play, or of a probe, with the answers of the Defenders `base` and `last` about
    them. clean: the stage of answers to clean pictures. stages: a pattern of those of edits, `but` these.
    """
    query = """
        SELECT q.id, q.question, q.options, q.answer, q.category, q.targets, q.image,
               e.stage, e.attacker, e.picture,
               v.integrity, v.intact, v.duplicate, v.accepted, v.label_valid, v.notes, c.right AS clean_right,
               b.text AS base_text, b.choice AS base_choice, b.right AS base_right,
               l.text AS last_text, l.choice AS last_choice, l.right AS last_right
        FROM edits e
        JOIN questions q ON q.id = e.question_id
        JOIN verdicts v USING (stage, step, question_id, sample)
        LEFT JOIN answers c ON c.stage = ? AND c.step = 0 AND c.question_id = e.question_id
            AND c.defender = ? AND c.trial = 0
        LEFT JOIN answers b ON b.stage = e.stage AND b.step = e.step AND b.question_id = e.question_id
            AND b.sample = e.sample AND b.defender = ? AND b.trial = 0
        LEFT JOIN answers l ON l.stage = e.stage AND l.step = e.step AND l.question_id = e.question_id
            AND l.sample = e.sample AND l.defender = ? AND l.trial = 0
        WHERE e.stage LIKE ? ORDER BY e.stage, e.question_id"""
    for row in db.execute(query, (clean, base, base, last, stages)):
        if row["stage"] in but:
            continue
        targets = tuple(Target(target["name"], tuple(target["box"])) for target in json.loads(row["targets"]))
        if row["accepted"] and row["base_text"] is None:
            continue  # made, but not yet shown to any Defender
        notes = json.loads(row["notes"])
        yield Exhibit(
            question_id=row["id"],
            question=row["question"],
            options=tuple(json.loads(row["options"])),
            answer=row["answer"],
            category=row["category"],
            targets=targets,
            image=out / row["image"],
            picture=out / row["picture"],
            attacker=row["attacker"],
            integrity=row["integrity"],
            intact=bool(row["intact"]),
            duplicate=bool(row["duplicate"]),
            accepted=bool(row["accepted"]),
            label_valid=None if row["label_valid"] is None else bool(row["label_valid"]),
            relit=notes.get("relit", 0) > 0,
            unchanged=UNCHANGED in notes,
            clean_right=None if row["clean_right"] is None else bool(row["clean_right"]),
            base=_reply(row, "base", base),
            last=_reply(row, "last", last),
        )


def _reply(row: sqlite3.Row, column: str, defender: str) -> Reply | None:
    if row[f"{column}_text"] is None:
        return None
    return Reply(defender, row[f"{column}_text"], row[f"{column}_choice"], bool(row[f"{column}_right"]))
