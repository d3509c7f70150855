"""Cells are shared out, failures cost only what needs them, and what is done is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sparring.cli import app
from sparring.config import ArmSettings, StudySettings
from sparring.data.errors import RunError
from sparring.engine.folder import run_folder
from sparring.engine.pool import WorkersLostError
from sparring.engine.screen import Screen
from sparring.recipes import load_recipe
from sparring.study import run
from sparring.study.plan import Cell, Study, load_study
from sparring.study.run import Queue, run_study


@pytest.fixture
def study() -> Study:
    arms = {"a": ArmSettings(recipe="arena"), "b": ArmSettings(recipe="arena-clean")}
    settings = StudySettings(name="s", seeds=(1, 2), arms=arms, baseline="b", opponents={"other": "own@next"})
    return Study(settings, {name: load_recipe(arm.recipe) for name, arm in arms.items()})


class Told(Screen):
    """A screen that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was begun; "fails": cells that do, "lost": cells whose worker dies, "empty": that leave nothing."""
    found: dict[str, Any] = {"begun": [], "fails": (), "lost": (), "empty": (), "at once": 0, "most": 0}

    def play(study: Study, cell: Cell, out: Path) -> str | None:
        found["begun"].append(str(cell))
        if str(cell) in found["fails"]:
            return "it broke"
        if str(cell) in found["lost"]:
            raise WorkersLostError("a worker has died")
        cell.folder(out).mkdir(parents=True)
        if str(cell) in found["empty"]:
            return None
        for name in ("summary.json", "edits.json", "ledger.sqlite", "results.json", "outcomes.json"):
            (cell.folder(out) / name).write_text(json.dumps({"wall_seconds": 60}))
        return None

    class Worker:
        def __init__(self, gpus: Sequence[int]) -> None:
            found["at once"] += 1
            found["most"] = max(found["most"], found["at once"])

        def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            future = Future[Any]()
            try:
                future.set_result(play(*arguments))
            except WorkersLostError as error:
                future.set_exception(error)
            return future

        def end(self) -> None:
            found["at once"] -= 1

    monkeypatch.setattr(run, "LocalWorker", Worker)
    return found


def test_probes_wait_for_the_games_that_they_need(
    study: Study, played: dict[str, Any], tmp_path: Path
) -> None:
    assert Queue(study, tmp_path, 3, Told()).play() == {}
    assert sorted(played["begun"]) == sorted(str(cell) for cell in study.cells())
    for cell in study.cells():
        for need in cell.needs:
            assert played["begun"].index(str(need)) < played["begun"].index(str(cell))
    assert (played["most"], played["at once"]) == (3, 0)


def test_a_failure_costs_the_cells_that_need_it_and_is_tried_again(
    study: Study, played: dict[str, Any], tmp_path: Path
) -> None:
    played |= {"fails": ("game a-1",), "lost": ("probe b-2",)}
    screen = Told()
    failed = Queue(study, tmp_path, 1, screen).play()
    assert {str(cell): why for cell, why in failed.items()} == {
        "game a-1": "it broke",
        "probe a-1": "needs the game a-1, which has failed",
        "probe a-2": "needs the game a-1, which has failed",
        "probe b-2": "a worker has died (was there memory enough?)",
    }
    assert "game a-1 has failed: it broke" in screen.lines
    assert played["at once"] == 0
    done = set(played["begun"]) - {"game a-1", "probe b-2"}
    played |= {"fails": (), "lost": (), "begun": []}
    assert Queue(study, tmp_path, 1, Told()).play() == {}
    assert sorted(played["begun"]) == ["game a-1", "probe a-1", "probe a-2", "probe b-2"]
    assert done.isdisjoint(played["begun"])


def test_whatever_a_worker_cannot_cope_with_is_the_failure_of_its_cell(
    study: Study, played: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = run.LocalWorker.submit

    def broken(worker: Any, function: Any, *arguments: Any) -> Future[Any]:
        if str(arguments[1]) != "game b-2":
            return submit(worker, function, *arguments)
        future = Future[Any]()
        future.set_exception(OSError("File name too long"))
        return future

    monkeypatch.setattr(run.LocalWorker, "submit", broken)
    failed = Queue(study, tmp_path, 1, Told()).play()
    assert {str(cell) for cell in failed} >= {"game b-2", "probe b-2"}
    assert next(why for cell, why in failed.items() if str(cell) == "game b-2").startswith("OSError: File")
    assert Cell("game", "b", 1).done(tmp_path)


def test_a_dry_run_refuses_what_the_run_would_refuse(tmp_path: Path) -> None:
    text = "{name: s, seeds: [1], adapt: %d, arms: {a: {recipe: arena}}, baseline: a}"
    (tmp_path / "out/games").mkdir(parents=True)
    for number in (1, 2):
        (tmp_path / f"{number}.yaml").write_text(text % number)
    settings = load_study(tmp_path / "1.yaml").settings
    (tmp_path / "out/study.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    own, other = (
        CliRunner().invoke(app, ["study", str(tmp_path / file), "--out", str(tmp_path / "out"), "--dry-run"])
        for file in ("1.yaml", "2.yaml")
    )
    assert own.exit_code == 0, own.output
    assert other.exit_code == 2
    assert "adapt is 1 there and 2 here" in " ".join(other.stderr.split())


def test_a_cell_that_leaves_nothing_behind_has_failed(
    study: Study, played: dict[str, Any], tmp_path: Path
) -> None:
    played["empty"] = ("game b-2",)
    failed = Queue(study, tmp_path, 1, Told()).play()
    assert {str(cell) for cell in failed} >= {"game b-2", "probe b-2"}
    why = next(why for cell, why in failed.items() if str(cell) == "game b-2")
    assert why == f"it has ended, but {tmp_path / 'games/b-2'} lacks what it writes last"


def test_the_time_left_is_told_with_every_cell(study: Study, played: dict[str, Any], tmp_path: Path) -> None:
    screen = Told()
    Queue(study, tmp_path, 1, screen).play()
    assert "0 of 10 cells are done, left: unknown until the first edits and game and probe" in screen.lines[0]
    assert screen.lines[1].endswith("1 of 10 cells, left: unknown until the first game and probe are done")
    assert screen.lines[6].endswith("6 of 10 cells, left: some 4 min 00 s")
    assert screen.lines[10].endswith("10 of 10 cells, left: nothing")


def test_a_finished_game_of_another_recipe_is_refused(study: Study, tmp_path: Path) -> None:
    game = Cell("game", "a", 1).folder(tmp_path)
    game.mkdir(parents=True)
    other = study.recipe("a", 1).model_dump(mode="json") | {"threads": 7}
    (game / "recipe.yaml").write_text(yaml.safe_dump(other))
    (game / "summary.json").write_text("{}")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study.settings.model_dump(mode="json")))
    with pytest.raises(
        RunError, match=r"games/a-1 holds the run of another game \(threads is 7 there and 2 here"
    ):
        run_study(study, tmp_path)


def test_another_estimate_of_its_time_is_no_other_study(study: Study, tmp_path: Path) -> None:
    (tmp_path / "games").mkdir()
    stated = study.settings.model_copy(update={"seconds": {"game": 3.0}})
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(stated.model_dump(mode="json")))
    with run_folder(study.settings, tmp_path, file="study.yaml"):
        pass
    other = study.settings.model_copy(update={"adapt": 3})
    with pytest.raises(RunError, match="adapt"), run_folder(other, tmp_path, file="study.yaml"):
        pass
