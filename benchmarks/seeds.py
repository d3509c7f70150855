"""What several games of one recipe, each with a seed of its own, gained together: one JSON line.

    python benchmarks/seeds.py runs/arena-{10,11,12,13,14} --control runs/arena-clean-{10,11,12,13,14}

Every difference is told of each seed and pooled. Pooled intervals are a hierarchical bootstrap: seeds are
drawn with replacement, then of each its held-out pictures; of few seeds they are too narrow where these
differ by more than the standard error of one, and too wide where they differ less. The control
games are of the same seeds in the same order, so they have the same questions.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.judging.kinds import KINDS
from sparring.measures.payoff import CLEAN
from sparring.measures.statistics import hierarchical_bootstrap, student, wilson
from sparring.report.heldout import HeldOut, read_stages

RIVALS = ("light", "cut_out", "look_alike")
RESAMPLES = 10_000
Values = NDArray[np.float64]


class Played:
    """The held-out play of a finished game of three rounds."""

    def __init__(self, folder: Path) -> None:
        self.summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        last = len(self.summary["rounds"])
        address = f"{(folder / 'ledger.sqlite').resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as db:
            db.row_factory = sqlite3.Row
            heldout = HeldOut(db, read_stages(db), last, RIVALS)
            self.last = f"round{last}"
            self.ids = heldout.ids
            self.kept = heldout.right("base", CLEAN)
            opponents = (CLEAN, "bootstrap", self.last, *RIVALS)
            self.right = {(d, o): heldout.right(d, o) for d in ("base", self.last) for o in opponents}
            self.fooled = {
                o: heldout.payoff("base", o).fooled("base", o)[self.kept] for o in opponents if o != CLEAN
            }

    def gain(self, opponent: str) -> Values:
        """[N]: the last Defender less the base one, both under that opponent."""
        return self.right[self.last, opponent].astype(float) - self.right["base", opponent]

    def stronger(self, than: str) -> Values:
        """[N]: valid success of the last Attacker less that of another, on what the base Defender knows."""
        return self.fooled[self.last].astype(float) - self.fooled[than]


def pooled(seeds: Sequence[Values]) -> dict[str, Any]:
    """Mean and interval of each seed, and of all: the mean over seeds of the mean over pictures."""

    def told(values: Sequence[Values]) -> dict[str, Any]:
        found = hierarchical_bootstrap(values, resamples=RESAMPLES, seed=0)
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        ends = found.low, found.high
        if found.value in (0, 1) and ends == (found.value, found.value):  # drawn anew, it would have no width
            ends = wilson(round(found.value * found.n), found.n)
        return {"value": round(found.value, 4), "ci95": [round(end, 4) for end in ends]}

    n = sum(values.size for values in seeds)
    return told(seeds) | {"n": n, "seeds": [told([values]) for values in seeds]}


def kinds_of(games: Sequence[Played]) -> dict[str, Any]:
    """Of the last Attackers' successful edits, the share of each kind."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        told = [game.summary["strategies"][game.last][kind] for game in games]
        hits = [(round(one["value"] * one["n"]), one["n"]) for one in told if one["n"]]
        found[kind] = pooled([np.repeat([1.0, 0.0], [k, n - k]) for k, n in hits]) if hits else None
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--control", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    games = [Played(folder) for folder in arguments.runs]
    controls = [Played(folder) for folder in arguments.control]
    line: dict[str, Any] = {
        "benchmark": "seeds",
        "case": {"seeds": [game.summary["seed"] for game in games]},
        "robust": pooled([game.gain(game.last) for game in games]),
        "clean": pooled([game.gain(CLEAN) for game in games]),
        "transfer": pooled([game.gain("look_alike") for game in games]),
    }
    for rival in ("bootstrap", *RIVALS):
        line[f"attacker less {rival}"] = pooled([game.stronger(rival) for game in games])
    line["valid success"] = {
        name: pooled([game.fooled[game.last if name == "last" else name].astype(float) for game in games])
        for name in ("last", "bootstrap", *RIVALS)
    }
    line["label valid"] = [
        {"value": found["value"], "n": found["n"]}
        for game in games
        for found in [game.summary["rounds"][-1]["attacker"]["label_valid_rate"]]
    ]
    line["kinds"] = kinds_of(games)
    if controls:
        for name, opponent in (("clean", CLEAN), ("transfer", "look_alike")):
            line[f"control {name}"] = pooled([game.gain(opponent) for game in controls])
        line["control robust"] = pooled([game.gain(game.last) for game in controls])
        pairs = list(zip(games, controls, strict=True))
        if any(game.ids != control.ids for game, control in pairs):
            raise SystemExit("games and control games are not of the same seeds in the same order")
        for name, opponent in (("clean", CLEAN), ("transfer", "look_alike"), ("robust", None)):
            # Of each under the last Attacker of its own game, where no opponent is named.
            against = [
                game.gain(opponent or game.last) - control.gain(opponent or control.last)
                for game, control in pairs
            ]
            ends = student([float(own.mean()) for own in against])
            line[f"{name} less control's"] = pooled(against) | {
                "t95": ends and [round(end, 4) for end in ends]
            }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
