"""Held-out play as it stands in a game's ledger, finished or not: who beat whom, and by what kind of edit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.data.records import UNCHANGED, Verdict
from sparring.judging.kinds import KINDS
from sparring.measures.payoff import CLEAN, AttackReport, Opponent, Payoff, attack_report, play_off
from sparring.measures.statistics import rate

UNATTACKED = (CLEAN, "reencoded")
Table = list[list[dict[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class StageRow:
    """What the ledger says of a stage."""

    status: str
    seconds: float
    result: Mapping[str, Any]


def read_stages(db: sqlite3.Connection) -> dict[str, StageRow]:
    """The stages in the order in which they were last begun or finished."""
    return {
        row["name"]: StageRow(row["status"], row["seconds"], json.loads(row["result"]))
        for row in db.execute("SELECT * FROM stages ORDER BY rowid")
    }


def defenders_until(rounds: int) -> list[str]:
    """The rows of the payoff matrix after so many rounds."""
    return ["base", *(f"round{i}" for i in range(1, rounds + 1))]


class HeldOut:
    """The held-out questions of a game that every Defender answered, and what was played on them.

    A cell of the matrix is there once its stage is done. As in the summary's matrix, the clean answer stands
    where an edit was not accepted, and a question of which a Defender refused any picture is in no cell.
    """

    def __init__(
        self, db: sqlite3.Connection, stages: Mapping[str, StageRow], rounds: int, rivals: Sequence[str] = ()
    ) -> None:
        self._db, self._stages = db, stages
        self.defenders = defenders_until(rounds)
        self.opponents = [*UNATTACKED, "bootstrap", *self.defenders[1:], *rivals]
        lost = {
            name
            for stage, row in stages.items()
            if stage.startswith("evaluation/")
            for name in row.result.get("left_out", ())
        }
        rows = db.execute("SELECT id, image FROM questions WHERE split = 'held_out'").fetchall()
        kept = [row for row in rows if row["id"] not in lost]
        self.ids: list[str] = [row["id"] for row in kept]
        self.pictures: list[str] = [row["image"] for row in kept]
        self._opponents: dict[str, Opponent | None] = {}
        self._right: dict[tuple[str, str], list[bool | None]] = {}

    def played(self, defender: str, opponent: str) -> bool:
        """The cell can be computed."""
        done = all(
            (row := self._stages.get(f"evaluation/{name}/{defender}")) is not None and row.status == "done"
            for name in (CLEAN, opponent)
        )
        return done and (opponent == CLEAN or self._opponent(opponent) is not None)

    def payoff(self, defender: str, opponent: str) -> Payoff:
        """The matrix of one Defender, the clean pictures and one opponent; its clusters are picture files."""
        names = list(dict.fromkeys((CLEAN, opponent)))
        columns = [self._opponent(name) for name in names]
        right = {(defender, name): self._answers(name, defender) for name in names}
        return play_off([defender], [one for one in columns if one is not None], right, self.pictures)

    def right(self, defender: str, opponent: str) -> NDArray[np.bool_]:
        """[N]: was each question answered right, as played."""
        return self.payoff(defender, opponent).right(defender, opponent)

    def accuracy(self) -> Table:
        """Rows are Defenders, columns opponents; None where a cell has not been played."""
        return [
            [rate(self.right(d, o)).as_dict() if self.played(d, o) else None for o in self.opponents]
            for d in self.defenders
        ]

    def as_dict(self) -> dict[str, Any]:
        """The matrix as a summary has it, with None where a cell has not been played."""
        asr = [[None if own is None else own.valid_asr.as_dict() for own in row] for row in self.reports]
        return {
            "defenders": self.defenders,
            "opponents": self.opponents,
            "accuracy": self.accuracy(),
            "valid_asr": asr if any(cell for row in asr for cell in row) else None,
        }

    def report(self, defender: str, opponent: str) -> AttackReport | None:
        """What an opponent's edits did to a Defender; None where nobody attacks or the cell has not been
        played."""
        if opponent in UNATTACKED or not self.played(defender, opponent):
            return None
        return attack_report(self.payoff(defender, opponent), attacker=opponent, defender=defender)

    @cached_property
    def reports(self) -> list[list[AttackReport | None]]:
        """As `accuracy`: what every opponent did to every Defender."""
        return [[self.report(d, o) for o in self.opponents] for d in self.defenders]

    def strategies(self) -> dict[str, dict[str, Any]]:
        """Of every opponent's valid successes on the base Defender, the share of each kind of attack."""
        found: dict[str, dict[str, Any]] = {}
        for opponent in self.opponents:
            if opponent in UNATTACKED or not self.played("base", opponent):
                continue
            payoff = self.payoff("base", opponent)
            hits_N = payoff.fooled("base", opponent) & payoff.right("base", CLEAN)
            kinds = self._stages[f"evaluation/{opponent}"].result.get("kinds", {})
            told = [kinds[i] for i, hit in zip(self.ids, hits_N, strict=True) if hit and i in kinds]
            found[opponent] = {kind: rate([each == kind for each in told]).as_dict() for kind in KINDS}
        return found

    def _answers(self, opponent: str, defender: str) -> list[bool | None]:
        if (opponent, defender) not in self._right:
            query = (
                "SELECT question_id, right FROM answers"
                " WHERE stage = ? AND step = 0 AND defender = ? AND trial = 0"
            )
            said = dict(self._db.execute(query, (f"evaluation/{opponent}", defender)).fetchall())
            self._right[opponent, defender] = [
                None if (right := said.get(name)) is None else bool(right) for name in self.ids
            ]
        return self._right[opponent, defender]

    def _opponent(self, name: str) -> Opponent | None:
        """None where not every edit has its verdict yet."""
        if name in UNATTACKED:
            return Opponent(name)
        if name not in self._opponents:
            query = (
                "SELECT question_id, integrity, intact, duplicate, label_valid,"
                f" json_type(notes, '$.{UNCHANGED}') AS unchanged FROM verdicts WHERE stage = ? AND step = 0"
            )
            found = {row["question_id"]: row for row in self._db.execute(query, (f"evaluation/{name}",))}
            whole = all(question in found for question in self.ids)
            self._opponents[name] = (
                Opponent(name, tuple(_verdict(found[question]) for question in self.ids)) if whole else None
            )
        return self._opponents[name]


def _verdict(row: sqlite3.Row) -> Verdict:
    return Verdict(
        row["question_id"],
        row["integrity"],
        bool(row["intact"]),
        bool(row["duplicate"]),
        0.0,
        0.0,
        label_valid=None if row["label_valid"] is None else bool(row["label_valid"]),
        notes={} if row["unchanged"] is None else {UNCHANGED: 1.0},
    )
