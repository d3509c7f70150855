"""From what a person wrote on the command line to the checked settings of a forge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.config import ForgeSettings, PainterSettings
from sparring.data.errors import RecipeError
from sparring.forge.painters.loading import PLAIN
from sparring.recipes.check import problems_of_forge
from sparring.recipes.load import load_recipe, put, resolve_model, validate

SOURCE = "forge"
BORROWED = ("attacker", "defender", "judge", "device")


def forge_settings(given: Sequence[tuple[str, Any]], *, recipe: str, changes: Sequence[str] = ()) -> ForgeSettings:
    """Settings from (field, value) pairs, where None means not given, on top of a recipe's stages and players, under changes as `a.b=value`.

    Models and files are resolved to absolute paths where they are on this disk. Raises RecipeError, naming every wrong field.
    """
    found = load_recipe(recipe).model_dump(mode="json")
    data: dict[str, Any] = {name: found[name] for name in BORROWED} | {"stages": found["forge"]}
    data |= {field: value for field, value in given if value is not None}
    for change in changes:
        put(data, change)
    settings = validate(data, SOURCE, ForgeSettings)
    problems = list(problems_of_forge(settings))
    if problems:
        raise RecipeError("\n".join(f"{SOURCE}: {problem}" for problem in problems))
    return _with_absolute_paths(settings)


def _with_absolute_paths(settings: ForgeSettings) -> ForgeSettings:
    def file(name: str | None) -> str | None:
        return None if name is None else str(Path(name).expanduser().absolute())

    def model(name: str | None) -> str | None:
        return None if name is None else resolve_model(name)

    def painter(own: PainterSettings | None) -> PainterSettings | None:
        if own is None:
            return None
        kind, _, folder = own.model.partition(":")
        if kind in PLAIN:
            return own.model_copy(update={"model": f"{kind}:{file(folder)}" if folder else kind})
        return own.model_copy(update={"model": model(own.model), "transformer": model(own.transformer)})

    stages = settings.stages
    stages = stages.model_copy(
        update={
            "painter": painter(stages.painter),
            "extend": stages.extend.model_copy(update={"painter": painter(stages.extend.painter)}),
            "propose": stages.propose.model_copy(update={"model": model(stages.propose.model)}),
            "panel": stages.panel.model_copy(update={"templates": file(stages.panel.templates)}),
        }
    )
    players = {part: getattr(settings, part) for part in ("attacker", "defender", "judge")}
    resolved = {part: own.model_copy(update={"model": model(own.model)}) for part, own in players.items()}
    return settings.model_copy(update={"data": file(settings.data), "images": file(settings.images), "stages": stages, **resolved})
