"""The bootstrap's pairs are those of `sparring forge`, made by the game's own players, and a cut costs no
more than a batch.
"""

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from small_game import game_recipe
from sparring.config import Recipe
from sparring.data.convert import write_questions
from sparring.data.images import load_image, pictures_of
from sparring.data.questions import read_questions
from sparring.engine.screen import Screen
from sparring.forge import smith
from sparring.forge.ledger import Ledger
from sparring.forge.run import run_forge
from sparring.models.editors import FlowEditor
from sparring.models.vlms.local import LocalVLM
from sparring.selfplay.bootstrap import FORGE, bootstrap, forge_settings
from sparring.selfplay.loop import open_game
from sparring.selfplay.turns import frozen_edits, right_when_clean


def quiet() -> Screen:
    return Screen(Console(file=io.StringIO()))


def begin(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Bootstrap in a folder; the funnel, less the time that it took."""
    with open_game(recipe, out, quiet()) as game:
        bootstrap(game)
    return funnel_in(out / FORGE)


def funnel_in(folder: Path) -> dict[str, Any]:
    return {
        name: value
        for name, value in json.loads((folder / "funnel.json").read_text()).items()
        if name != "seconds"
    }


@pytest.fixture(scope="module")
def begun(players: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("begun").resolve()
    begin(game_recipe(players, questions), out)
    return out


def test_the_pairs_are_those_of_the_forge_by_itself(
    begun: Path, players: Path, questions: Path, tmp_path: Path
) -> None:
    """`sparring forge` on a file of the same questions, with the same settings, keeps the same pairs to the
    pixel.
    """
    source = shutil.copytree(questions.parent, tmp_path / "source")
    recipe = game_recipe(players, questions)
    with open_game(recipe, begun, quiet()) as game:
        right, settings = [question.id for question in right_when_clean(game, 0)[:12]], forge_settings(game)
    by_id = {question.id: question for question in read_questions(source / questions.name)}
    path = write_questions(source / "right.jsonl", [by_id[name] for name in right])
    funnel = run_forge(settings.model_copy(update={"data": str(path)}), tmp_path / "out", screen=quiet())
    own = funnel_in(begun / FORGE)
    assert own["records"]["kept"] > 0
    assert own["content_hash"] == funnel["content_hash"]
    for part in ("records", "stages", "candidates", "kept_share"):
        assert own[part] == funnel[part]


def test_a_run_may_implant_otherwise_than_its_forge(players: Path, questions: Path, tmp_path: Path) -> None:
    """One edit of each question, whole, with the noise that names every edit of a game."""
    recipe = game_recipe(
        players, questions, bootstrap={"implant": "whole", "attempts": 1}, judge={"integrity_threshold": -1}
    )
    assert (recipe.forge.implant, recipe.bootstrap_stages().implant) == ("painter", "whole")
    with open_game(recipe, tmp_path, quiet()) as game:
        bootstrap(game)
        right = right_when_clean(game, 0)[: recipe.bootstrap.questions]
        seeds = [game.seed("round0/candidates", question.id, 0) for question in right]
        edits = frozen_edits(game, "untuned", right, pictures_of(right), seeds)
        ledger = Ledger(tmp_path / FORGE)
        made = {row.id: row for outcome in ("kept", "useless", "rejected") for row in ledger.rows(outcome)}
        pictures = [load_image(ledger.path(made[question.id].picture or "")) for question in right]
        ledger.close()
    assert {row.attempt for row in made.values()} == {1}
    worst = [
        np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max()
        for one, other in zip(pictures, edits, strict=True)
    ]
    assert max(worst) <= 1  # batches of other sizes may round otherwise


def test_the_result_tells_what_the_funnel_tells(begun: Path) -> None:
    result, funnel = (
        json.loads((begun / name).read_text())
        for name in ("round0/bootstrap/done.json", f"{FORGE}/funnel.json")
    )
    assert result["questions"] == funnel["records"]["read"] == 12
    assert result["pairs"] == funnel["records"]["kept"]
    assert (
        result["pairs"]
        < result["accepted"]
        <= result["candidates"]
        == funnel["candidates"]["tried"]
        <= 12 * 4
    )
    assert result["funnel"] == funnel["stages"]
    assert len(list((begun / FORGE / "pictures").rglob("*.png"))) >= result["pairs"]


def test_no_player_is_loaded_twice_and_nothing_known_is_asked_again(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, asked = Counter[str](), list[str]()
    load, load_editor, ask = LocalVLM.load, FlowEditor.__init__, smith.ask_each

    def counted(path: Any, **options: Any) -> LocalVLM:
        loaded[Path(path).name] += 1
        return load(path, **options)

    def counted_editor(self: FlowEditor, *arguments: Any, **options: Any) -> None:
        loaded["editor"] += 1
        load_editor(self, *arguments, **options)

    def noted(vlm: LocalVLM, questions: Any, *arguments: Any, **options: Any) -> Any:
        asked.extend(question.id for question in questions)
        return ask(vlm, questions, *arguments, **options)

    monkeypatch.setattr(LocalVLM, "load", counted)
    monkeypatch.setattr(FlowEditor, "__init__", counted_editor)
    monkeypatch.setattr(smith, "ask_each", noted)
    begin(game_recipe(players, questions, forge={"implant": "editor"}), tmp_path)
    assert loaded == {"defender": 1, "judge": 1, "editor": 1}
    assert asked == []


def test_a_picture_that_was_extended_is_asked_about_anew(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = list[str](), smith.ask_each

    def noted(vlm: LocalVLM, questions: Any, images: Any, *arguments: Any, **options: Any) -> Any:
        asked.extend(question.id for question in questions)
        return ask(vlm, questions, images, *arguments, **options)

    monkeypatch.setattr(smith, "ask_each", noted)
    recipe = game_recipe(
        players, questions, forge={"extend": {"painter": {"model": "edges"}, "checks": []}, "attempts": 1}
    )
    begin(recipe, tmp_path)
    assert 0 < len(asked) <= 12
    with open_game(recipe, tmp_path, quiet()) as game:
        sizes = {question.id: load_image(question.image).size for question in game.train}
        ledger = Ledger(game.out / FORGE)
        made = {
            row.id: load_image(ledger.path(row.clean)).size
            for outcome in ("kept", "useless", "rejected")
            for row in ledger.rows(outcome)
        }
        ledger.close()
    assert set(asked) == {name for name, size in made.items() if size != sizes[name]}


def test_cut_off_between_two_batches_and_gone_on(
    begun: Path, players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two batches is not forged again, and what comes out is what an undisturbed run has."""

    class CutOffError(Exception):
        pass

    write, written = Ledger.write, list[int]()

    def once(self: Ledger, packed: Any) -> None:
        write(self, packed)
        written.append(len(packed))
        if len(written) == 1:
            raise CutOffError

    monkeypatch.setattr(Ledger, "write", once)
    recipe = game_recipe(players, questions)
    with pytest.raises(CutOffError):
        begin(recipe, tmp_path)
    assert not (tmp_path / FORGE / "funnel.json").exists()
    whole = funnel_in(begun / FORGE)
    again = begin(recipe, tmp_path)
    assert written == [8, 4]
    assert again == whole
    weights, others = (
        load_file(out / "round0/bootstrap/editor/pytorch_lora_weights.safetensors")
        for out in (tmp_path, begun)
    )
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_without_questions_the_bootstrap_attacker_is_the_editor_as_it_came(
    players: Path, questions: Path, begun: Path, tmp_path: Path
) -> None:
    """And what the game draws afterwards is the same as with a bootstrap."""
    funnel = begin(game_recipe(players, questions, bootstrap={"questions": 0}), tmp_path)
    assert funnel["records"]["read"] == 0
    assert funnel["kept_share"]["value"] is None
    assert "made no pair" in json.loads((tmp_path / "round0/bootstrap/done.json").read_text())["warnings"][0]
    clean = "round0/clean/done.json"
    assert (tmp_path / clean).read_bytes() == (begun / clean).read_bytes()
