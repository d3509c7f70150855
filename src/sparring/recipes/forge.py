"""From what a person wrote on the command line to the checked settings of a forge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparring.config import ForgeSettings
from sparring.recipes.borrow import Note, settled
from sparring.recipes.check import problems_of_forge
from sparring.recipes.load import load_recipe
from sparring.recipes.paths import resolve_file, resolve_model, resolve_stages

SOURCE = "forge"
BORROWED = ("attacker", "defender", "judge", "device")


def forge_settings(
    given: Sequence[tuple[str, Any]], *, recipe: str, changes: Sequence[str] = (), note: Note | None = None
) -> ForgeSettings:
    """Settings from (field, value) pairs, where None means not given, on top of a recipe's stages and players, under changes as `a.b=value`.

    note: is told what of the recipe does not go with what else was given, and is left out. Models and files
    are resolved to absolute paths where they are on this disk. Raises RecipeError, naming every wrong field.
    """
    found = load_recipe(recipe).model_dump(mode="json")
    data: dict[str, Any] = {name: found[name] for name in BORROWED} | {"stages": found["forge"]}
    settings = settled(data, given, changes, ForgeSettings, problems_of_forge, verb=SOURCE, recipe=recipe, note=note)
    return _with_absolute_paths(settings)


def _with_absolute_paths(settings: ForgeSettings) -> ForgeSettings:
    players = {part: getattr(settings, part) for part in ("attacker", "defender", "judge")}
    resolved = {part: own.model_copy(update={"model": own.model and resolve_model(own.model)}) for part, own in players.items()}
    files = {"data": resolve_file(settings.data), "images": resolve_file(settings.images)}
    return settings.model_copy(update=files | resolved | {"stages": resolve_stages(settings.stages)})
