"""Where distractors come from: a VLM that looks at picture and question, or, as a baseline, free places and a
list of categories.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from PIL.Image import Image

from sparring.attackers.rivals.paste import free_place
from sparring.config import ForgeStages
from sparring.data.errors import RefusedError
from sparring.data.records import Box, Target, VisualQuestion
from sparring.forge.checks import Rejection, check_box, check_object
from sparring.forge.panel import fields_of, fill_template, parse_boxes
from sparring.forge.records import Proposal
from sparring.models.vlms.base import VLM, Sampling, generate_each
from sparring.seeds import derive_seed

EVERYDAY = (
    *(
        "backpack",
        "umbrella",
        "handbag",
        "suitcase",
        "ball",
        "kite",
        "bottle",
        "cup",
        "bowl",
        "banana",
        "apple",
        "orange",
        "cake",
        "chair",
    ),
    *(
        "potted plant",
        "laptop",
        "keyboard",
        "cell phone",
        "book",
        "clock",
        "vase",
        "scissors",
        "teddy bear",
        "bucket",
        "basket",
        "lamp",
    ),
    *(
        "hat",
        "shoe",
        "candle",
        "box",
        "guitar",
        "bicycle",
        "dog",
        "cat",
        "bird",
        "traffic cone",
        "skateboard",
        "toy car",
        "pillow",
        "broom",
    ),
)


class Proposer(ABC):
    """Proposes what to put where; what it proposes is checked by whoever asks."""

    @abstractmethod
    def propose(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int], seed: int
    ) -> Sequence[list[Proposal] | RefusedError | None]:
        """For every question its proposals; None where a model gave none in the form asked for, the error
        where it refused. seeds: one a question; seed: of the whole call.
        """


class FreePlaces(Proposer):
    """Objects drawn from a list, less what the question speaks of, in the calmest of some free places."""

    def __init__(self, settings: ForgeStages, objects: Sequence[str]) -> None:
        self.settings, self.objects = settings, tuple(objects)

    def propose(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int], seed: int
    ) -> Sequence[list[Proposal] | RefusedError | None]:
        return [self._one(*each) for each in zip(questions, images, seeds, strict=True)]

    def _one(self, question: VisualQuestion, image: Image, seed: int) -> list[Proposal]:
        rng, settings = np.random.default_rng(seed), self.settings
        able = [name for name in self.objects if check_object(name, question) is None]
        taken, found = [target.box for target in question.targets], list[Proposal]()
        for name in (able[i] for i in rng.permutation(len(able))[: settings.propose.number]):
            side = max(settings.box.side, round(rng.uniform(*settings.propose.size) * min(image.size)))
            corner = free_place(image, (side, side), taken, rng)
            if corner is not None:
                box = (*corner, corner[0] + side, corner[1] + side)
                found.append(Proposal(box, name))
                taken.append(box)
        return found


class VlmProposer(Proposer):
    """Asks a VLM."""

    def __init__(self, vlm: VLM, settings: ForgeStages) -> None:
        self.vlm, self.settings = vlm, settings

    def propose(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int], seed: int
    ) -> Sequence[list[Proposal] | RefusedError | None]:
        if not questions:
            return []
        settings, folder = self.settings.propose, self.settings.panel.templates
        prompts = [
            fill_template("propose", fields_of(q) | {"number": str(settings.number)}, folder)
            for q in questions
        ]
        sampling = Sampling(settings.max_new_tokens, settings.temperature, seed=seed, batch=16)
        replies = generate_each(self.vlm, images, prompts, sampling)
        return [
            own if isinstance(own, RefusedError) else self._read(own[0].text, image)
            for own, image in zip(replies, images, strict=True)
        ]

    def _read(self, reply: str, image: Image) -> list[Proposal] | None:
        boxes = parse_boxes(reply, "object", image.size)
        return (
            None
            if boxes is None
            else [Proposal(box, name) for name, box in boxes[: self.settings.propose.number]]
        )


def check_proposals(
    proposals: Sequence[Proposal],
    question: VisualQuestion,
    size: tuple[int, int],
    settings: ForgeStages,
    able: Callable[[str], bool] = lambda name: True,
) -> tuple[tuple[Proposal, ...], list[Rejection]]:
    """(proposals that may be used, what was wrong with each of the others), in order; a box must keep clear
    of those let through before it. able: can that object be put in?
    """
    good, wrong = list[Proposal](), list[Rejection]()
    targets = [target.box for target in question.targets]
    for proposal in proposals:
        found = check_object(proposal.object, question) or check_box(
            proposal.box, size, targets, [other.box for other in good], settings.box
        )
        if found is None and not able(proposal.object):
            found = "object cannot be painted", f'the painter has no cut-out of "{proposal.object}"'
        if found is None:
            good.append(proposal)
        else:
            wrong.append(found)
    return tuple(good), wrong


class Finder(Protocol):
    """Finds the objects that a question is about: a grounding VLM, or anything else that can."""

    def find(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seed: int
    ) -> Sequence[tuple[Target, ...] | RefusedError | None]:
        """The targets of every question, boxes inside the picture; None where nothing usable was found, the
        error where a model refused.
        """


class VlmFinder:
    """A VLM that is asked for the objects and their boxes."""

    def __init__(self, vlm: VLM, settings: ForgeStages) -> None:
        self.vlm, self.settings = vlm, settings

    def find(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seed: int
    ) -> list[tuple[Target, ...] | RefusedError | None]:
        """See `Finder`. Greedy; one box that is empty or outside makes the whole reply unusable."""
        if not questions:
            return []
        prompts = [
            fill_template("locate", fields_of(question), self.settings.panel.templates)
            for question in questions
        ]
        sampling = Sampling(self.settings.propose.max_new_tokens, seed=seed, batch=16)
        replies = generate_each(self.vlm, images, prompts, sampling)
        return [
            own if isinstance(own, RefusedError) else self._targets(own[0].text, image)
            for own, image in zip(replies, images, strict=True)
        ]

    @staticmethod
    def _targets(reply: str, image: Image) -> tuple[Target, ...] | None:
        found = parse_boxes(reply, "name", image.size)
        if not found or not all(name and _inside(box, image.size) for name, box in found):
            return None
        return tuple(Target(name, box) for name, box in found)


def _inside(box: Box, size: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]


def own_seed(seed: int, question: VisualQuestion, *where: int | str) -> int:
    """The seed of something that is done for one question: a function of the forge's seed, the record's id
    and the place of use.
    """
    return derive_seed(seed, "forge", question.id, *where)
