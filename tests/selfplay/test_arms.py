"""The rival arms as they are bundled, only shorter: each plays to its end, its Defender learns from what the
arm is about, and it goes on after a stop.
"""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file

from sparring.config import Recipe
from sparring.defenders.trainer import DefenderTrainer
from sparring.engine.screen import Screen
from sparring.recipes import load_recipe
from sparring.report.page import write_report
from sparring.selfplay.loop import run_game

SHORT = [
    "threads=1",
    "data.generator.arguments.train=48",
    "data.generator.arguments.held_out=8",
    "data.held_out=8",
    "attacker.steps=1",
    "attacker.questions_per_step=2",
    "attacker.group_size=2",
    "attacker.optimizer_steps=1",
    "attacker.rollout_steps=2",
    "attacker.evaluation_steps=2",
    "bootstrap.questions=4",
    "bootstrap.steps=1",
    "bootstrap.batch=2",
    "defender.steps=2",
    "defender.prompts_per_step=6",
    "defender.max_refills=2",
    "selfplay.rounds=1",
    "selfplay.checkpoint_every=1",
    "evaluation.resamples=100",
]
# What an arm's Defender learned from, as its updates tell: a metric that is there, in at least one of them.
TELLS = {
    "arena-static-add": "reward_accuracy",
    "arena-static-insert": "reward_accuracy",
    "arena-static-both": "reward_accuracy",
    "arena-noisy": "right_when_distorted",
    "arena-sft": "loss",
    "arena-text": "right_under_wrong_thought",
    "arena-text-consistent": "reward_inconsistency",
}


def play(recipe: Recipe, out: Path) -> dict[str, Any]:
    return run_game(recipe, out, Screen(Console(file=io.StringIO())))


def updates_and_editors(out: Path) -> tuple[list[dict[str, float]], set[str]]:
    """The metrics of the Defender's updates, and who edited the pictures of its curriculum."""
    with closing(sqlite3.connect(out / "ledger.sqlite")) as ledger:
        updates = ledger.execute(
            "SELECT metrics FROM updates WHERE stage = 'round1/defender' ORDER BY step"
        ).fetchall()
        editors = ledger.execute(
            "SELECT DISTINCT attacker FROM edits WHERE stage = 'round1/curriculum'"
        ).fetchall()
    return [json.loads(metrics) for (metrics,) in updates], {name for (name,) in editors}


@pytest.mark.slow
@pytest.mark.parametrize("name", TELLS)
def test_an_arm_is_played_to_its_end_and_goes_on_after_a_stop(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = name.startswith("arena-static-")
    recipe = load_recipe(name, [*SHORT, f"selfplay.curriculum.questions={12 if static else 4}"])
    summary = play(recipe, tmp_path / "whole")
    assert summary["recipe"] == name
    assert summary["payoff"]["defenders"] == ["base", "round1"]
    updates, editors = updates_and_editors(tmp_path / "whole")
    assert len(updates) == 2
    assert any(TELLS[name] in metrics for metrics in updates)
    assert any(metrics.get("grad_norm", 0) > 0 for metrics in updates)
    if static:
        assert editors == set(recipe.selfplay.curriculum.rivals)
    else:
        assert editors == ({"round1"} if name == "arena-sft" else set())
    write_report(tmp_path / "whole")

    begin = DefenderTrainer._set_rate

    def stopped(trainer: DefenderTrainer, step: int) -> None:
        if step == 1:
            raise KeyboardInterrupt
        begin(trainer, step)

    with monkeypatch.context() as patched:
        patched.setattr(DefenderTrainer, "_set_rate", stopped)
        with pytest.raises(KeyboardInterrupt):
            play(recipe, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "round1" / "defender" / "done.json").exists()
    resumed = play(recipe, tmp_path / "stopped")
    for figure in ("rounds", "payoff", "gains"):
        assert resumed[figure] == summary[figure]
    assert updates_and_editors(tmp_path / "stopped") == (updates, editors)
    one, other = (
        load_file(tmp_path / out / "round1/defender/model/model.safetensors") for out in ("whole", "stopped")
    )
    assert [tensor for tensor, value in one.items() if not value.equal(other[tensor])] == []
