"""From what a person wrote on the command line to the checked settings of a supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.config import SftSettings
from sparring.data.errors import RecipeError
from sparring.recipes.borrow import Note, is_named, settled
from sparring.recipes.check import problems_of_sft
from sparring.recipes.load import load_recipe
from sparring.recipes.paths import resolve_file, resolve_model

SOURCE = "sft"
UNUSED = tuple(
    f"defender.{name}"
    for name in (
        *("interpolation", "final_interpolation", "optimizer_steps", "kl_weight"),
        *("consistency", "noisy", "text", "rollout_server", "overlong_cache"),
    )
)
"""What a recipe says of rewards, of sampled answers and of rounds, which fine-tuning has none of."""


def sft_settings(
    given: Sequence[tuple[str, Any]], *, recipe: str | None = None, changes: Sequence[str] = (), note: Note | None = None
) -> SftSettings:
    """Settings from (dotted field, value) pairs, where None means not given, on top of a recipe's Defender, under changes as `a.b=value`.

    From a recipe come the settings of its Defender, device and threads; not its data, not its seed, and
    nothing of rewards or rounds. note: is told what the recipe said of these. Model and file are resolved to
    absolute paths where they are on this disk. Raises RecipeError, naming every wrong field.
    """
    data: dict[str, Any] = {"defender": {}}
    if recipe is not None:
        found = load_recipe(recipe).model_dump(mode="json")
        data = {name: found[name] for name in ("device", "threads", "defender")}
    if not is_named("defender", data, given, changes):
        raise RecipeError("--defender is missing: name a folder or hub id, or a --recipe that names one.")
    settings = settled(
        data,
        [*given, ("defender.algorithm", "sft")],
        changes,
        SftSettings,
        problems_of_sft,
        verb=SOURCE,
        recipe=recipe,
        unused=UNUSED,
        note=note,
    )
    return settings.model_copy(
        update={
            "data": str(Path(settings.data).expanduser().absolute()),
            "images": resolve_file(settings.images),
            "defender": settings.defender.model_copy(update={"model": resolve_model(settings.defender.model)}),
        }
    )
