"""Where the models and files are that settings name: absolute paths, so that what was begun can be resumed
from any directory.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparring.config import ForgeStages, PainterSettings, Recipe
from sparring.forge.painters import PLAIN

GROUP = "sparring.models"
"""The entry points by which an installed package offers a folder of models: a name, and the package that is
that folder."""


def packaged_models() -> dict[str, Path]:
    """The folders of models that installed packages offer, by the name that a path begins with."""
    found = {}
    for point in entry_points(group=GROUP):
        spec = find_spec(point.value)
        if spec is not None and spec.submodule_search_locations:
            found[point.name] = Path(next(iter(spec.submodule_search_locations)))
    return found


def resolve_model(name: str) -> str:
    """Where a model named by a recipe is: an absolute path if it is on this disk, else the name as it is.

    A relative path is looked for in the current directory and then among the models of installed packages:
    `arena/defender`, `arena/editor` and `arena/judge` are the bundled players wherever `sparring-arena` is.
    Anything that is found in neither is a hub id (`Qwen/Qwen2.5-VL-7B-Instruct`) or a path that is missing;
    `sparring.plan.find_model` tells which.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if path.is_absolute() or len(path.parts) < 2:
        return name
    folder = packaged_models().get(path.parts[0])
    # where there is such a folder, never a hub id: an error should name the place where it was looked for
    return name if folder is None else str(folder.joinpath(*path.parts[1:]).resolve())


def resolve_file(name: str | None, folder: Path = Path()) -> str | None:
    """The absolute path of a file, which is looked for in the current directory and then in `folder`."""
    if name is None:
        return None
    path = Path(name).expanduser()
    found = path if path.exists() or not (folder / path).exists() else folder / path
    return str(found.absolute())


def with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe, which was read from a file in `folder`, with its models and files resolved."""
    data = recipe.data.model_copy(
        update={
            name: resolve_file(getattr(recipe.data, name), folder)
            for name in ("path", "held_out_path", "images")
        }
    )
    players: dict[str, Any] = {}
    for part in ("attacker", "defender", "judge"):
        settings = getattr(recipe, part)
        players[part] = (
            settings
            if settings.model is None
            else settings.model_copy(update={"model": resolve_model(settings.model)})
        )
    consistency = recipe.defender.consistency
    if consistency.model is not None:
        resolved = consistency.model_copy(update={"model": resolve_model(consistency.model)})
        players["defender"] = players["defender"].model_copy(update={"consistency": resolved})
    return recipe.model_copy(update={"data": data, "forge": resolve_stages(recipe.forge, folder), **players})


def resolve_stages(stages: ForgeStages, folder: Path = Path()) -> ForgeStages:
    """The stages of a forge with their models and files resolved."""

    def model(name: str | None) -> str | None:
        return None if name is None else resolve_model(name)

    def painter(own: PainterSettings | None) -> PainterSettings | None:
        if own is None:
            return None
        kind, _, cut_outs = own.model.partition(":")
        if kind in PLAIN:
            return own.model_copy(
                update={"model": f"{kind}:{resolve_file(cut_outs, folder)}" if cut_outs else kind}
            )
        return own.model_copy(update={"model": model(own.model), "transformer": model(own.transformer)})

    return stages.model_copy(
        update={
            "painter": painter(stages.painter),
            "extend": stages.extend.model_copy(update={"painter": painter(stages.extend.painter)}),
            "propose": stages.propose.model_copy(update={"model": model(stages.propose.model)}),
            "panel": stages.panel.model_copy(
                update={"templates": resolve_file(stages.panel.templates, folder)}
            ),
        }
    )
