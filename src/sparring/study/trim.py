"""What of a study's folder is its own, and what may go: finished cells without what no cell that is left, and
no figure, needs.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sparring.config import ProbeSettings, Recipe
from sparring.data.errors import RunError
from sparring.data.layouts import data_digest
from sparring.data.words import plural
from sparring.engine.environment import ENVIRONMENT
from sparring.engine.files import has_other_rules, write_json
from sparring.engine.folder import difference_of, is_computed, read_settings
from sparring.engine.questions import require_unchanged
from sparring.probe.settings import DECIDE, SHARED
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


def trim_study(study: Study, out: Path, under_way: Collection[Cell] = ()) -> None:
    """Delete all files of finished cells but `KEPT` and the players that probes which are not done will load.
    Edits stay, whole, until all probes of their seed are done. under_way: cells that are let alone: they may
    have written what is written last, and still be closing their files.
    """
    cells = study.cells()
    done = {cell for cell in cells if cell.done(out) and cell not in under_way}
    left = [cell for cell in cells if cell.kind == "probe" and cell not in done]
    players = {folder for cell in left for folder in _players(study, cell, out)}
    for cell in cells:
        if cell not in done or (cell.kind == "edits" and any(one.seed == cell.seed for one in left)):
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
            path.unlink(missing_ok=True)
        elif any(one.is_relative_to(path) for one in kept):
            _keep(path, kept)
        else:
            shutil.rmtree(path)
    if not any(folder.iterdir()):
        folder.rmdir()


def require_own(study: Study, out: Path) -> None:
    """Raise RunError, naming all of them, where games or probes were begun with other settings than this
    study's, wherever its folder and the packages were then, and on however many questions a finished game
    measured itself; where a finished probe needs a game that is to be played anew, which would have other
    players; and where a cell that is to be done needs players that are not there any more.
    """
    unplaced, wrong = partial(_unplaced, kept=_places(study)), dict[Cell, str]()
    for cell in study.cells():
        file = cell.folder(out) / SETTINGS[cell.kind]
        if cell.kind == "edits" or not (cell.done(out) or file.is_file()):
            continue
        if not file.is_file():
            raise cell.damaged(file, "it is missing")
        settings, stored = _settings(study, cell, out), read_settings(file)
        if isinstance(settings, Recipe) and cell.done(out):
            stored = _measured_as(settings, stored)
        if (difference := difference_of(settings, stored, unplaced)) is not None:
            wrong[cell] = difference
        elif cell.done(out) and (game := _unplayed(cell, out, wrong)) is not None:
            wrong[cell] = f"the {game} that it needs is to be played anew"
    if wrong:
        told = "".join(f"\n  {cell.folder(out)}: {why}" for cell, why in wrong.items())
        raise RunError(
            f"{plural(len(wrong), 'cell')} in {out} had other settings, so what they found does not belong "
            f"into this study. Choose another folder with --out, or delete these: they are done anew.{told}"
        )
    games, missing = out / PLACES["game"], dict[Path, str]()
    for cell in study.to_do(out):
        for player in _players(study, cell, out) if cell.kind == "probe" else ():
            folder = games / player.relative_to(games).parts[0]
            if (folder / DONE["game"]).is_file() and not player.is_dir():
                missing.setdefault(player, f"{cell} needs {player}, which is not kept: delete {folder}")
    if missing:
        told = "".join(f"\n  {why}" for why in missing.values())
        raise RunError(
            f"{plural(len(missing), 'player')} of finished games in {out} cannot be loaded any more. Choose "
            f"another folder with --out, or delete these games and the probes that need them: they are done "
            f"anew.{told}"
        )


def _settings(study: Study, cell: Cell, out: Path) -> Recipe | ProbeSettings:
    return study.recipe(cell.arm, cell.seed) if cell.kind == "game" else study.probe(cell, out)


def _unplayed(cell: Cell, out: Path, wrong: Collection[Cell] = ()) -> Cell | None:
    """A game that a cell needs and that is to be played. wrong: finished ones that are to be played anew."""
    games = (need for need in cell.needs if need.kind == "game")
    return next((game for game in games if game in wrong or not game.done(out)), None)


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
    before = _noted(file) if begun and file.is_file() else {}
    known = {name: digest for name, digest in digests.items() if name in before}
    require_unchanged(before, known, "study", out)
    if before | digests != before:
        write_json(file, before | digests)


def _noted(file: Path) -> dict[str, Any]:
    """The hashes that a study has noted. RunError where the file is damaged."""
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(noted, dict):
            return noted
        why = "a mapping is expected"
    except (OSError, ValueError) as error:
        why = str(error)
    raise RunError(
        f"{file} cannot be read ({why}). Bring that file here again; or delete it, where the files of "
        "questions are those that the study began with."
    )


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


def drop_stale(study: Study, out: Path, say: Callable[[str], None]) -> None:
    """Delete, and say so, edits and cells that are not done which could not be gone on with, so that they are
    made anew: those that were begun when the folder or the packages were elsewhere, or by a version that
    reads replies otherwise; those that have met the players of a game that is to be played anew; edits of
    other settings or questions. Edits that no probe waits for are let alone. Call it after `require_own`,
    which refuses what is of other settings otherwise.
    """
    left = {cell.seed for cell in study.cells() if cell.kind == "probe" and not cell.done(out)}
    for cell in study.cells():
        if cell.kind == "edits" and cell.seed not in left:
            continue
        file = cell.folder(out) / SETTINGS[cell.kind]
        if not file.is_file() or (cell.kind != "edits" and cell.done(out)):
            continue
        if (why := _stale(study, cell, out, read_settings(file))) is not None:
            say(f"{cell} is made anew: {why}")
            shutil.rmtree(cell.folder(out))


def _stale(study: Study, cell: Cell, out: Path, stored: dict[str, Any]) -> str | None:
    if not cell.done(out) and has_other_rules(cell.folder(out) / "ledger.sqlite"):
        return "its answers were read by other rules"
    if (game := _unplayed(cell, out)) is not None:
        return f"the {game} that it needs is to be played"
    if cell.kind == "edits" and not _made_for(study, cell, out):
        return "its questions are others"
    return difference_of(
        _settings(study, cell, out), stored, _what_made if cell.done(out) else lambda settings: settings
    )


def _what_made(settings: dict[str, Any]) -> dict[str, Any]:
    """Of the settings of edits, what they and their players' places depend on."""
    return {name: settings.get(name) for name in (*DECIDE, "defenders", "attackers")}


def _made_for(study: Study, cell: Cell, out: Path) -> bool:
    """Are the questions of these edits those of the baseline's recipe?"""
    wanted = study.recipes[study.settings.baseline].data.model_dump(mode="json")
    try:
        return bool(json.loads((cell.folder(out) / QUESTIONS).read_text(encoding="utf-8")) == wanted)
    except (OSError, ValueError):
        return False
