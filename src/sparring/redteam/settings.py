"""From what a person wrote on the command line to the checked settings of an attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.attackers.rivals.load import ON_EDITOR, split_lora, split_rival
from sparring.config import AttackSettings
from sparring.data.errors import RecipeError
from sparring.recipes.borrow import Note, Said, is_named, settled
from sparring.recipes.check import problems_of_attack
from sparring.recipes.load import load_recipe
from sparring.recipes.paths import resolve_file, resolve_model

SOURCE = "attack"
BORROWED = ("attacker", "defender", "judge")


def attack_settings(
    given: Sequence[tuple[str, Any]],
    *,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    note: Note | None = None,
) -> AttackSettings:
    """Settings from (dotted field, value) pairs, where None means not given, on top of a recipe's players,
    under changes as `a.b=value`.

    From a recipe come the settings of its Attacker, Defender and judge, its audit, device and threads; not
    its data and not its seed. note: is told what of the recipe does not go with what else was given, and is
    left out. Models and files are resolved to absolute paths where they are on this disk. Raises
    RecipeError, naming every wrong field.
    """
    data: dict[str, Any] = {}
    if recipe is not None:
        found = load_recipe(recipe).model_dump(mode="json")
        data = {name: found[name] for name in (*BORROWED, "device", "threads")} | {
            "audit": found["evaluation"]["audit"]
        }
    said = Said(given, changes)
    for player in ("attacker", "defender"):
        if not is_named(player, data, said):
            raise RecipeError(
                f"--{player} is missing: name a folder or hub id, or a --recipe that names one."
            )
    settings = settled(data, said, AttackSettings, problems_of_attack, verb=SOURCE, recipe=recipe, note=note)
    return _with_absolute_paths(settings)


def _with_absolute_paths(settings: AttackSettings) -> AttackSettings:
    judge = settings.judge.model
    return settings.model_copy(
        update={
            "data": str(Path(settings.data).expanduser().absolute()),
            "images": resolve_file(settings.images),
            "attacker": settings.attacker.model_copy(
                update={"model": absolute_attacker(settings.attacker.model, "attacker.model", SOURCE)}
            ),
            "defender": settings.defender.model_copy(
                update={"model": resolve_model(settings.defender.model)}
            ),
            "judge": settings.judge.model_copy(
                update={"model": judge if judge is None else resolve_model(judge)}
            ),
        }
    )


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
    if folder is not None and not folder.is_dir():
        raise RecipeError(
            f"{source}: {field}: the LoRA {lora} is no folder. A run keeps its Attackers as "
            f"RUN/round1/attacker/editor."
        )
    return resolve_model(editor) + (f"+{folder.resolve()}" if folder is not None else "")
