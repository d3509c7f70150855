"""Stage 2, implantation: distractors are put into the picture; outside of their boxes every pixel stays as it
is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image, fromarray

from sparring.attackers.crops import crops_of
from sparring.attackers.rollout import deterministic_edits
from sparring.config import AttackerSettings, KindSettings
from sparring.data.pixels import same_light
from sparring.data.records import Box, VisualQuestion
from sparring.forge.painters import Painter, box_mask
from sparring.forge.records import Proposal
from sparring.judging.kinds import changed_regions
from sparring.models.editors import FlowEditor
from sparring.seeds import derive_seed

# of the picture's shorter side: how far beyond what it sees as changed an editor's object is taken over
MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Implant:
    """A picture with distractors, and where they are."""

    picture: Image
    proposals: tuple[Proposal, ...]


class Implanter(ABC):
    """Puts distractors into pictures. `wants_proposals`: it is told what to put where; else it decides by
    itself, from the question.

    `whole`: what it changes is not confined to boxes.
    """

    wants_proposals: bool
    whole: bool = False

    def able(self, wanted: str) -> bool:
        """Is it able to put in that object?"""
        return True

    @abstractmethod
    def implant(
        self,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        proposals: Sequence[Sequence[Proposal]],
        seeds: Sequence[int],
    ) -> list[Implant]:
        """One picture for every question."""


class PainterImplanter(Implanter):
    """A painter fills the proposed boxes, one after another."""

    wants_proposals = True

    def __init__(self, painter: Painter) -> None:
        self.painter = painter

    def able(self, wanted: str) -> bool:
        return self.painter.paints(wanted)

    def implant(
        self,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        proposals: Sequence[Sequence[Proposal]],
        seeds: Sequence[int],
    ) -> list[Implant]:
        made = list(images)
        for place, (own, seed) in enumerate(zip(proposals, seeds, strict=True)):
            for number, proposal in enumerate(own):
                mask = box_mask(made[place].size, [proposal.box])
                (made[place],) = self.painter.fill(
                    [made[place]], [mask], [proposal.object], [derive_seed(seed, "paint", number)]
                )
        return [Implant(picture, tuple(own)) for picture, own in zip(made, proposals, strict=True)]


class EditorImplanter(Implanter):
    """The Attacker's editor edits the whole picture by its instruction. What it changed, less a change of
    light, is found and kept; the rest is put back.

    whole: nothing is put back.
    """

    wants_proposals = False

    def __init__(self, editor: FlowEditor, settings: AttackerSettings, *, whole: bool = False) -> None:
        self.editor, self.settings, self.whole = editor, settings, whole

    def implant(
        self,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        proposals: Sequence[Sequence[Proposal]],
        seeds: Sequence[int],
    ) -> list[Implant]:
        settings = self.settings
        edits = deterministic_edits(
            self.editor,
            images,
            [settings.instruct(question.question) for question in questions],
            seeds,
            steps=settings.evaluation_steps,
            guidance=settings.guidance_scale,
            batch=settings.micro_batch,
            crops=crops_of(questions, images, settings.crop, self.editor.multiple),
        )
        made = [changes_alone(clean, edit) for clean, edit in zip(images, edits, strict=True)]
        return (
            [Implant(edit, own.proposals) for edit, own in zip(edits, made, strict=True)]
            if self.whole
            else made
        )


def changes_alone(clean: Image, edit: Image) -> Implant:
    """The clean picture with the edit's changed regions, in the clean picture's light; nothing changed where
    it sees no region.
    """
    before, after = (np.asarray(image.convert("RGB"), dtype=np.float64) for image in (clean, edit))
    boxes = [_wider(box, clean.size) for box in changed_regions(before, after, KindSettings())]
    if not boxes:
        return Implant(clean, ())
    lit = np.rint(np.clip(same_light(before, after), 0, 255)).astype(np.uint8)
    mask = box_mask(clean.size, boxes)
    picture = fromarray(np.where(mask[..., None], lit, np.asarray(clean.convert("RGB"))))
    return Implant(picture, tuple(Proposal(box, "") for box in boxes))


def _wider(box: Box, size: tuple[int, int]) -> Box:
    margin = max(1, round(MARGIN * min(size)))
    x0, y0, x1, y1 = box
    return max(0, x0 - margin), max(0, y0 - margin), min(size[0], x1 + margin), min(size[1], y1 + margin)
