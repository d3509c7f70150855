"""What of a study's folder is its own, and what may go: finished cells without what no cell that is left, and
no figure, needs.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sparring.config import Recipe
from sparring.data.errors import RunError
from sparring.data.layouts import data_digest
from sparring.data.words import plural
from sparring.engine.environment import ENVIRONMENT
from sparring.engine.files import write_json
from sparring.engine.folder import difference_of, is_computed, read_settings
from sparring.engine.questions import require_unchanged
from sparring.probe.settings import SHARED
from sparring.recipes.paths import packaged_models
from sparring.study.plan import DONE, PLACES, Cell, Study

KEPT = {
    "game": ("recipe.yaml", "summary.json", ENVIRONMENT),
    "edits": (SHARED,),  # what they took
    "probe": ("probe.yaml", "outcomes.json", "results.json", "table.md", ENVIRONMENT),
}
"""Kind of a cell -> the files of a finished one that stay, for figures and to tell whose they are."""

SETTINGS = {"game": "recipe.yaml", "edits": "probe.yaml", "probe": "probe.yaml"}
QUESTIONS = "questions.json"
"""In a folder of edits: what the baseline's recipe says of its data."""


def trim_study(study: Study, out: Path) -> None:
    """Delete all files of finished cells but `KEPT` and the players that probes which are not done will load.
    Edits stay, whole, until all probes of their seed are done.
    """
    cells = study.cells()
    left = [cell for cell in cells if cell.kind == "probe" and not cell.done(out)]
    players = {folder for cell in left for folder in _players(study, cell, out)}
    for cell in cells:
        if not cell.done(out) or (cell.kind == "edits" and any(one.seed == cell.seed for one in left)):
            continue
        folder = cell.folder(out)
        kept = {folder / name for name in KEPT[cell.kind]} | players
        _keep(folder, kept)


def _players(study: Study, cell: Cell, out: Path) -> Iterator[Path]:
    """The folders of games that a probe loads players from, itself or for the edits that it shares."""
    if (defender := study.defender_of(cell.arm, cell.seed, out)) is not None:
        yield defender
    for spec in study.settings.opponents.values():
        if (trained := study.trained(spec, cell.arm, cell.seed)) is not None:
            yield study.attacker_of(*trained, out)


def _keep(folder: Path, kept: set[Path]) -> None:
    """Delete what is neither kept, nor in a folder that is, nor on the way to one."""
    for path in folder.iterdir():
        if path in kept:
            continue
        if not path.is_dir() or path.is_symlink():
            path.unlink()
        elif any(one.is_relative_to(path) for one in kept):
            _keep(path, kept)
        else:
            shutil.rmtree(path)
    if not any(folder.iterdir()):
        folder.rmdir()


def require_own(study: Study, out: Path) -> None:
    """Raise RunError, naming all of them, where games or probes were begun with other settings than this
    study's, wherever its folder and the packages were then, and on however many questions a finished game
    measured itself; and where a cell that is to be done needs what is not there any more.
    """
    unplaced, wrong = partial(_unplaced, kept=_places(study)), dict[Cell, str]()
    for cell in study.cells():
        file = cell.folder(out) / SETTINGS[cell.kind]
        if cell.kind == "edits" or not (cell.done(out) or file.is_file()):
            continue
        if not file.is_file():
            raise cell.damaged(file, "it is missing")
        settings = study.recipe(cell.arm, cell.seed) if cell.kind == "game" else study.probe(cell, out)
        stored = read_settings(file)
        if isinstance(settings, Recipe) and cell.done(out):
            stored = _measured_as(settings, stored)
        if (difference := difference_of(settings, stored, unplaced)) is not None:
            wrong[cell] = difference
        elif cell.kind == "probe" and cell.done(out):
            game = study.game(cell.arm, cell.seed)
            if study.defender_of(cell.arm, cell.seed, out) and (game in wrong or not game.done(out)):
                wrong[cell] = f"the {game} that it is of is to be played anew"
    if wrong:
        told = "".join(f"\n  {cell.folder(out)}: {why}" for cell, why in wrong.items())
        raise RunError(
            f"{plural(len(wrong), 'cell')} in {out} had other settings, so what they found does not belong "
            f"into this study. Choose another folder with --out, or delete these: they are done anew.{told}"
        )
    games = out / PLACES["game"]
    for cell in study.to_do(out):
        for player in _players(study, cell, out) if cell.kind == "probe" else ():
            name = player.relative_to(games).parts[0]
            if (games / name / DONE["game"]).is_file() and not player.is_dir():
                raise RunError(
                    f"{cell} needs {player}, which is not kept. Choose another folder with --out, or delete "
                    f"{games / name} and the probes of its Defenders: they are done anew."
                )


def note_data(study: Study, out: Path) -> None:
    """Note the files of questions that the arms' recipes name, by their hashes. Raises RunError where one has
    changed since cells were computed: seeds and arms would be of different questions.
    """
    named = {
        path for recipe in study.recipes.values() for path in (recipe.data.path, recipe.data.held_out_path)
    }
    digests = {name: data_digest(Path(name)) for name in sorted(filter(None, named))}
    if not digests:
        return
    file = out / "data.json"
    begun = any(is_computed(cell.folder(out)) for cell in study.cells())
    before = json.loads(file.read_text(encoding="utf-8")) if begun and file.is_file() else {}
    known = {name: digest for name, digest in digests.items() if name in before}
    require_unchanged(before, known, "study", out)
    if before | digests != before:
        write_json(file, before | digests)


def _measured_as(recipe: Recipe, stored: dict[str, Any]) -> dict[str, Any]:
    """A game's settings with the number of questions on which another recipe measures its players."""
    evaluation = stored.get("evaluation")
    own = {"questions": recipe.evaluation.questions}
    return stored | {"evaluation": evaluation | own} if isinstance(evaluation, dict) else stored


def _places(study: Study) -> str:
    """A pattern of the folders of cells and of packages' models, by their last parts."""
    cells = {cell.folder(Path()).as_posix() for cell in study.cells() if cell.kind != "probe"}
    packages = {"/".join(folder.parts[-2:]) for folder in packaged_models().values()}
    return "|".join(map(re.escape, sorted(cells | packages)))


def _unplaced(value: Any, kept: str) -> Any:
    """Settings in which such folders are named by their last parts alone."""
    if isinstance(value, dict):
        return {key: _unplaced(inner, kept) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_unplaced(inner, kept) for inner in value]
    place = rf"(^|\+)/(?:(?!\+/)[^@])*?/({kept})(?=/|$)"
    return re.sub(place, r"\1\2", value) if isinstance(value, str) else value


def drop_moved(study: Study, out: Path) -> None:
    """Delete edits, and probes that are not done, whose questions or players are named by other paths than
    now: the folder was elsewhere when they were begun. And edits of other questions. They are made anew.
    """
    for cell in study.cells():
        file = cell.folder(out) / SETTINGS[cell.kind]
        if cell.kind == "game" or not file.is_file() or (cell.kind == "probe" and cell.done(out)):
            continue
        stored, now = read_settings(file), study.probe(cell, out).model_dump(mode="json")
        moved = any(stored.get(name) != now[name] for name in ("data", "defenders", "attackers"))
        if moved or (cell.kind == "edits" and not _made_for(study, cell, out)):
            shutil.rmtree(cell.folder(out))


def _made_for(study: Study, cell: Cell, out: Path) -> bool:
    """Are the questions of these edits those of the baseline's recipe?"""
    file = cell.folder(out) / QUESTIONS
    wanted = study.recipes[study.settings.baseline].data.model_dump(mode="json")
    return file.is_file() and bool(json.loads(file.read_text(encoding="utf-8")) == wanted)
