"""What a verb takes over from a recipe that was written for a whole game: all that it can use, and what it
cannot use is left out and said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sparring.config import ForgeSettings, Settings, SftSettings
from sparring.config.base import default_of, field_at
from sparring.data.errors import RecipeError
from sparring.recipes.check import problems_of_forge, problems_of_sft
from sparring.recipes.load import load_recipe, put, put_given, validate
from sparring.recipes.paths import resolve_file, resolve_model, resolve_stages

Kind = TypeVar("Kind", bound=Settings)
Note = Callable[[str], None]
FIELD = re.compile(r"((?:defender|attacker)(?:\.\w+)+):")
"""The field that a contradiction is about, where the recipe alone may have brought it: no model, and no
check of an edit."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a user said of a verb's settings: (dotted field, value) pairs, where None means not given, and
    `a.b=value` changes.
    """

    given: Sequence[tuple[str, Any]]
    changes: Sequence[str] = ()

    @property
    def fields(self) -> list[str]:
        """The dotted fields that were spoken of."""
        named = [field for field, value in self.given if value is not None]
        return named + [change.partition("=")[0].strip() for change in self.changes]


def settled(
    data: dict[str, Any],
    said: Said,
    kind: type[Kind],
    problems: Callable[[Kind], Iterator[str]],
    *,
    verb: str,
    recipe: str | None,
    unused: Sequence[str] = (),
    note: Note | None = None,
) -> Kind:
    """The settings of a verb: `data`, which came from a recipe, under what the user said.

    A setting that only the recipe has said goes back to its default where it is among `unused`, or where it
    contradicts what the user asked for. note: is told of all these. Raises RecipeError, naming every wrong
    field, for contradictions that the user brought.
    """
    told = said.fields
    left = [
        field
        for field in unused
        if recipe is not None and not _told(field, told) and _reset(data, field, kind)
    ]
    put_given(data, said.given)
    for change in said.changes:
        put(data, change, kind)
    settings = validate(data, verb, kind)
    while found := list(problems(settings)):
        fields = {
            match[1] for problem in found if (match := FIELD.match(problem)) and not _told(match[1], told)
        }
        gone = [field for field in sorted(fields) if recipe is not None and _reset(data, field, kind)]
        if not gone:
            raise RecipeError("\n".join(f"{verb}: {problem}" for problem in found))
        left += gone
        settings = validate(data, verb, kind)
    if left and note is not None:
        note(f"{verb} has no use for these settings of {recipe} and leaves them out: {', '.join(left)}.")
    return settings


def is_named(player: str, data: dict[str, Any], said: Said) -> bool:
    """Does the recipe or the user say which model this player is?"""
    return bool(data.get(player, {}).get("model")) or f"{player}.model" in said.fields


def _told(field: str, told: Sequence[str]) -> bool:
    """The user spoke of this field, of one below it or of one above it."""
    return any(f"{field}.".startswith(f"{name}.") or f"{name}.".startswith(f"{field}.") for name in told)


def _reset(data: dict[str, Any], field: str, kind: type[Settings]) -> bool:
    """Take a setting out, so that its default holds. False where it has none, or where it held before."""
    *above, last = field.split(".")
    place: Any = data
    for name in above:
        place = place.get(name) if isinstance(place, dict) else None
    info = field_at(kind, [*above, last], data)
    if not isinstance(place, dict) or last not in place or info is None or info.is_required():
        return False
    default = default_of(info)
    same = place.pop(last) == (default.model_dump(mode="json") if isinstance(default, Settings) else default)
    return not same


BORROWED = ("attacker", "defender", "judge", "device")


def forge_settings(
    given: Sequence[tuple[str, Any]], *, recipe: str, changes: Sequence[str] = (), note: Note | None = None
) -> ForgeSettings:
    """Settings from (field, value) pairs, where None means not given, on top of a recipe's stages and
    players, under changes as `a.b=value`.

    note: is told what of the recipe does not go with what else was given, and is left out. Models and files
    are resolved to absolute paths where they are on this disk. Raises RecipeError, naming every wrong field.
    """
    found = load_recipe(recipe).model_dump(mode="json")
    data: dict[str, Any] = {name: found[name] for name in BORROWED} | {"stages": found["forge"]}
    settings = settled(
        data, Said(given, changes), ForgeSettings, problems_of_forge, verb="forge", recipe=recipe, note=note
    )
    return _with_absolute_paths(settings)


def _with_absolute_paths(settings: ForgeSettings) -> ForgeSettings:
    players = {part: getattr(settings, part) for part in ("attacker", "defender", "judge")}
    resolved = {
        part: own.model_copy(update={"model": own.model and resolve_model(own.model)})
        for part, own in players.items()
    }
    files = {"data": resolve_file(settings.data), "images": resolve_file(settings.images)}
    return settings.model_copy(update=files | resolved | {"stages": resolve_stages(settings.stages)})


UNUSED = tuple(
    f"defender.{name}"
    for name in (
        *("interpolation", "final_interpolation", "optimizer_steps", "kl_weight"),
        *("consistency", "noisy", "text", "rollout_server", "overlong_cache"),
    )
)
"""What a recipe says of rewards, of sampled answers and of rounds, which fine-tuning has none of."""


def sft_settings(
    given: Sequence[tuple[str, Any]],
    *,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    note: Note | None = None,
) -> SftSettings:
    """Settings from (dotted field, value) pairs, where None means not given, on top of a recipe's Defender,
    under changes as `a.b=value`.

    From a recipe come the settings of its Defender, device and threads; not its data, not its seed, and
    nothing of rewards or rounds. note: is told what the recipe said of these. Model and file are resolved to
    absolute paths where they are on this disk. Raises RecipeError, naming every wrong field.
    """
    data: dict[str, Any] = {"defender": {}}
    if recipe is not None:
        found = load_recipe(recipe).model_dump(mode="json")
        data = {name: found[name] for name in ("device", "threads", "defender")}
    if data["defender"].get("algorithm", {}).get("type") != "sft":
        data["defender"]["algorithm"] = "sft"
    said = Said(given, changes)
    if not is_named("defender", data, said):
        raise RecipeError("--defender is missing: name a folder or hub id, or a --recipe that names one.")
    settings = settled(
        data, said, SftSettings, problems_of_sft, verb="sft", recipe=recipe, unused=UNUSED, note=note
    )
    return settings.model_copy(
        update={
            "data": str(Path(settings.data).expanduser().absolute()),
            "images": resolve_file(settings.images),
            "defender": settings.defender.model_copy(
                update={"model": resolve_model(settings.defender.model)}
            ),
        }
    )
