"""What of a study's folder is its own, what is made anew, and what `--trim` lets alone."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Collection
from pathlib import Path

import pytest
import yaml

from sparring.config import ArmSettings, StudySettings
from sparring.data.errors import RunError
from sparring.data.records import RULES_VERSION
from sparring.recipes import load_recipe
from sparring.recipes.paths import packaged_models
from sparring.study.plan import DONE, Cell, Study
from sparring.study.trim import KEPT, QUESTIONS, SETTINGS, drop_stale, note_data, require_own, trim_study


@pytest.fixture
def study() -> Study:
    """Every probe faces arm a's Attacker of its seed, and its own arm's of the next."""
    arms = {"a": ArmSettings(recipe="arena"), "b": ArmSettings(recipe="arena-clean")}
    opponents = {"first": "a", "other": "own@next"}
    settings = StudySettings(name="s", seeds=(1, 2), arms=arms, baseline="b", opponents=opponents)
    return Study(settings, {name: load_recipe(arm.recipe) for name, arm in arms.items()})


def write(study: Study, out: Path, unfinished: Collection[str] = (), without: Collection[str] = ()) -> None:
    """All cells but those `without`, as they are when done, or before that."""
    for cell in study.cells():
        if str(cell) in without:
            continue
        folder = cell.folder(out)
        folder.mkdir(parents=True)
        game = cell.kind == "game"
        settings = study.recipe(cell.arm, cell.seed) if game else study.probe(cell, out)
        (folder / SETTINGS[cell.kind]).write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        (folder / "ledger.sqlite").touch()
        if cell.kind == "edits":
            data = study.recipes[study.settings.baseline].data
            (folder / QUESTIONS).write_text(data.model_dump_json())
        if game:
            for player in (study.attacker_of, study.defender_of):
                (player(cell.arm, cell.seed, out) or folder).mkdir(parents=True)
        if str(cell) not in unfinished:
            (folder / DONE[cell.kind]).write_text("{}")


def dropped(study: Study, out: Path) -> list[str]:
    """The cells that are made anew, as they are told."""
    said = list[str]()
    drop_stale(study, out, said.append)
    names = [text.partition(" is made anew: ")[0] for text in said]
    there = {str(cell) for cell in study.cells() if cell.folder(out).exists()}
    assert there.isdisjoint(names)
    return names


def test_what_met_the_players_of_a_game_that_is_gone_is_made_anew(study: Study, tmp_path: Path) -> None:
    begun = ("probe a-1", "probe a-2", "probe b-1")
    write(study, tmp_path, unfinished=begun, without=["probe b-2"])
    require_own(study, tmp_path)
    assert dropped(study, tmp_path) == []
    for name in ("summary.json", "ledger.sqlite"):  # it is played again, with other players
        (Cell("game", "a", 1).folder(tmp_path) / name).unlink()
    require_own(study, tmp_path)
    # a-1 is of its Defender, a-2 has met its Attacker as that of the next seed, b-1 and the edits as arm a's
    assert dropped(study, tmp_path) == ["edits b-1", "probe a-1", "probe b-1", "probe a-2"]
    assert Cell("edits", "b", 2).folder(tmp_path).exists()


def test_what_was_begun_by_other_rules_is_made_anew(study: Study, tmp_path: Path) -> None:
    write(study, tmp_path, unfinished=["game a-2", "probe b-2", "probe a-2"])
    cells = {str(cell): cell.folder(tmp_path) for cell in study.cells()}
    for name, version in (("game a-1", 1), ("probe b-2", 1), ("probe a-2", RULES_VERSION)):
        with sqlite3.connect(cells[name] / "ledger.sqlite") as database:
            database.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
            database.execute("INSERT INTO meta VALUES ('rules_version', ?)", (version,))
    (cells["game a-2"] / DONE["game"]).write_text("{}")
    assert dropped(study, tmp_path) == ["probe b-2"]


def test_edits_that_no_probe_waits_for_stay(study: Study, tmp_path: Path) -> None:
    write(study, tmp_path)
    for cell in study.cells():
        if cell.kind == "edits":
            (cell.folder(tmp_path) / QUESTIONS).write_text("{}")
    assert dropped(study, tmp_path) == []


def test_a_finished_probe_goes_with_every_game_that_it_needs(study: Study, tmp_path: Path) -> None:
    write(study, tmp_path)
    shutil.rmtree(tmp_path / "edits")  # which nobody needs any more
    require_own(study, tmp_path)
    assert dropped(study, tmp_path) == []
    trim_study(study, tmp_path)
    require_own(study, tmp_path)
    shutil.rmtree(Cell("game", "b", 2).folder(tmp_path))
    with pytest.raises(RunError) as error:
        require_own(study, tmp_path)
    for name in ("b-1", "b-2"):
        assert f"probes/{name}: the game b-2 that it needs is to be played anew" in str(error.value)
    assert "2 cells" in str(error.value)


def test_a_game_that_was_begun_with_packages_elsewhere_is_played_anew(study: Study, tmp_path: Path) -> None:
    begun = [str(cell) for cell in study.cells() if cell.kind == "probe"]
    write(study, tmp_path, unfinished=["game a-1"], without=begun)
    for seed in (1, 2):
        file = Cell("game", "a", seed).folder(tmp_path) / "recipe.yaml"
        text = file.read_text()
        for package in packaged_models().values():
            text = text.replace(str(package), f"/another/{'/'.join(package.parts[-2:])}")
        file.write_text(text)
    require_own(study, tmp_path)
    assert dropped(study, tmp_path) == ["game a-1", "edits b-1"]  # the edits are of its players
    assert Cell("game", "a", 2).done(tmp_path)


def test_a_probe_that_was_begun_with_packages_elsewhere_is_made_anew(study: Study, tmp_path: Path) -> None:
    """Also where it has met nobody's players: its judge is one of theirs."""
    alone = Study(study.settings.model_copy(update={"opponents": {"cut": "paste:add"}}), study.recipes)
    write(alone, tmp_path, unfinished=["probe a-1"], without=["probe b-2"])
    for cell in (Cell("probe", "a", 1), Cell("edits", "b", 2)):
        file = cell.folder(tmp_path) / "probe.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["judge"]["model"] = settings["judge"]["model"].replace("/arena/", "/elsewhere/arena/", 1)
        file.write_text(yaml.safe_dump(settings))
    assert dropped(alone, tmp_path) == ["probe a-1", "edits b-2"]


def test_edits_that_lack_a_setting_of_now_stay(study: Study, tmp_path: Path) -> None:
    write(study, tmp_path, without=["probe b-1"])
    file = study.edits(1).folder(tmp_path) / "probe.yaml"
    settings = yaml.safe_load(file.read_text())
    del settings["judge"]["light_spread"], settings["samples"]
    file.write_text(yaml.safe_dump(settings))
    recipe = study.recipes["b"]
    judge = recipe.judge.model_copy(update={"light_spread": type(recipe.judge)().light_spread})
    plain = Study(study.settings, {**study.recipes, "b": recipe.model_copy(update={"judge": judge})})
    assert "edits b-1" not in dropped(plain, tmp_path)


@pytest.mark.parametrize("text", ['{"path": nul', "[]"])
def test_edits_whose_questions_are_damaged_are_made_anew(study: Study, tmp_path: Path, text: str) -> None:
    write(study, tmp_path, without=["probe b-1"])
    (study.edits(1).folder(tmp_path) / QUESTIONS).write_text(text)
    assert dropped(study, tmp_path) == ["edits b-1"]


@pytest.mark.parametrize("text", ['{"/train.jso', "[]"])
def test_noted_data_that_are_damaged_are_named(study: Study, tmp_path: Path, text: str) -> None:
    questions = tmp_path / "train.jsonl"
    questions.write_text("{}\n")
    data = study.recipes["a"].data.model_copy(update={"path": str(questions)})
    recipes = {name: recipe.model_copy(update={"data": data}) for name, recipe in study.recipes.items()}
    named, out = Study(study.settings, recipes), tmp_path / "out"
    write(named, out)
    note_data(named, out)
    (out / "data.json").write_text(text)
    with pytest.raises(RunError, match=r"^.*out/data\.json cannot be read .* or delete it"):
        note_data(named, out)
    (out / "data.json").unlink()
    note_data(named, out)
    assert list(json.loads((out / "data.json").read_text())) == [str(questions)]


def test_cells_under_way_are_not_trimmed(study: Study, tmp_path: Path) -> None:
    """A worker may have written what is written last, and still be closing its ledger."""
    write(study, tmp_path)
    busy = [cell for cell in study.cells() if str(cell) in ("game b-2", "probe b-1")]
    trim_study(study, tmp_path, busy)
    for cell in study.cells():
        ledger = cell.folder(tmp_path) / "ledger.sqlite"
        assert ledger.exists() == (cell in busy or str(cell) == "edits b-1"), cell
    assert study.attacker_of("a", 1, tmp_path).is_dir()  # the probe's
    trim_study(study, tmp_path)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {name for names in KEPT.values() for name in names}


def test_all_players_that_are_not_kept_are_named(study: Study, tmp_path: Path) -> None:
    write(study, tmp_path)
    trim_study(study, tmp_path)
    for name in ("a-1", "b-1"):
        shutil.rmtree(tmp_path / "probes" / name)
    with pytest.raises(RunError) as error:
        require_own(study, tmp_path)
    games = tmp_path / "games"
    wanted = [
        *("a-1/round3/defender/model", "a-1/round3/attacker/editor", "a-2/round3/attacker/editor"),
        *("b-1/round3/defender/model", "b-2/round3/attacker/editor"),
    ]
    assert "5 players" in str(error.value)
    for place in wanted:
        game = games / place.split("/")[0]
        assert f"needs {games / place}, which is not kept: delete {game}" in str(error.value)
