"""A whole game in miniature by crews of several workers: processes of this machine, other numbers of them
after kills, and actors on three simulated machines, of which some die. And what the bundled players learn.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from small_cluster import (
    drawn_deaths,
    driving,
    recipe_of,
    require_same,
    require_same_training,
    running,
    stages_of,
    three_machines,
    under_fire,
    wait_for,
)
from small_game import play_quietly
from sparring.config import Recipe
from sparring.engine.screen import Screen
from sparring.recipes import load_recipe
from sparring.selfplay.loop import open_game
from sparring.selfplay.phases import train_attacker, train_defender

pytestmark = pytest.mark.slow


def play(recipe: Recipe, out: Path) -> None:
    play_quietly(recipe.model_dump_json(), str(out))


@pytest.fixture(scope="module")
def alone(players: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone").resolve()
    play(recipe_of(players, questions), out)
    return out


def test_two_processes_play_the_game_of_one(
    alone: Path, players: Path, questions: Path, tmp_path: Path
) -> None:
    two = recipe_of(players, questions, workers=2, defender={"strategy": "fsdp2"})
    play(two, tmp_path / "two")
    require_same(alone, tmp_path / "two")


def test_a_run_goes_on_with_fewer_and_with_more_workers(
    alone: Path, players: Path, questions: Path, tmp_path: Path
) -> None:
    out = (tmp_path / "elastic").resolve()
    killed_at = [(2, ("round1/attacker", 2)), (1, ("round1/defender", 1)), (2, ("round1/defender", 2))]
    for workers, moment in killed_at:
        with driving(recipe_of(players, questions, workers=workers), out) as driver:
            wait_for(lambda: driver.poll() is not None or running(out) >= moment)  # noqa: B023
            assert driver.poll() is None
    play(recipe_of(players, questions, workers=3), out)
    require_same(alone, out)


BUNDLED = [
    "threads=1",
    "data.generator.arguments={train: 48, held_out: 4}",
    "data.held_out=4",
    "attacker.steps=3",
    "attacker.questions_per_step=3",
    "attacker.group_size=4",
    "selfplay.curriculum.questions=6",
    "defender.steps=3",
    "defender.prompts_per_step=6",
    "evaluation.drift.sharpness=null",
    "evaluation.drift.round_trip=null",
    "engine.play.workers=1",
]


def train_bundled(out: Path, workers: int) -> dict[str, list[dict[str, Any]]]:
    """Both players of the recipe `arena` learn in a round whose Attacker begins as the editor that is
    bundled; the metrics of all updates.
    """
    recipe = load_recipe("arena", [*BUNDLED, f"engine.workers={workers}"])
    with open_game(recipe, out, Screen(Console(file=io.StringIO()))) as game:
        editor, lora = game.league.attacker("untuned", keep=False), recipe.attacker.lora
        assert lora is not None
        editor.add_lora(lora.rank, lora.alpha, 0, lora.targets)
        game.stage("round0/bootstrap").folder_written_whole("editor", editor.save_lora)
        train_attacker(game, 1)
        train_defender(game, 1)
        return {player: game.ledger.updates(f"round1/{player}") for player in ("attacker", "defender")}


def test_two_processes_train_the_bundled_players_as_one_does(tmp_path: Path) -> None:
    one, two = (train_bundled(tmp_path / str(workers), workers) for workers in (1, 2))
    assert [len(own) for own in one.values()] == [3, 3]
    for player, name in (("attacker", "dead_groups"), ("attacker", "accepted"), ("defender", "kept_groups")):
        assert [update[name] for update in two[player]] == [update[name] for update in one[player]]
    assert any(update["dead_groups"] < 1 and update["accepted"] > 0 for update in one["attacker"])
    assert all(update["kept_groups"] > 0 for update in one["defender"])
    require_same_training(tmp_path / "1", tmp_path / "2", beyond=3e-4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    with three_machines() as machines:
        yield machines


def test_actors_play_the_game_of_one_process_and_it_outlives_them_a_machine_and_its_driver(
    alone: Path, players: Path, questions: Path, tmp_path: Path, cluster: Any
) -> None:
    """In short; `python tests/small_cluster.py FOLDER` is the long form."""
    out = (tmp_path / "deaths").resolve()
    two = recipe_of(players, questions, kind="ray", workers=2, address=cluster.address, restarts=3)
    under_fire(two, out, cluster, drawn_deaths(3, 1, stages_of(alone), pause=3, seed=73))
    assert sum(json.loads((out / "summary.json").read_text())["restarts"].values()) >= 1
    require_same(alone, out)
