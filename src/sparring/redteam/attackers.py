"""Who attacks: the one place where an Attacker is made from what a person wrote (`load_attacker`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from sparring.asking.answers import parse_answer
from sparring.asking.prompts import render_prompt
from sparring.attackers.rivals import Rival, check_rival, load_rival
from sparring.attackers.rivals.load import split_lora, split_rival
from sparring.attackers.rivals.pgd import Victim, require_gradients
from sparring.config import AttackerSettings, DefenderSettings
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion
from sparring.models.editors import FlowEditor, check_editor
from sparring.models.players import load_attacking_editor
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.base import VLM, local_weights
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.processors import load_processor

# Opponents that nobody trains (`sparring.attackers.rivals`); those of `ON_EDITOR` edit with an editor, which
# is named behind an @. A function of the user's own is a rival too.
NO_GRADIENTS = (
    'attacker "{rival}" takes the gradients of the Defender, and an endpoint gives none. Name a '
    "Defender's folder or hub id."
)


def check_attacker(settings: AttackerSettings, defender: DefenderSettings) -> None:
    """Would `load_attacker` have this Attacker? Found out from names, headers and configurations, before
    anybody is asked or paid for anything.

    Errors as for `load_attacker`; DataError where a rival's own files are not there.
    """
    rival, spec = split_rival(settings.model)
    if spec is not None:
        check_editor(*split_lora(spec), settings.family)
    if rival is None:
        return
    check_rival(rival)
    if rival.split(":")[0] == "pgd":
        if is_endpoint(defender.model):
            raise RecipeError(NO_GRADIENTS.format(rival=rival))
        processor = load_processor(
            defender.model, min_pixels=defender.min_pixels, max_pixels=defender.max_pixels
        )
        require_gradients(processor, defender.model)


def load_attacker(
    settings: AttackerSettings, device: torch.device, defender: Callable[[], tuple[VLM, DefenderSettings]]
) -> Rival:
    """The Attacker that `settings.model` names: an editor's folder or hub id, one with a LoRA's folder,
    `EDITOR+LORA`, or a rival that nobody trains.

    defender: gives the Defender; called for a rival that takes its gradients. An editor's edits are those of
    held-out play in a run with the same seed. Raises ModelError where it cannot be loaded, RecipeError for a
    rival that is not known or lacks what it needs.
    """
    rival, spec = split_rival(settings.model)
    editor, name = (None, "") if spec is None else _load_editor(spec, settings, device)
    if rival is None:
        return load_rival("editor", editor=editor, attacker=settings, name=name)
    victim = None
    if rival.split(":")[0] == "pgd":
        vlm, asked = defender()
        victim = victim_of(local_weights(vlm, RecipeError(NO_GRADIENTS.format(rival=rival))), asked)
    return load_rival(rival, victim=victim, editor=editor, attacker=settings)


def _load_editor(spec: str, settings: AttackerSettings, device: torch.device) -> tuple[FlowEditor, str]:
    path, lora = split_lora(spec)
    editor = load_attacking_editor(path, settings, device)
    if lora is None:
        return editor, Path(path).name
    editor.load_lora(lora, must_change=True)
    return editor, f"{Path(path).name}+{_telling(Path(lora))}"


def _telling(folder: Path) -> str:
    """A run keeps its Attackers as `RUN/round3/attacker/editor`: the round says more than the last
    two names.
    """
    names = [name for name in folder.parts if name not in ("attacker", "editor")]
    return names[-1] if names else folder.name


def victim_of(vlm: LocalVLM, settings: DefenderSettings) -> Victim:
    """The Defender with its prompt, its reply's length and its parsing rules."""

    def right(question: VisualQuestion, reply: str) -> bool:
        return parse_answer(reply, question.options)[0] == question.answer

    return Victim(
        vlm, lambda question: render_prompt(question, settings.prompt), right, settings.max_new_tokens
    )
