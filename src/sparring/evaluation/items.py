"""What an evaluation asks: items with their pictures, which stay where they are until they are asked."""

from __future__ import annotations

import io
import random
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL.Image import Image

from sparring.data.images import load_image
from sparring.data.records import LETTERS, Target
from sparring.rl.seeds import derive_seed

Kind = Literal["choice", "yes_no", "open", "caption"]
YES_NO = ("yes", "no")


class Picture(Protocol):
    """A picture that is somewhere: in a file, in a row of a table, in memory."""

    def load(self) -> Image:
        """Decode it. Errors: DataError (ImageError) where it cannot be read."""

    def data(self) -> bytes:
        """The bytes of its file. Raises DataError where they cannot be had."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture in a file of its own."""

    path: Path

    def load(self) -> Image:
        return load_image(self.path)

    def data(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class PictureInMemory:
    """A picture that somebody made: an edit, a scene."""

    image: Image

    def load(self) -> Image:
        return self.image

    def data(self) -> bytes:
        stream = io.BytesIO()
        self.image.save(stream, "PNG")
        return stream.getvalue()


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark.

    answer: the letter of the right option ("choice"), "yes" or "no" ("yes_no"), the reference text ("open"), "" ("caption"). options: of "choice",
    in the order in which they are shown; of "yes_no" these two words, where they are shown as options. targets: objects that the question is about, in pixels of the first picture, where the benchmark says.
    meta: what a benchmark's scores need beside that (`cycle`, `l2_category`, `splits`, `set`, `figure`, `references`, ...); values of JSON.
    """

    id: str
    kind: Kind
    question: str
    answer: str
    options: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    category: str | None = None
    hint: str | None = None
    targets: tuple[Target, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options, in order."""
        return tuple(LETTERS[: len(self.options)])

    @property
    def choices(self) -> tuple[str, ...]:
        """What may be answered, in the order shown: letters, or yes and no; nothing where the answer is free."""
        return YES_NO if self.kind == "yes_no" else self.letters


def with_yes_no_options(item: Item) -> Item:
    """A yes-no question with its two words as options A and B; other kinds as they are."""
    return replace(item, options=YES_NO) if item.kind == "yes_no" else item


def shuffled_options(item: Item, seed: int) -> Item:
    """The item with its options in an order that follows from the seed and the item's id alone; other kinds as they are."""
    if item.kind != "choice":
        return item
    order = list(range(len(item.options)))
    random.Random(derive_seed(seed, "options", item.id)).shuffle(order)
    options = tuple(item.options[place] for place in order)
    return replace(item, options=options, answer=LETTERS[order.index(string.ascii_uppercase.index(item.answer))])
