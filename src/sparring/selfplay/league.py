"""The league: the players by name, loaded from their folders when they are needed.

Defenders: "base", then "round1", "round2", ... Attackers: "untuned" (the editor as it came), "bootstrap",
then "round1", ... A player that has been trained is only ever read back from its folder, so that a resumed
run plays with exactly what an undisturbed one plays with. A Defender that is an endpoint is never trained:
it is the same one under all names. What endpoints answer is kept in `answers.sqlite`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sparring.config import Recipe
from sparring.data.errors import ModelError
from sparring.judging.validity import DuplicateCheck, load_duplicate_check
from sparring.models.editors import FlowEditor
from sparring.models.players import DTYPES, load_asked_defender, load_attacking_editor
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.base import VLM, all_resting, load_vlm, local_weights
from sparring.models.vlms.local import LocalVLM


class League:
    """Loads players; keeps one Attacker and one Defender in memory, because full-size players leave no room
    for more.
    """

    def __init__(self, recipe: Recipe, out: Path, device: torch.device) -> None:
        self.recipe, self.out, self.device = recipe, out, device
        self._editor: FlowEditor | None = None
        self._editor_is: str | None = None
        self._defender: tuple[str, VLM] | None = None
        self._duplicates: DuplicateCheck | None = None
        self._reasoning_judge: VLM | None = None

    def attacker_folder(self, name: str) -> Path:
        """Where a trained Attacker is kept: a LoRA in diffusers' format, or a whole pipeline where the recipe
        trains all weights.
        """
        return self.out / ("round0/bootstrap" if name == "bootstrap" else f"{name}/attacker") / "editor"

    def defender_folder(self, name: str) -> Path:
        """Where a trained Defender is kept, in transformers' format."""
        return self.out / name / "defender" / "model"

    def attacker(self, name: str, keep: bool = True) -> FlowEditor:
        """An Attacker as it was saved. With `keep` false the caller may train it: nobody else will be handed
        this one.
        """
        if self._editor is not None:
            self._editor.wake()
        if self._editor is None or self._editor_is != name:
            self._editor = self._load_attacker(name)
        self._editor_is = name if keep else None
        return self._editor

    def _load_attacker(self, name: str) -> FlowEditor:
        settings = self.recipe.attacker
        whole = settings.lora is None and name != "untuned"
        # Players that are LoRAs share one pipeline in memory: reading 20 B parameters again for every change
        # of player would cost minutes.
        editor = self._editor if settings.lora is not None else None
        self._editor = None
        if editor is None:
            path = str(self.attacker_folder(name)) if whole else settings.model
            editor = load_attacking_editor(path, settings, self.device)
            editor.checkpoint_gradients(settings.gradient_checkpointing)
        elif editor.has_lora:
            editor.remove_lora()
        if not whole and name != "untuned":
            editor.load_lora(self.attacker_folder(name))
        return editor

    @property
    def answers(self) -> Path:
        """The cache of what endpoints answered."""
        return self.out / "answers.sqlite"

    @property
    def defender_is_fixed(self) -> bool:
        """The Defender is an endpoint: it can be asked, and attacked, but not trained."""
        return is_endpoint(self.recipe.defender.model)

    def defender(self, name: str) -> VLM:
        """A Defender as it was saved."""
        if self.defender_is_fixed:
            name = "base"
        if self._defender is None or self._defender[0] != name:
            self._defender = None
            self._defender = (name, self._load_defender(name))
        return self._defender[1]

    def defender_to_train(self, name: str) -> LocalVLM:
        """A Defender that the caller may train: nobody else will be handed this one. Raises ModelError for
        one that is an endpoint.
        """
        vlm = self.defender(name)
        self._defender = None
        named = self.recipe.defender.model
        return local_weights(
            vlm,
            ModelError(
                f"defender.model {named} is an endpoint: it can be asked and attacked, but not trained"
            ),
        )

    def _load_defender(self, name: str) -> VLM:
        settings = self.recipe.defender
        path = settings.model if name == "base" else str(self.defender_folder(name))
        return load_asked_defender(path, settings, self.device, self.answers)

    def duplicate_check(self) -> DuplicateCheck | None:
        """The check of a judge model, which never trains; one for the whole run, so that no clean picture is
        counted twice. None without a judge.
        """
        if self._duplicates is None:
            self._duplicates = load_duplicate_check(self.recipe.judge, self.device, self.answers)
        return self._duplicates

    def reasoning_judge(self) -> VLM | None:
        """The model that reads where the Defender's reasoning arrives, which never trains; None where none is
        named.
        """
        settings = self.recipe.defender.consistency
        if settings.model is not None and self._reasoning_judge is None:
            self._reasoning_judge = load_vlm(
                settings.model,
                dtype=DTYPES[settings.dtype],
                device=self.device,
                endpoint=settings.endpoint,
                cache=self.answers,
            )
        return self._reasoning_judge

    @contextmanager
    def defenders_turn(self) -> Iterator[None]:
        """Inside, with `attacker.offload`, the Attacker in memory makes room on the accelerator. One that a
        caller trains is back afterwards; a frozen one when it is next asked for, and not once a batch.
        """
        editor, frozen = self._editor, self._editor_is is not None
        try:
            if editor is not None:
                editor.rest()
            yield
        finally:
            if editor is not None and not frozen:
                editor.wake()

    @contextmanager
    def attackers_turn(self) -> Iterator[None]:
        """Inside, with `attacker.offload`, the Defender and the judge models in memory make room on the
        accelerator for a frozen Attacker; then they are back.
        """
        others = list[VLM | None]()
        if self.recipe.attacker.offload:
            others += [self._defender[1]] if self._defender else []
            others += [self._duplicates.judge] if self._duplicates else []
            others += [self._reasoning_judge]
        with all_resting(vlm for vlm in others if vlm is not None):
            yield

    def rest_attacker(self) -> None:
        """Take the Attacker out of memory: while a Defender trains, its gradients and optimizer need the
        room.
        """
        self._editor, self._editor_is = None, None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def rest(self) -> None:
        """Take all players out of memory: another process needs the room."""
        self._defender = self._duplicates = self._reasoning_judge = None
        self.rest_attacker()


def save_attacker(editor: FlowEditor, folder: Path) -> None:
    """Write an Attacker as diffusers loads it: its LoRA, or the whole pipeline where it has none."""
    if editor.has_lora:
        editor.save_lora(folder)
    else:
        editor.save_pipeline(folder)
