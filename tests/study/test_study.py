"""A whole study: two arms, two seeds, killed and resumed, its figures those of the games and of the probes."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from small_game import game_recipe, plan_of, study_quietly
from sparring.cli import app
from sparring.config import ArmSettings, PrimarySettings, StudySettings
from sparring.data.layouts import data_digest
from sparring.engine.questions import played_sides
from sparring.engine.screen import Screen
from sparring.probe.questions import Asked
from sparring.probe.run import run_probe
from sparring.study.plan import Cell
from sparring.study.trim import trim_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(players: Path, questions: Path) -> tuple[str, str]:
    """Settings, and the recipes of both arms, as JSON."""
    rivals = {"blot": "tests.small_game:blot", "light": "light:0.75"}
    plain = {"questions": 8, "clean_share": 1.0}
    recipes = {
        "attacked": game_recipe(players, questions, rounds=1, evaluation={"rivals": rivals}),
        "plain": game_recipe(
            players,
            questions,
            rounds=1,
            evaluation={"rivals": rivals},
            selfplay={"curriculum": plain},
        ),
    }
    settings = StudySettings(
        name="small",
        seeds=(3, 4),
        arms={name: ArmSettings(recipe="small") for name in recipes},
        baseline="plain",
        primary=PrimarySettings(arm="attacked", opponents=("blot", "adaptive")),
        opponents={"blot": "tests.small_game:blot", "own": "own", "other": "own@next"},
        shifts={"light": ("light:0.75",), "fogs": ("corruption:fog:1", "corruption:fog:3")},
        adapt=1,
        resamples=200,
    )
    return settings.model_dump_json(), json.dumps(
        {name: recipe.model_dump(mode="json") for name, recipe in recipes.items()}
    )


@pytest.fixture(scope="module")
def finished(study: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and results of a study that nothing disturbed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    study_quietly(*study, str(out))
    results = json.loads((out / "study.json").read_text())
    assert results["failed"] == {}
    return out, results


def test_game_probe_and_study_agree_to_the_last_digit(finished: tuple[Path, dict[str, Any]]) -> None:
    out, results = finished
    # The training has left its mark, if not in letters: what follows is of different Defenders.
    assert results["differences"]["of"]["attacked"]["Brier score"]["value"] != 0
    for place, seed in enumerate((3, 4)):
        for arm in ("plain", "attacked"):
            summary = json.loads((out / f"games/{arm}-{seed}/summary.json").read_text())
            probe = json.loads((out / f"probes/{arm}-{seed}/results.json").read_text())["defenders"][arm]
            payoff, attacks = summary["payoff"], probe["robustness"]["attackers"]
            measures = results["arms"][arm]["measures"]
            assert payoff["accuracy"][-1][0] == probe["clean_accuracy"]
            assert measures["clean accuracy"]["seeds"][place] == probe["clean_accuracy"]["value"]
            for opponent, name in (("blot", "blot"), ("light", "light"), ("round1", "own")):
                played = payoff["valid_asr"][-1][payoff["opponents"].index(opponent)]
                assert played == attacks[name]["valid_asr"], (arm, seed, name)
            for name in ("blot", "own", "other", "adaptive"):
                for label, key in (("valid ASR of", "valid_asr"), ("valid accuracy under", "valid_accuracy")):
                    assert measures[f"{label} {name}"]["seeds"][place] == attacks[name][key]["value"]
            assert measures["accuracy under light"]["seeds"][place] == attacks["light"]["accuracy"]["value"]
            assert measures["ASR of light"]["seeds"][place] == attacks["light"]["asr"]["value"]
            wrong = probe["conditions"]["wrong_caption"]["accuracy"]["value"]
            assert measures["accuracy: wrong caption"]["seeds"][place] == wrong
            assert measures["ECE, 15 bins"]["seeds"][place] == probe["calibration"]["ece"]["value"]


def test_shared_edits_are_made_once_and_are_those_of_a_probe_of_its_own(
    finished: tuple[Path, dict[str, Any]], study: tuple[str, str], tmp_path: Path
) -> None:
    out, _ = finished
    plan, cell = plan_of(*study), Cell("probe", "attacked", 3)
    for name in ("blot", "light", "roundtrip"):
        theirs = list((out / f"edits/plain-3/pictures/attack/{name}").rglob("*.png"))
        assert theirs
        for picture in theirs:
            own = cell.folder(out) / picture.relative_to(out / "edits/plain-3")
            assert own.samefile(picture)
    recipe = plan.recipe("plain", 3)
    train, held_out, read = played_sides(recipe, plan.edits(3).folder(out))
    asked = Asked(held_out, train, {str(one.path): data_digest(one.path) for one in read})
    run_probe(plan.probe(cell, out), tmp_path, Screen(Console(file=io.StringIO())), asked=asked)
    assert (tmp_path / "outcomes.json").read_bytes() == (cell.folder(out) / "outcomes.json").read_bytes()


def test_trimmed_and_carried_elsewhere_a_study_ends_with_the_same_figures(
    finished: tuple[Path, dict[str, Any]], study: tuple[str, str], tmp_path: Path
) -> None:
    half, carried = tmp_path / "half", tmp_path / "carried"
    shutil.copytree(finished[0], half)
    for name in ("edits", "probes/plain-4", "probes/attacked-3", "study.json", "study.md"):
        path = half / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    # a probe that was begun in the old place
    shutil.copytree(finished[0] / "probes/attacked-3", half / "probes/attacked-3")
    (half / "probes/attacked-3/outcomes.json").unlink()
    trim_study(plan_of(*study), half)
    kept = {str(path.relative_to(half)) for path in half.rglob("*") if path.is_file()}
    assert {name for name in kept if name.startswith("probes/plain-3")} == {
        f"probes/plain-3/{name}"
        for name in ("probe.yaml", "outcomes.json", "results.json", "table.md", "environment.json")
    }
    assert "games/attacked-3/round1/defender/model/model.safetensors" in kept
    assert "games/plain-3/round1/attacker/editor/pytorch_lora_weights.safetensors" in kept
    assert not any(name.startswith("games/attacked-4/round1/defender") for name in kept)
    assert {Path(name).suffix for name in kept if name.startswith("games")} <= {
        *(".safetensors", ".json", ".yaml", ".jinja", ".txt")
    }
    half.rename(carried)
    study_quietly(*study, str(carried), trim=True)
    assert (carried / "study.json").read_bytes() == (finished[0] / "study.json").read_bytes()
    assert not list(carried.rglob("*.safetensors"))
    edits = [path.relative_to(carried) for path in (carried / "edits").rglob("*") if path.is_file()]
    assert sorted(map(str, edits)) == ["edits/plain-3/edits.json", "edits/plain-4/edits.json"]


def test_another_seeds_attacker_is_that_of_its_game(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    settings = yaml.safe_load((out / "probes/plain-4/probe.yaml").read_text())
    assert settings["attackers"]["other"].endswith("games/plain-3/round1/attacker/editor")


def until(there: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 500
    while not there():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.05)


def test_killed_three_times_a_study_ends_with_the_same_figures(
    study: tuple[str, str], finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = "import sys; from small_game import study_quietly; study_quietly(*sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def is_there(pattern: str) -> Callable[[], bool]:
        return lambda: any(out.glob(pattern))

    for moment in ("games/*/round1/attacker/state/*", "games/*/summary.json", "probes/*/pictures/*"):
        process = subprocess.Popen([sys.executable, "-c", command, *study, str(out)], env=environment)
        until(is_there(moment), process)
        process.kill()
        process.wait()
    assert not (out / "study.json").exists()
    study_quietly(*study, str(out))
    for name in ("study.json", "study.md"):
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_failed_cell_is_told_and_the_exit_status_says_so(tmp_path: Path) -> None:
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    arms = {"a": {"recipe": "arena", "changes": ["data.generator={call: json:loads}"]}}
    file.write_text(yaml.safe_dump({"name": "broken", "seeds": [3], "arms": arms, "baseline": "a"}))
    arguments = ["study", str(file), "--out", str(out)]
    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "game a-3: to do, time unknown" in dry.stdout
    assert "1 game, shared edits of 1 seed, 1 probe; 0 done. Left, 1 at a time: unknown until" in dry.stdout
    assert not out.exists()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "the JSON object must be str" in result.stderr
    assert "game a-3 has failed: " in result.stderr
    assert "probe a-3 has failed: needs the " in result.stderr
    assert {"game a-3", "probe a-3"} <= json.loads((out / "study.json").read_text())["failed"].keys()
    assert (out / "logs/game-a-3.txt").is_file()
    assert (out / "study.md").read_text() in result.stdout
    assert (out / "report.html").is_file()
