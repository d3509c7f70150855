"""Stage 1, scene extension: the picture becomes a part of a larger one, its own pixels unchanged, so that
what the question is about becomes small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from sparring.config import ExtendSettings
from sparring.data.images import MAX_PIXELS
from sparring.data.records import Box, Target, VisualQuestion
from sparring.forge.painters import Edges, Mask, Painter
from sparring.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Extension:
    """The extended picture's size and where the picture lies in it; both (x, y). `share`: what the core
    objects cover of it, `direction`: where room is made.
    """

    size: tuple[int, int]
    offset: tuple[int, int]
    share: float
    direction: str

    def moved(self, box: Box) -> Box:
        """A box of the picture, in the extended picture."""
        (x, y), (x0, y0, x1, y1) = self.offset, box
        return x0 + x, y0 + y, x1 + x, y1 + y

    def question(self, question: VisualQuestion) -> VisualQuestion:
        """The question about the extended picture: boxes move with it."""
        return replace(
            question,
            targets=tuple(Target(target.name, self.moved(target.box)) for target in question.targets),
        )


def draw_extension(
    size: tuple[int, int], boxes: Sequence[Box], settings: ExtendSettings, seed: int
) -> Extension | None:
    """How to extend a picture of (width, height) with these core objects; None where it is to be left as it
    is.

    Drawn by the seed: the share of the extended picture that the core objects cover together (overlaps
    counted once), the direction, and how the room is split between the two sides. The growth of each side is
    bounded by `settings.growth`, and the area by what Sparring reads. A picture without core objects counts
    as one object that covers a quarter of it.
    """
    rng = np.random.default_rng(seed)
    core = _covered(size, boxes) if boxes else size[0] * size[1] // 4
    share = float(rng.uniform(*settings.share))
    direction = settings.directions[int(rng.integers(len(settings.directions)))]
    split = rng.uniform(0, 1, 2)
    readable = MAX_PIXELS / ((size[0] + 1) * (size[1] + 1))  # each side is rounded
    wanted = min(core / share / (size[0] * size[1]), readable)
    grown = {
        "horizontal": (wanted, 1.0),
        "vertical": (1.0, wanted),
        "both": (math.sqrt(wanted), math.sqrt(wanted)),
    }[direction]
    width, height = (
        max(side, round(side * min(factor, settings.growth)))
        for side, factor in zip(size, grown, strict=True)
    )
    if width * height < settings.least * size[0] * size[1]:
        return None
    offset = round((width - size[0]) * split[0]), round((height - size[1]) * split[1])
    return Extension((width, height), offset, core / (width * height), direction)


def extend(
    painter: Painter,
    images: Sequence[Image.Image],
    plans: Sequence[Extension],
    settings: ExtendSettings,
    seeds: Sequence[int],
) -> list[Image.Image]:
    """The extended pictures. The painter starts from the picture's edges drawn outwards; the picture's own
    pixels stay as they are, to the bit.
    """
    canvases, masks = [], list[Mask]()
    for image, plan in zip(images, plans, strict=True):
        canvas = Image.new("RGB", plan.size)
        canvas.paste(image, plan.offset)
        mask = np.ones((plan.size[1], plan.size[0]), dtype=bool)
        x, y = plan.offset
        mask[y : y + image.height, x : x + image.width] = False
        (canvas,) = Edges().fill([canvas], [mask], [""], [0])
        canvases.append(canvas)
        masks.append(mask)
    return painter.fill(
        canvases, masks, [settings.scene] * len(canvases), [derive_seed(seed, "paint") for seed in seeds]
    )


def _covered(size: tuple[int, int], boxes: Sequence[Box]) -> int:
    covered = np.zeros((size[1], size[0]), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        covered[y0:y1, x0:x1] = True
    return max(1, int(covered.sum()))
