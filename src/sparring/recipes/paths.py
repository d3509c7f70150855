"""Where the models and files are that settings name: absolute paths, so that what was begun can be resumed
from any directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparring.config import ForgeStages, PainterSettings, Recipe
from sparring.forge.painters import PLAIN

PACKAGE = Path(__file__).parent.parent


def resolve_model(name: str) -> str:
    """Where a model named by a recipe is: an absolute path if it is on this disk, else the name as it is.

    A relative path is looked for in the current directory and then in the installed package, so that
    `zoo/defender`, `zoo/editor` and `zoo/judge` are the bundled players wherever Sparring is installed.
    Anything that is found in neither is a hub id (`Qwen/Qwen2.5-VL-7B-Instruct`) or a path that is missing;
    `sparring.plan.find_model` tells which.
    """
    path = Path(name).expanduser()
    for candidate in (path, PACKAGE / path):
        if candidate.is_dir():
            return str(candidate.resolve())
    # never a hub id: the error that follows should name the place where it was looked for
    if path.parts[:1] == ("zoo",):
        return str(PACKAGE / path)
    return name


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
