"""What of a study's folder is its own, and what may go: finished cells without what no cell that is left, and
no figure, needs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sparring.data.errors import RunError
from sparring.engine.folder import difference_of, read_settings
from sparring.probe.settings import SHARED
from sparring.recipes.paths import packaged_models
from sparring.study.plan import Cell, Study

KEPT = {
    "game": ("recipe.yaml", "summary.json"),
    "edits": (SHARED,),  # what they took
    "probe": ("probe.yaml", "outcomes.json", "results.json", "table.md"),
}
"""Kind of a cell -> the files of a finished one that stay, for figures and to tell whose they are."""


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
    """Raise RunError, naming the cell, where a finished game or probe has other settings than this study's,
    wherever its folder and the packages were when they were begun.
    """
    packages = ("/".join(folder.parts[-2:]) for folder in packaged_models().values())
    unplaced = partial(_unplaced, kept="|".join(map(re.escape, ("games", "edits", *packages))))
    for cell in study.cells():
        if cell.kind == "edits" or not cell.done(out):
            continue
        settings = study.recipe(cell.arm, cell.seed) if cell.kind == "game" else study.probe(cell, out)
        stored = read_settings(cell.folder(out) / ("recipe.yaml" if cell.kind == "game" else "probe.yaml"))
        if (difference := difference_of(settings, stored, unplaced)) is not None:
            raise RunError(
                f"{cell} was done with other settings ({difference}), so its figures do not belong into this "
                f"study. Choose another folder with --out, or delete {cell.folder(out)}: it is done anew."
            )


def _unplaced(value: Any, kept: str) -> Any:
    """Settings in which files of a study's folder, and models of packages, are named from there. kept: what
    such a path goes on with.
    """
    if isinstance(value, dict):
        return {key: _unplaced(inner, kept) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_unplaced(inner, kept) for inner in value]
    return re.sub(rf"/[^+@]*/({kept})/", r"\1/", value) if isinstance(value, str) else value


def drop_moved(study: Study, out: Path) -> None:
    """Delete edits, and probes that are not done, whose questions or players are named by other paths than
    now: the folder was elsewhere when they were begun. Both are made anew.
    """
    for cell in study.cells():
        file = cell.folder(out) / "probe.yaml"
        if cell.kind == "game" or not file.is_file() or (cell.kind == "probe" and cell.done(out)):
            continue
        stored, now = read_settings(file), study.probe(cell, out).model_dump(mode="json")
        if any(stored.get(name) != now[name] for name in ("data", "defenders", "attackers")):
            shutil.rmtree(cell.folder(out))
