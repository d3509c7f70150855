"""An audit of edited pictures: is the right answer of a question about a scene still right after the edit?

It reads pixels with the oracle and knows how the questions of `questions.py` are worded. It audits what was
made; it is never a reward.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparring.data.errors import DataError
from sparring.data.images import load_image
from sparring.data.pixels import same_light
from sparring.data.records import Box, Target, VisualQuestion
from sparring_arena.oracle import SHARED, Sighting, find, shared
from sparring_arena.sprites import NAMES, plural
from sparring_arena.world import SIZE, Thing

_ANY = "|".join(NAMES)
_MANY = "|".join(plural(name) for name in NAMES)
_PATTERNS = (
    rf"Where is the ({_ANY}) relative to the ({_ANY})\?",
    rf"What color is the ({_ANY})\?",
    rf"Is there a ({_ANY}) in the picture\?",
    rf"How many ({_MANY}) are in the picture\?",
)
_SINGULAR = {plural(name): name for name in NAMES} | {name: name for name in NAMES}
# The strongest change of light that is undone: of all channels by such a factor, of one against their mean by
# such a one.
GAIN, TINT = 1.8, 1.25
NEAR = 3  # pixels by which a thing may be off its place


def asked_names(question: str) -> tuple[str, ...] | None:
    """The names of the things that a question mentions, or None when it is not worded like one of
    `questions.py`.
    """
    for pattern in _PATTERNS:
        if match := re.fullmatch(pattern, question.strip()):
            return tuple(_SINGULAR[name] for name in match.groups())
    return None


def label_valid(question: VisualQuestion, edited: Image.Image) -> bool | None:
    """Whether the question's right answer is still right in the edited picture.

    It is when every target is still at its place and of its colour, and no thing of a name that the
    question mentions was added. Added things are seen where they are drawn as things here are: of their
    size (from about nine tenths on), opaque, and with their whole block of 24 pixels inside the picture
    or 2 pixels over its edge; a smaller, fainter or cut-off one is overlooked. None when the question is
    not one about a scene: other words, a picture of another size, or targets that its picture does not
    show. Raises DataError when the edited picture has not the size of the question's, or the question's
    picture cannot be read.
    """
    names = asked_names(question.question)
    if names is None:
        return None
    stat = question.image.stat() if question.image.exists() else None
    reference = _reference(
        question.image, (stat.st_mtime_ns, stat.st_size) if stat else None, question.targets
    )
    if reference is None:
        return None
    clean, targets = reference[0].astype(np.float32), reference[1]
    pixels = np.asarray(edited.convert("RGB"), dtype=np.float32)
    if pixels.shape != clean.shape:
        raise DataError(
            f'question "{question.id}": the edited picture is {edited.width} x {edited.height}, the clean '
            f"one {SIZE} x {SIZE} pixels."
        )
    return still_right(names, targets, clean, pixels)


@lru_cache(maxsize=2048)  # a game's held-out questions come again with every opponent; 27 KB each
def _reference(
    path: Path, version: object, targets: tuple[Target, ...]
) -> tuple[NDArray[np.uint8], tuple[Sighting, ...]] | None:
    """The clean picture and the targets as they are seen in it; `version` only tells files of one
    path apart.
    """
    clean = np.asarray(load_image(path))
    if clean.shape != (SIZE, SIZE, 3):
        return None
    seen = find(clean.astype(np.float32), [target.name for target in targets])
    found = [next((s for s in seen if s.name == t.name and near(s.box, t.box)), None) for t in targets]
    return (clean, tuple(s for s in found if s is not None)) if all(found) else None


def near(box: Box, other: Box) -> bool:
    """No side is more than `NEAR` pixels off."""
    return all(abs(a - b) <= NEAR for a, b in zip(box, other, strict=True))


def still_right(
    names: Sequence[str], targets: Sequence[Sighting], clean: NDArray[Any], edited: NDArray[Any]
) -> bool:
    """The audit itself: `targets` are all things with one of the `names` in the clean picture; pictures
    [SIZE, SIZE, 3] in 0 to 255.

    A change of light alone, within bounds, leaves every answer true.
    """
    seen = find(_in_light_of(clean, edited), names)
    kept = all(
        any(s.name == t.name and s.color == t.color and near(s.box, t.box) for s in seen) for t in targets
    )
    return kept and len(seen) == len(targets)


def added(
    names: Sequence[str], things: Sequence[Thing | Sighting], clean: NDArray[Any], edited: NDArray[Any]
) -> list[Sighting]:
    """The things of these names that an edit put where none of `things` was, best first.

    `things` are, at least, all things with one of the `names` in the clean picture; what takes the place of
    one of them is not added. Pictures as for `still_right`.
    """
    seen = find(_in_light_of(clean, edited), names)
    return [s for s in seen if all(shared(s.box, thing.box) <= SHARED for thing in things)]


def _in_light_of(clean: NDArray[Any], edited: NDArray[Any]) -> NDArray[np.float32]:
    before, after = (np.asarray(picture, dtype=np.float32) for picture in (clean, edited))
    return same_light(before, after, gain=GAIN, tint=TINT)
