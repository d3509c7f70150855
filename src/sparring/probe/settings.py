"""From what a person wrote on the command line to the checked settings of a probe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.attackers.rivals.load import split_rival
from sparring.config import ProbeSettings
from sparring.data.errors import RecipeError
from sparring.engine.calls import absolute_data
from sparring.models.vlms.address import is_endpoint
from sparring.recipes.borrow import Note, Said, settled
from sparring.recipes.check import problems_of_probe
from sparring.recipes.load import load_recipe
from sparring.recipes.paths import resolve_model
from sparring.redteam.settings import absolute_attacker

SOURCE = "probe"
NAMED = re.compile(r"([A-Za-z0-9 _.-]+)=(.+)", re.DOTALL)


def probe_settings(
    given: Sequence[tuple[str, Any]],
    defenders: Sequence[str],
    attackers: Sequence[str],
    *,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    note: Note | None = None,
) -> ProbeSettings:
    """Settings from (dotted field, value) pairs, where None means not given, on top of a recipe's players,
    under changes as `a.b=value`.

    defenders, attackers: each `NAME=SPEC` or a specification alone, which then gets a telling name. From a
    recipe come prompt, editor, checks, audit, the words of the text conditions, device and threads; its
    Defender only where none is given. note: is told what of the recipe does not go with what else was given,
    and is left out. Raises RecipeError, naming every wrong field.
    """
    data: dict[str, Any] = {}
    if recipe is not None:
        found = load_recipe(recipe).model_dump(mode="json")
        data = {name: found[name] for name in ("attacker", "defender", "judge", "device", "threads")}
        data |= {"audit": found["evaluation"]["audit"], "conditions": found["evaluation"]["conditions"]}
    named = _named(defenders or ([found["defender"]["model"]] if recipe is not None else []), "defender")
    if not named:
        raise RecipeError(
            "--defender is missing: name a folder, hub id or endpoint, or a --recipe that names one."
        )
    data["defenders"] = {
        name: spec if is_endpoint(spec) else resolve_model(spec) for name, spec in named.items()
    }
    data["attackers"] = {
        name: absolute_attacker(spec, f"attackers.{name}", SOURCE)
        for name, spec in _named(attackers, "attacker").items()
    }
    first = ("defender.model", next(iter(data["defenders"].values())))
    settings = settled(
        data,
        Said([*given, first], changes),
        ProbeSettings,
        problems_of_probe,
        verb=SOURCE,
        recipe=recipe,
        note=note,
    )
    return _with_absolute_paths(settings)


def _named(specs: Sequence[str], player: str) -> dict[str, str]:
    """Name -> specification, in the order given."""
    named: dict[str, str] = {}
    for text in specs:
        match = NAMED.fullmatch(text)
        name, spec = (match[1].strip(), match[2]) if match else (telling_name(text), text)
        if name in named:
            raise RecipeError(
                f'--{player}: two are called "{name}". Give them names: --{player} NAME={spec}.'
            )
        named[name] = spec
    return named


def telling_name(spec: str) -> str:
    """What tells one player from another: a rival's own words, an endpoint's model, of a path the last part
    that is no usual folder name.
    """
    if is_endpoint(spec):
        return spec.partition("#")[2] or spec
    rival, _ = split_rival(spec)
    if rival is not None:
        return rival
    parts = [part for part in re.split(r"[/+]", spec) if part]
    telling = [part for part in parts if part not in ("attacker", "defender", "editor", "model")]
    return telling[-1] if telling and telling[-1] not in ("arena", "players") else parts[-1]


def _with_absolute_paths(settings: ProbeSettings) -> ProbeSettings:
    def file(name: str | None) -> str | None:
        return None if name is None else str(Path(name).expanduser().absolute())

    judge, attacker = settings.judge, settings.attacker
    return settings.model_copy(
        update={
            "data": absolute_data(settings.data),
            "images": file(settings.images),
            "adapt_data": file(settings.adapt_data),
            "attacker": None
            if attacker is None
            else attacker.model_copy(update={"model": resolve_model(attacker.model)}),
            "judge": judge
            if judge.model is None
            else judge.model_copy(update={"model": resolve_model(judge.model)}),
            "reasoning_judges": tuple(resolve_model(name) for name in settings.reasoning_judges),
        }
    )
