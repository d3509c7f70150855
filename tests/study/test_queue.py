"""Cells are shared out, failures cost only what needs them, and what is done is not done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from sparring.cli import app
from sparring.config import ArmSettings, StudySettings
from sparring.data.errors import RunError
from sparring.engine.folder import run_folder
from sparring.engine.pool import WorkersLostError
from sparring.engine.screen import Screen
from sparring.recipes import load_recipe
from sparring.recipes.paths import packaged_models
from sparring.study import run
from sparring.study.plan import Cell, Study
from sparring.study.run import Queue
from sparring.study.trim import drop_stale, note_data, require_own


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
    text = "{name: s, seeds: [1], arms: {a: {recipe: arena, changes: [%s]}}, baseline: a}"

    def dry_run(change: str) -> Result:
        (tmp_path / "study.yaml").write_text(text % change)
        out = str(tmp_path / "out")
        return CliRunner().invoke(app, ["study", str(tmp_path / "study.yaml"), "--out", out, "--dry-run"])

    assert dry_run("threads=2").exit_code == 0
    game = tmp_path / "out/games/a-1"
    game.mkdir(parents=True)
    (game / "summary.json").write_text('{"wall_seconds": 1}')
    recipe = load_recipe("arena", ["threads=2", "seed=1"])
    (game / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    (game / "round3/defender/model").mkdir(parents=True)
    assert dry_run("threads=2").exit_code == 0
    for change, message in (
        ("threads=3", "games/a-1: threads is 2 there and 3 here"),
        ("data.path=/nowhere.jsonl", "arms.a: data.path: /nowhere.jsonl is not there"),
        ("defender.model=/no/model", "arms.a: defender.model: /no/model is no folder"),
    ):
        refused = dry_run(change)
        assert refused.exit_code == 2, refused.output
        assert message in " ".join(refused.stderr.split())


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


def test_what_vanishes_while_it_runs_is_told(study: Study, played: dict[str, Any], tmp_path: Path) -> None:
    for name in ("games/a-1", "games/a-2", "games/b-1", "games/b-2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "summary.json").write_text('{"wall_seconds": 60}')
    queue = Queue(study, tmp_path, 1, Told())
    shutil.rmtree(tmp_path / "games/b-1")
    assert {str(cell): why for cell, why in queue.play().items()} == {
        "probe b-1": "needs the game b-1, which is not there any more",
        "probe b-2": "needs the game b-1, which is not there any more",
    }
    assert played["begun"] == ["edits b-1", "probe a-1", "edits b-2", "probe a-2"]


def test_cells_under_way_are_not_trimmed(
    study: Study, played: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, seen = Queue(study, tmp_path, 2, Told(), trim=True), list[set[Cell]]()

    def trim(study: Study, out: Path, under_way: Sequence[Cell]) -> None:
        assert set(under_way) == {job.cell for job in queue.jobs.values()}
        seen.append(set(under_way))

    monkeypatch.setattr(run, "trim_study", trim)
    queue.play()
    assert len(seen) == 1 + len(study.cells())
    assert max(map(len, seen)) == 1  # the other worker's


def test_a_study_grows_and_what_is_done_stays(study: Study, played: dict[str, Any], tmp_path: Path) -> None:
    """Another arm or estimate touches no finished cell; another recipe or opponent does, and is told."""
    assert Queue(study, tmp_path, 1, Told()).play() == {}
    for cell in study.cells():
        folder = cell.folder(tmp_path)
        if cell.kind == "game":
            text = yaml.safe_dump(study.recipe(cell.arm, cell.seed).model_dump(mode="json"))
            for player in (study.attacker_of, study.defender_of):
                (player(cell.arm, cell.seed, tmp_path) or folder).mkdir(parents=True)
        else:
            text = yaml.safe_dump(study.probe(cell, Path("/x+y/games/elsewhere")).model_dump(mode="json"))
        for package in packaged_models().values():
            text = text.replace(str(package.parent.parent), "/another/place")
        (folder / ("recipe.yaml" if cell.kind == "game" else "probe.yaml")).write_text(text)
    require_own(study, tmp_path)
    arms = {**study.settings.arms, "c": ArmSettings(recipe="arena-sft")}
    changes = {"arms": arms, "seconds": {"game": 3.0}, "resamples": 200}
    recipes = {**study.recipes, "c": load_recipe("arena-sft")}
    more = Study(study.settings.model_copy(update=changes), recipes)
    require_own(more, tmp_path)
    assert {cell.arm for cell in more.to_do(tmp_path) if cell.kind != "edits"} == {"c"}
    other = Study(study.settings.model_copy(update={"adapt": 3}), study.recipes)
    with pytest.raises(
        RunError, match=r"4 cells in .* other settings[^@]*probes/b-2: adapt is 0 there and 3 here"
    ):
        require_own(other, tmp_path)
    changed = {**study.recipes, "a": study.recipes["a"].model_copy(update={"threads": 7})}
    with pytest.raises(
        RunError, match=r"4 cells in[^@]*probes/a-1: the game a-1 that it needs is to be played"
    ):
        require_own(Study(study.settings, changed), tmp_path)
    fewer = study.recipes["a"].evaluation.model_copy(update={"questions": 32})
    measured = {**study.recipes, "a": study.recipes["a"].model_copy(update={"evaluation": fewer})}
    require_own(Study(study.settings, measured), tmp_path)
    (tmp_path / "games/a-1/summary.json").unlink()  # one that is not done goes on with its own settings alone
    with pytest.raises(RunError, match=r"games/a-1: evaluation.questions is None there and 32 here"):
        require_own(Study(study.settings, measured), tmp_path)
    (tmp_path / "games/a-1/summary.json").write_text('{"wall_seconds": 60}')
    shutil.rmtree(study.attacker_of("b", 2, tmp_path))  # as `--trim` does once nobody needs it
    require_own(study, tmp_path)
    shutil.rmtree(Cell("probe", "b", 1).folder(tmp_path))
    with pytest.raises(RunError, match=r"probe b-1 needs .*games/b-2/.*, which is not kept"):
        require_own(study, tmp_path)
    shutil.rmtree(Cell("game", "b", 2).folder(tmp_path))
    with pytest.raises(
        RunError, match=r"1 cell in[^@]*probes/b-2: the game b-2 that it needs is to be played"
    ):
        require_own(study, tmp_path)


def test_edits_of_other_questions_are_made_anew(study: Study, tmp_path: Path) -> None:
    edits = study.edits(1)
    folder = edits.folder(tmp_path)
    folder.mkdir(parents=True)
    for name in ("edits.json", "ledger.sqlite"):
        (folder / name).touch()
    (folder / "probe.yaml").write_text(yaml.safe_dump(study.probe(edits, tmp_path).model_dump(mode="json")))
    data = study.recipes["b"].data
    (folder / "questions.json").write_text(data.model_dump_json())
    drop_stale(study, tmp_path, print)
    assert edits.done(tmp_path)
    fewer = study.recipes["b"].model_copy(update={"data": data.model_copy(update={"held_out": 8})})
    drop_stale(Study(study.settings, {**study.recipes, "b": fewer}), tmp_path, print)
    assert not folder.exists()


def test_the_folder_keeps_the_settings_of_now(study: Study, tmp_path: Path) -> None:
    (tmp_path / "games").mkdir()
    for resamples in (200, 300):
        settings = study.settings.model_copy(update={"resamples": resamples})
        with run_folder(settings, tmp_path, file="study.yaml", grows=True):
            assert yaml.safe_load((tmp_path / "study.yaml").read_text())["resamples"] == resamples
    (tmp_path / "study.yaml").unlink()
    (tmp_path / "recipe.yaml").write_text("name: a game's\n")
    with (
        pytest.raises(RunError, match="holds the results of a game"),
        run_folder(study.settings, tmp_path, file="study.yaml", grows=True),
    ):
        pass


def test_a_study_does_not_go_on_with_other_questions(study: Study, tmp_path: Path) -> None:
    note_data(study, tmp_path)
    assert not list(tmp_path.iterdir())  # its questions are generated
    files = [tmp_path / "train.jsonl", tmp_path / "held.jsonl"]
    for file in files:
        file.write_text("{}\n")
    data = study.recipes["a"].data.model_copy(update={"path": str(files[0]), "held_out_path": str(files[1])})
    recipes = {name: recipe.model_copy(update={"data": data}) for name, recipe in study.recipes.items()}
    named, out = Study(study.settings, recipes), tmp_path / "out"
    out.mkdir()
    note_data(named, out)
    files[0].write_text("{  }\n")  # mended before anything was computed
    for _ in range(2):
        note_data(named, out)
    Cell("game", "a", 1).folder(out).mkdir(parents=True)
    (Cell("game", "a", 1).folder(out) / "summary.json").write_text("{}")
    note_data(named, out)
    files[1].write_text("{ }\n")
    with pytest.raises(RunError, match=rf"^{files[1]}: changed since the study in {out} began"):
        note_data(named, out)
    files[1].write_text("{}\n")
    note_data(named, out)
