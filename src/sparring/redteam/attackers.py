"""Who attacks: the one place where an Attacker is made from what a person wrote (`load_attacker`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from sparring.attackers.rivals import Rival, load_rival
from sparring.config import AttackerSettings, DefenderSettings
from sparring.data.errors import RecipeError
from sparring.evaluation.victim import victim_of
from sparring.models.editors import FlowEditor
from sparring.models.players import load_attacking_editor
from sparring.models.vlms.base import VLM
from sparring.models.vlms.local import LocalVLM
from sparring.redteam.spec import split_lora, split_rival


def load_attacker(settings: AttackerSettings, device: torch.device, defender: Callable[[], tuple[VLM, DefenderSettings]]) -> Rival:
    """The Attacker that `settings.model` names: an editor's folder or hub id, one with a LoRA's folder, `EDITOR+LORA`, or a rival that nobody trains.

    defender: gives the Defender; called for a rival that takes its gradients. An editor's edits are those of held-out play in a run with the same seed.
    Raises ModelError where it cannot be loaded, RecipeError for a rival that is not known or lacks what it needs.
    """
    rival, spec = split_rival(settings.model)
    editor, name = (None, "") if spec is None else _load_editor(spec, settings, device)
    if rival is None:
        return load_rival("editor", editor=editor, attacker=settings, name=name)
    victim = None
    if rival.split(":")[0] == "pgd":
        vlm, asked = defender()
        if not isinstance(vlm, LocalVLM):
            raise RecipeError(
                f'attacker "{rival}" takes the gradients of the Defender, and an endpoint gives none. Name a Defender\'s folder or hub id.'
            )
        victim = victim_of(vlm, asked)
    return load_rival(rival, victim=victim, editor=editor, attacker=settings)


def _load_editor(spec: str, settings: AttackerSettings, device: torch.device) -> tuple[FlowEditor, str]:
    path, lora = split_lora(spec)
    editor = load_attacking_editor(path, settings, device)
    if lora is None:
        return editor, Path(path).name
    editor.load_lora(lora)
    return editor, f"{Path(path).name}+{_telling(Path(lora))}"


def _telling(folder: Path) -> str:
    """A run keeps its Attackers as `RUN/round3/attacker/editor`: the round says more than the last two names."""
    names = [name for name in folder.parts if name not in ("attacker", "editor")]
    return names[-1] if names else folder.name
