"""Rivals that are an image editor: the trained Attacker itself, the same editor told something harmless, and
its autoencoder alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from sparring.attackers.crops import crops_of
from sparring.attackers.rivals.base import Rival
from sparring.attackers.rollout import deterministic_edits, round_trips
from sparring.config import AttackerSettings, CropSettings
from sparring.data.records import VisualQuestion
from sparring.models.editors import FlowEditor
from sparring.seeds import derive_seed

HARMLESS = (
    "make the picture darker",
    "make the picture brighter",
    "make the picture warmer",
    "make the picture colder",
)


class EditorRival(Rival):
    """An editor with an instruction, by the deterministic sampler: what a trained Attacker does when it
    counts.
    """

    def __init__(self, editor: FlowEditor, settings: AttackerSettings, name: str = "editor") -> None:
        super().__init__(name)
        self.editor, self.settings = editor, settings

    def _instruction(self, question: VisualQuestion, seed: int) -> str:
        return self.settings.instruct(question.question)

    def _edit(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int]
    ) -> list[tuple[Image, str]]:
        told = [self._instruction(question, seed) for question, seed in zip(questions, seeds, strict=True)]
        settings = self.settings
        crops = crops_of(questions, images, settings.crop, self.editor.multiple)
        made = deterministic_edits(
            self.editor,
            images,
            told,
            seeds,
            settings.evaluation_steps,
            settings.guidance_scale,
            settings.micro_batch,
            crops,
        )
        return list(zip(made, told, strict=True))


class Benign(EditorRival):
    """The editor told something harmless, one of several things: what an edit costs that means no harm."""

    def __init__(
        self,
        editor: FlowEditor,
        settings: AttackerSettings,
        instructions: Sequence[str] = HARMLESS,
        name: str = "benign",
    ) -> None:
        super().__init__(editor, settings, name)
        self.instructions = tuple(instructions)

    def _instruction(self, question: VisualQuestion, seed: int) -> str:
        return self.instructions[derive_seed(seed, "instruction") % len(self.instructions)]


class RoundTrip(Rival):
    """The editor's autoencoder alone: encoded and decoded, nothing edited."""

    def __init__(
        self,
        editor: FlowEditor,
        batch: int = 64,
        name: str = "roundtrip",
        crop: CropSettings = CropSettings(),
    ) -> None:
        super().__init__(name)
        self.editor, self.batch, self.crop = editor, batch, crop

    def _edit(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int]
    ) -> list[tuple[Image, str]]:
        crops = crops_of(questions, images, self.crop, self.editor.multiple)
        return [
            (picture, "encoded and decoded")
            for picture in round_trips(self.editor, images, crops, self.batch)
        ]
