"""From what a person wrote on the command line to the checked settings of a supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.config import SftSettings
from sparring.data.errors import RecipeError
from sparring.recipes.check import problems_of_sft
from sparring.recipes.load import load_recipe, put, put_given, validate
from sparring.recipes.paths import resolve_file, resolve_model

SOURCE = "sft"
UNFIT: dict[str, Any] = {"interpolation": 1.0, "kl_weight": 0.0, "consistency": {}}
"""What a recipe says of its Defender that has no part in fine-tuning."""


def sft_settings(given: Sequence[tuple[str, Any]], *, recipe: str | None = None, changes: Sequence[str] = ()) -> SftSettings:
    """Settings from (dotted field, value) pairs, where None means not given, on top of a recipe's Defender, under changes as `a.b=value`.

    From a recipe come the settings of its Defender, device and threads; not its data, not its seed, and nothing of rewards or rounds. Model and file are resolved to absolute paths
    where they are on this disk. Raises RecipeError, naming every wrong field.
    """
    data: dict[str, Any] = {}
    if recipe is not None:
        found = load_recipe(recipe).model_dump(mode="json")
        data = {name: found[name] for name in ("device", "threads")} | {"defender": found["defender"] | UNFIT}
    put_given(data, [*given, ("defender.algorithm", "sft")])
    for change in changes:
        put(data, change)
    if not data["defender"].get("model"):
        raise RecipeError("--defender is missing: name a folder or hub id, or a --recipe that names one.")
    settings = validate(data, SOURCE, SftSettings)
    problems = list(problems_of_sft(settings))
    if problems:
        raise RecipeError("\n".join(f"{SOURCE}: {problem}" for problem in problems))
    return settings.model_copy(
        update={
            "data": str(Path(settings.data).expanduser().absolute()),
            "images": resolve_file(settings.images),
            "defender": settings.defender.model_copy(update={"model": resolve_model(settings.defender.model)}),
        }
    )
