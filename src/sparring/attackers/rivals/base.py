"""What every opponent of a Defender can do, trained or not: turn pictures and their questions into edits,
from a seed.

Everything that a rival draws follows from (seed, question id), whatever else is edited beside it. An
editor's pictures may differ by a grey level with the batch that they are made in; all others are the same to
the byte.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from PIL.Image import Image, fromarray

from sparring.config import CallSettings
from sparring.data.errors import DataError, RecipeError, SparringError
from sparring.data.records import Edit, VisualQuestion
from sparring.engine.calls import import_call
from sparring.seeds import derive_seed


class Rival(ABC):
    """An opponent. `name` is what its edits are signed with; `keeps_size`: edits have the size of the
    pictures they were made from.
    """

    keeps_size: bool = True

    def __init__(self, name: str) -> None:
        self.name = name

    def edit(self, questions: Sequence[VisualQuestion], images: Sequence[Image], seed: int) -> list[Edit]:
        """One edit of every question's clean picture, in the order given; pictures may differ in size.
        `Edit.instruction` says what was done.
        """
        if len(questions) != len(images):
            raise DataError(f"{len(questions)} questions and {len(images)} pictures: there must be as many")
        seeds = [own_seed(seed, question) for question in questions]
        made = self._edit(questions, [image.convert("RGB") for image in images], seeds)
        return [
            Edit(question.id, self.name, done, own, picture)
            for question, own, (picture, done) in zip(questions, seeds, made, strict=True)
        ]

    def try_edit(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seed: int
    ) -> list[Edit | SparringError]:
        """As `edit`, with an error, naming the question, in place of each edit that cannot be made."""
        try:
            return list(self.edit(questions, images, seed))
        except Exception as error:
            # It imports torch, which nobody who only checks a specification should wait for.
            from sparring.engine.device import is_of_the_machine

            if is_of_the_machine(error):
                raise  # says nothing of any one picture
            if len(questions) > 1:
                pairs = zip(questions, images, strict=True)
                return [own for question, image in pairs for own in self.try_edit([question], [image], seed)]
            size, name = f"{images[0].width} x {images[0].height}", questions[0].id
            said = " ".join((str(error) or type(error).__name__).split())[:300]
            told = DataError(
                f'question "{name}": {self.name} cannot edit its picture of {size} pixels: {said}'
            )
            return [error if isinstance(error, SparringError) and f'"{name}"' in str(error) else told]

    @abstractmethod
    def _edit(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int]
    ) -> list[tuple[Image, str]]:
        """(edited picture, what was done) for each RGB picture, from a seed of its own."""


class OneByOne(Rival):
    """A rival that edits every picture by itself."""

    def _edit(
        self, questions: Sequence[VisualQuestion], images: Sequence[Image], seeds: Sequence[int]
    ) -> list[tuple[Image, str]]:
        return [self._edit_one(*each) for each in zip(questions, images, seeds, strict=True)]

    @abstractmethod
    def _edit_one(self, question: VisualQuestion, image: Image, seed: int) -> tuple[Image, str]:
        """(edited picture, what was done)."""


def own_seed(seed: int, question: VisualQuestion) -> int:
    """The seed of one edit. It is the one of held-out play, so that an editor makes here the very pictures
    that a run with that seed judges.
    """
    return derive_seed(seed, "evaluation", question.id)


def generator(seed: int) -> np.random.Generator:
    """Random numbers of one edit."""
    return np.random.default_rng(seed)


class Called(OneByOne):
    """Calls f(question, image, seed=..., **arguments) for every picture, an RGB one.

    The function returns (edited picture, what was done), or None where it can do nothing, and then the
    picture stays as it is. What it draws must follow from its arguments alone. A function that needs the
    scene finds it by the question, whose `image` is the picture's path.
    """

    def __init__(self, call: CallSettings, name: str) -> None:
        """Raises RecipeError where the function cannot be had or does not take the arguments."""
        super().__init__(name)
        self.call = call
        self._function = import_call(call, f'rival "{name}"')

    def _edit_one(self, question: VisualQuestion, image: Image, seed: int) -> tuple[Image, str]:
        made = self._function(question, image, seed=seed, **self.call.arguments)
        if made is None:
            return image, "nothing"
        if not (
            isinstance(made, tuple)
            and len(made) == 2
            and isinstance(made[0], Image)
            and isinstance(made[1], str)
        ):
            raise DataError(
                f'question "{question.id}": rival "{self.call.call}" must return (edited picture, what was '
                f"done) or None; it returned {made!r}."
            )
        return made[0].convert("RGB"), made[1]


class Light(OneByOne):
    """A picture in another light: 0.75 is a quarter darker. What a Defender loses to it, it loses without
    content.
    """

    def __init__(self, gain: float) -> None:
        """Raises RecipeError for a gain that is not above 0."""
        if not (math.isfinite(gain) and gain > 0):
            raise RecipeError(f"light:{gain}: a gain is a number above 0, such as 0.75")
        super().__init__(f"light:{gain:g}")
        self.gain = gain

    def _edit_one(self, question: VisualQuestion, image: Image, seed: int) -> tuple[Image, str]:
        pixels = np.asarray(image, dtype=np.float64) * self.gain
        return fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)), f"every pixel times {self.gain:g}"
