"""Rivals that are an image editor: the trained Attacker itself, the same editor told something harmless, and its autoencoder alone."""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from sparring.attackers.rivals.base import Rival
from sparring.attackers.rollout import by_size, deterministic_edits, to_pictures
from sparring.config import AttackerSettings
from sparring.data.records import VisualQuestion
from sparring.models.editors import FlowEditor
from sparring.rl.seeds import derive_seed

HARMLESS = ("make the picture darker", "make the picture brighter", "make the picture warmer", "make the picture colder")


class EditorRival(Rival):
    """An editor with an instruction, by the deterministic sampler: what a trained Attacker does when it counts."""

    def __init__(self, editor: FlowEditor, settings: AttackerSettings, name: str = "editor") -> None:
        super().__init__(name)
        self.editor, self.settings = editor, settings

    def _instruction(self, question: VisualQuestion, seed: int) -> str:
        return self.settings.instruction.replace("{question}", question.question)

    def _edit(self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int]) -> list[tuple[Image, str]]:
        told = [self._instruction(question, seed) for question, seed in zip(questions, seeds, strict=True)]
        settings = self.settings
        made = deterministic_edits(
            self.editor, images, told, seeds, settings.evaluation_steps, settings.guidance_scale, settings.micro_batch
        )
        return list(zip(made, told, strict=True))


class Benign(EditorRival):
    """The editor told something harmless, one of several things: what an edit costs that means no harm."""

    def __init__(
        self, editor: FlowEditor, settings: AttackerSettings, instructions: Sequence[str] = HARMLESS, name: str = "benign"
    ) -> None:
        super().__init__(editor, settings, name)
        self.instructions = tuple(instructions)

    def _instruction(self, question: VisualQuestion, seed: int) -> str:
        return self.instructions[derive_seed(seed, "instruction") % len(self.instructions)]


class RoundTrip(Rival):
    """The editor's autoencoder alone: encoded and decoded, nothing edited."""

    def __init__(self, editor: FlowEditor, batch: int = 64, name: str = "roundtrip") -> None:
        super().__init__(name)
        self.editor, self.batch = editor, batch

    def _edit(self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int]) -> list[tuple[Image, str]]:
        pictures: dict[int, Image] = {}
        for places in by_size(images):
            for start in range(0, len(places), self.batch):
                part = places[start : start + self.batch]
                pictures.update(zip(part, to_pictures(self.editor.reencode([images[i] for i in part])), strict=True))
        return [(pictures[i], "encoded and decoded") for i in range(len(images))]
