"""What verbs write where: one JSON document for programs, and less for those who want less."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
from rich.console import Console
from typer.testing import CliRunner

from sparring.cli import app
from sparring.engine.screen import Screen
from sparring.recipes import bundled_recipes, load_recipe

runner = CliRunner()
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Screen, "quiet", False)
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json(verb: str) -> None:
    assert any("--json" in parameter.opts for parameter in VERBS[verb].params)


def test_a_plan_for_programs_holds_the_recipe_and_what_is_shown() -> None:
    result = runner.invoke(app, ["plan", "arena", "--gpus", "2", "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["recipe"] == load_recipe("arena").model_dump(mode="json")
    assert [model["player"] for model in document["models"]][:2] == ["attacker", "defender"]
    for phase in document["memory"]:
        assert phase["total"] == sum(phase["bytes"].values())
        assert f"{phase['total'] / 1e9:.2f}" in result.stderr
    assert document["gpus"]["number"] == 2
    assert document["gpus"]["seconds"]["run"] > 0


def test_lists_for_programs() -> None:
    recipes = json.loads(runner.invoke(app, ["recipes", "--json"]).stdout)
    assert list(recipes) == list(bundled_recipes())
    fields = json.loads(runner.invoke(app, ["fields", "--json"]).stdout)
    assert "seed" in {line["name"] for line in fields["run"]}
    assert json.loads(runner.invoke(app, ["version", "--json"]).stdout)["sparring"]


def test_a_run_for_programs_ends_with_its_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, page = ModuleType("sparring.selfplay.loop"), ModuleType("sparring.report.page")
    loop.run_game = lambda recipe, out, sides: {"schema": 1}  # type: ignore[attr-defined]
    page.write_report = lambda out: out / "report.html"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparring.selfplay.loop", loop)
    monkeypatch.setitem(sys.modules, "sparring.report.page", page)
    monkeypatch.setattr("sparring.plan.require_models", lambda recipe: None)
    result = runner.invoke(app, ["run", "arena", "--out", "x", "--json"])
    assert json.loads(result.stdout) == {"schema": 1}
    assert "Report:" in result.stderr
    assert "Report:" in runner.invoke(app, ["run", "arena", "--out", "x"]).stdout


def test_a_mistake_is_the_document() -> None:
    result = runner.invoke(app, ["run", "nowhere.yaml", "--out", "x", "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"].startswith("nowhere.yaml: no such file.")
    assert "Error: nowhere.yaml" in result.stderr


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["sparring.engine.trackers"].MODULES, "wandb", ("no_such_module",))
    for verb in (["plan", "arena"], ["run", "arena", "--out", "x"]):
        result = runner.invoke(app, [*verb, "--set", "track=[wandb]"])
        assert result.exit_code == 2
        assert "track: wandb is not installed. Install it: pip install 'sparring[wandb]'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["atack"], "Did you mean 'attack'?"),
        (["plan", "arena", "--gpu-memry", "3"], "options: --gpu-memory)"),
    ],
)
def test_what_is_mistyped_is_answered_with_the_nearest(arguments: list[str], near: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert near in result.stderr


def test_quiet_leaves_results_warnings_and_errors() -> None:
    told = runner.invoke(app, ["--quiet", "plan", "arena"])
    assert told.exit_code == 0
    assert told.stdout == runner.invoke(app, ["plan", "arena"]).stdout
    assert told.stderr == ""
    Screen.quiet = True
    written = io.StringIO()
    screen = Screen(Console(file=written))
    with screen.stage("round 1: Attacker", 2) as bar:
        bar.advance(1, {"reward_mean": 0.5})
    screen.say("news")
    screen.warn("beware")
    assert written.getvalue() == "warning: beware\n"


def test_the_log_level_reaches_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[object] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **options: levels.append(options["level"]))
    assert runner.invoke(app, ["--log-level", "error", "version"]).exit_code == 0
    assert levels == ["ERROR"]
    assert {os.environ[f"{name}_VERBOSITY"] for name in ("TRANSFORMERS", "DIFFUSERS")} == {"error"}
    assert runner.invoke(app, ["--log-level", "loud", "version"]).exit_code == 2


@pytest.mark.parametrize("option", ["--quiet", "-q", "--log-level"])
def test_an_option_of_all_verbs_after_one_is_told_where_it_stands(option: str) -> None:
    said = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["plan", "arena", option, "info"])
    assert said.exit_code == 2
    told = " ".join(said.stderr.replace("\u2502", " ").split())
    assert f"{option} is an option of all verbs and stands before them: sparring {option} plan ..." in told
    assert "Possible options" not in told
    assert "Did you mean" not in told


def test_another_wrong_option_is_told_as_ever() -> None:
    said = CliRunner().invoke(app, ["plan", "arena", "--gpu"])
    assert said.exit_code == 2
    assert "No such option: --gpu" in said.stderr
