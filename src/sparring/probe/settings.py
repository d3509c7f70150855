"""From what a person wrote on the command line to the checked settings of a probe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.attackers.rivals.load import ON_EDITOR, split_lora, split_rival
from sparring.config import ProbeSettings
from sparring.data.errors import RecipeError
from sparring.data.records import LONGEST_REPLY
from sparring.engine.calls import absolute_data
from sparring.models.vlms.address import is_endpoint
from sparring.recipes.borrow import Note, Said, is_named, settled
from sparring.recipes.check import problems_of_probe
from sparring.recipes.load import load_recipe
from sparring.recipes.paths import resolve_file, resolve_model
from sparring.seeds import derive_seed

ADAPTIVE = "adaptive"
"""Name of the Attackers that a probe trains."""
AGAIN = "asked again"
"""Name of the control that shows a picture as it was."""
SHARED = "edits.json"
"""The file of a folder of edits that several probes share which is written last."""
DECIDE = ("data", "seed", "device", "batch", "samples", "attacker", "judge", "audit")
"""Settings that, with an attacker's specification, decide what its edits are and what the checks say."""
NAMED = re.compile(r"([A-Za-z0-9 _.-]+)=(.+)", re.DOTALL)


def probe_settings(
    given: Sequence[tuple[str, Any]],
    defenders: Sequence[str],
    attackers: Sequence[str],
    *,
    verb: str = "probe",
    recipe: str | None = None,
    changes: Sequence[str] = (),
    note: Note | None = None,
) -> ProbeSettings:
    """Settings from (dotted field, value) pairs, where None means not given, on top of a recipe's players,
    under changes as `a.b=value`.

    defenders, attackers: each `NAME=SPEC` or a specification alone, which then gets a telling name. verb: an
    "attack" is made by the recipe's editor where no attacker is given. From a recipe come prompt, editor,
    checks, audit, the words of the text conditions, device and threads; its Defender only where none is
    given. How editors edit is told by the first attacker that is one, where neither recipe nor user names an
    editor. note: is told what of the recipe does not go with what else was given, and is left out. Raises
    RecipeError, naming every wrong field.
    """
    data: dict[str, Any] = {"defender": {"max_new_tokens": LONGEST_REPLY}}
    if recipe is not None:
        found = load_recipe(recipe).model_dump(mode="json")
        data = {name: found[name] for name in ("attacker", "defender", "judge", "device", "threads")}
        data |= {"audit": found["evaluation"]["audit"], "conditions": found["evaluation"]["conditions"]}
    if verb == "attack" and not (attackers or is_named("attacker", data, Said(given, changes))):
        raise RecipeError("--attacker is missing: name a folder or hub id, or a --recipe that names one.")
    named = _named(defenders or ([found["defender"]["model"]] if recipe is not None else []), "defender")
    if not named:
        raise RecipeError(
            "--defender is missing: name a folder, hub id or endpoint, or a --recipe that names one."
        )
    data["defenders"] = {
        name: spec if is_endpoint(spec) else resolve_model(spec) for name, spec in named.items()
    }
    data["attackers"] = {
        name: absolute_attacker(spec, f"attackers.{name}", verb)
        for name, spec in _named(attackers, "attacker").items()
    }
    said = Said([*given, ("defender.model", next(iter(data["defenders"].values())))], changes)
    editors = [editor for spec in data["attackers"].values() if (editor := split_rival(spec)[1]) is not None]
    if editors and not is_named("attacker", data, said):
        data["attacker"] = {"model": split_lora(editors[0])[0]}
    settings = settled(data, said, ProbeSettings, problems_of_probe, verb=verb, recipe=recipe, note=note)
    if verb == "attack" and not settings.attackers and settings.attacker is not None:
        spec = absolute_attacker(settings.attacker.model, "attacker.model", verb)
        settings = settings.model_copy(update={"attackers": {telling_name(spec): spec}})
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


def slug(name: str) -> str:
    """A name as a folder; different names give different ones."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
    return plain if plain == name else f"{plain}-{derive_seed(name) % 16**6:06x}"


def takes_gradients(spec: str) -> bool:
    """The attacker is made against one Defender, by its gradients."""
    return (split_rival(spec)[0] or "").split(":")[0] == "pgd"


def absolute_attacker(spec: str, field: str, source: str) -> str:
    """An Attacker's specification with its folders as absolute paths. RecipeError, naming the field, for a
    rival that lacks an editor or takes none.
    """
    rival, editor = split_rival(spec)
    needs = rival is not None and rival.split(":")[0] in ON_EDITOR
    if rival is not None and needs != (editor is not None):
        raise RecipeError(
            f"{source}: {field}: {rival} "
            + ("needs an editor: RIVAL@EDITOR." if needs else "takes no editor, so there is no @.")
        )
    return "@".join(
        part
        for part in (rival, _absolute(editor, field, source) if editor is not None else None)
        if part is not None
    )


def _absolute(spec: str, field: str, source: str) -> str:
    editor, lora = split_lora(spec)
    folder = Path(lora).expanduser() if lora is not None else None
    if folder is not None and not folder.exists():
        raise RecipeError(
            f"{source}: {field}: the LoRA {lora} is no folder and no file. A run keeps its Attackers as "
            f"RUN/round1/attacker/editor."
        )
    return resolve_model(editor) + (f"+{folder.resolve()}" if folder is not None else "")


def _with_absolute_paths(settings: ProbeSettings) -> ProbeSettings:
    judge, attacker = settings.judge, settings.attacker
    return settings.model_copy(
        update={
            "data": absolute_data(settings.data),
            "images": resolve_file(settings.images),
            "adapt_data": resolve_file(settings.adapt_data),
            "attacker": None
            if attacker is None
            else attacker.model_copy(update={"model": resolve_model(attacker.model)}),
            "judge": judge
            if judge.model is None
            else judge.model_copy(update={"model": resolve_model(judge.model)}),
            "reasoning_judges": tuple(resolve_model(name) for name in settings.reasoning_judges),
        }
    )
