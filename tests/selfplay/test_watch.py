"""Warnings of reward hacking: only when the reward rises, only beyond the bound, in the right direction."""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from rich.console import Console

from report.fake_run import write_fake_run
from sparring.config import AlarmSettings, Recipe
from sparring.data.records import Verdict
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.measures.payoff import Opponent, play_off
from sparring.selfplay.game import Game
from sparring.selfplay.watch import Change, contradictions, watch

ALARMS = AlarmSettings(success=0.1, label_valid=0.1, sharpness=0.2)
UP, DOWN = Change(before=0.2, after=0.5), Change(before=0.5, after=0.2)


def measures(**changes: tuple[float | None, float | None]) -> dict[str, Change]:
    steady: dict[str, Change] = {
        name: {"before": 0.9, "after": 0.9} for name in ("success", "label_valid", "sharpness")
    }
    return steady | {name: {"before": before, "after": after} for name, (before, after) in changes.items()}


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        ({}, None),
        ({"label_valid": (0.95, 0.86)}, None),
        ({"label_valid": (0.95, 0.84)}, "valid label went 0.950 to 0.840, beyond the bound of 0.1"),
        ({"label_valid": (None, 0.1)}, None),
        ({"success": (0.4, 0.29)}, "valid attack success"),
        ({"success": (0.2, 0.6)}, None),
        ({"sharpness": (0.95, 0.7)}, "sharpness ratio went 0.950 to 0.700"),
        ({"sharpness": (0.95, 1.7)}, "sharpness ratio"),  # grain is as bad as blur
        ({"sharpness": (0.6, 1.1)}, None),
    ],
)
def test_a_fall_beyond_its_bound_is_told_when_the_reward_rises(
    change: dict[str, Any], warned: str | None
) -> None:
    found = contradictions(UP, measures(**change), 0.0, ALARMS)
    assert len(found) == (warned is not None)
    if warned:
        assert warned in found[0]
        assert "0.200 to 0.500" in found[0]
    assert contradictions(DOWN, measures(**change), 0.0, ALARMS) == []
    assert contradictions(Change(before=None, after=None), measures(**change), 0.0, ALARMS) == []
    assert (
        contradictions(
            UP, measures(**change), 0.0, AlarmSettings(success=None, label_valid=None, sharpness=None)
        )
        == []
    )


def test_success_that_the_round_trip_has_alone_is_told() -> None:
    (text,) = contradictions(UP, measures(success=(0.1, 0.1)), 0.12, ALARMS)
    assert "round trip alone fools 0.120" in text
    assert contradictions(UP, measures(success=(0.1, 0.2)), 0.12, ALARMS) == []
    assert contradictions(UP, measures(success=(0.0, 0.0)), 0.0, ALARMS) == []


def test_the_measures_are_those_of_the_ledger(tmp_path: Path) -> None:
    """Four held-out items by hand: the Attacker is paid more and more for edits whose label no
    longer holds.
    """
    ledger, out = Ledger(tmp_path), io.StringIO()
    for step, reward in enumerate((0.1, 0.3, 0.3, 0.3, 0.4, 0.4, 0.7, 0.9)):
        ledger.record_update("round1/attacker", step, {"reward_mean": reward})

    def verdicts(valid: int, sharpness: list[float]) -> tuple[Verdict, ...]:
        return tuple(
            Verdict(f"q{i}", 0.9, True, False, 0.0, 0.0, label_valid=i < valid, notes={"sharpness": ratio})
            for i, ratio in enumerate(sharpness)
        )

    before, after = verdicts(4, [0.9, 1.0, 0.8, 0.95]), verdicts(2, [0.5, 0.6, 0.4, 0.3])
    ledger.record_verdicts("evaluation/bootstrap", 0, before)
    ledger.record_verdicts("evaluation/round1", 0, after)
    right: dict[tuple[str, str], list[bool | None]] = {
        ("base", "clean"): [True, True, True, False],
        ("base", "reencoded"): [True, True, False, False],
        ("base", "bootstrap"): [False, True, True, False],
        ("base", "round1"): [False, True, False, False],
    }
    opponents = [
        Opponent("clean"),
        Opponent("reencoded"),
        Opponent("bootstrap", before),
        Opponent("round1", after),
    ]
    payoff = play_off(["base"], opponents, right, ["a", "b", "c", "d"])
    recipe = Recipe.model_validate(
        {"name": "x", "data": {"path": "q"}, "attacker": {"model": "e"}, "defender": {"model": "d"}}
    )
    absent = cast("Any", None)
    screen = Screen(Console(file=out, width=400))
    game = Game(recipe, absent, absent, absent, tmp_path, ledger, screen, absent, [], [], absent)
    watch(game, 1, payoff)
    result = game.stage("round1/watch").result
    assert result["reward"] == pytest.approx({"before": 0.2, "after": 0.8})
    assert result["success"] == pytest.approx(
        {"before": 1 / 3, "after": 1 / 3}
    )  # of three right when clean; the one at q2 has no valid label
    assert result["label_valid"] == {"before": 1.0, "after": 0.5}
    assert result["sharpness"] == pytest.approx({"before": 0.925, "after": 0.45})
    assert result["reencoded"] == pytest.approx(1 / 3)
    assert len(result["warnings"]) == 3
    assert out.getvalue().count("warning: round1/watch: ") == 3
    assert "round 1, before and after: reward 0.200 to 0.800" in out.getvalue()
    watch(game, 1, payoff)  # what is done is not done, or said, again
    assert out.getvalue().count("warning") == 3


def test_a_ledger_from_before_these_measures_is_still_read(tmp_path: Path) -> None:
    """Verdicts whose notes know nothing of sharpness or of the parts of the reward."""
    run = write_fake_run(tmp_path, held_out=8, rounds=1, steps=2)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("UPDATE verdicts SET notes = '{}'")
    recipe = Recipe.model_validate(yaml.safe_load((tmp_path / "recipe.yaml").read_text()))
    absent = cast("Any", None)
    (tmp_path / "round1/watch/done.json").unlink()
    game = Game(
        recipe,
        absent,
        absent,
        absent,
        tmp_path,
        Ledger(tmp_path),
        Screen(Console(file=io.StringIO())),
        absent,
        [],
        run.questions,
        absent,
    )
    watch(game, 1, run.payoff())
    result = json.loads((tmp_path / "round1/watch/done.json").read_text())
    assert result["sharpness"] == {"before": None, "after": None}
    assert result["success"]["after"] is not None
