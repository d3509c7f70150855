"""Who attacks: the one place where an Attacker is made from what a person wrote (`load_attacker`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL.Image import Image

from sparring.attackers.rollout import deterministic_edits
from sparring.config import AttackerSettings
from sparring.data.records import Edit, VisualQuestion
from sparring.models.editors import FlowEditor, load_editor
from sparring.redteam.spec import split_lora
from sparring.rl.seeds import derive_seed
from sparring.selfplay.league import DTYPES


class Attacker(Protocol):
    """Whoever edits pictures. The same questions, pictures and seed give the same edits, whatever else is edited beside them."""

    @property
    def name(self) -> str: ...

    def edit(self, questions: Sequence[VisualQuestion], images: Sequence[Image], seed: int) -> list[Edit]:
        """One edit of every question's clean picture, in the order given and of that picture's size; pictures may differ in size."""


class EditorAttacker:
    """An image editor, trained or not, with the deterministic sampler: its edits are those of held-out play in a run with the same seed."""

    def __init__(self, editor: FlowEditor, name: str, settings: AttackerSettings) -> None:
        self.editor, self.name, self.settings = editor, name, settings

    def edit(self, questions: Sequence[VisualQuestion], images: Sequence[Image], seed: int) -> list[Edit]:
        settings = self.settings
        seeds = [derive_seed(seed, "evaluation", question.id) for question in questions]
        instructions = [settings.instruction.replace("{question}", question.question) for question in questions]
        pictures = deterministic_edits(
            self.editor,
            images,
            instructions,
            seeds,
            steps=settings.evaluation_steps,
            guidance=settings.guidance_scale,
            batch=settings.micro_batch,
        )
        made = zip(questions, instructions, seeds, pictures, strict=True)
        return [Edit(question.id, self.name, instruction, own, picture) for question, instruction, own, picture in made]


def load_attacker(settings: AttackerSettings, device: torch.device) -> Attacker:
    """The Attacker that `settings.model` names: an editor's folder or hub id, or one with a LoRA's folder, `EDITOR+LORA`.

    Raises ModelError where it cannot be loaded.
    """
    path, lora = split_lora(settings.model)
    editor = load_editor(path, dtype=DTYPES[settings.dtype], device=device, offload=settings.offload)
    editor.embedded_guidance = settings.embedded_guidance
    name = Path(path).name
    if lora is not None:
        editor.load_lora(lora)
        name = f"{name}+{_telling(Path(lora))}"
    return EditorAttacker(editor, name, settings)


def _telling(folder: Path) -> str:
    """A run keeps its Attackers as `RUN/round3/attacker/editor`: the round says more than the last two names."""
    names = [name for name in folder.parts if name not in ("attacker", "editor")]
    return names[-1] if names else folder.name
