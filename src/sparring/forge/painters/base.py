"""One interface over everything that paints a part of a picture and leaves the rest as it is, to the bit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, fromarray

from sparring.data.errors import DataError
from sparring.data.records import Box

Mask = NDArray[np.bool_]


class Painter(ABC):
    """A painter. `outpaints`: it can paint around a picture, not only put an object into a box."""

    outpaints: bool = True

    @property
    def objects(self) -> tuple[str, ...] | None:
        """What it is able to paint; None: anything that it is told."""
        return None

    def fill(self, images: Sequence[Image], masks: Sequence[Mask], objects: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        """Paint each object where its picture's mask [height, width] is true; every other pixel is the picture's own.

        A picture depends on its own seed and inputs alone. DataError for a mask of another size, or one that is nowhere true.
        """
        painted = []
        for image, mask, wanted, seed in zip(images, masks, objects, seeds, strict=True):
            if mask.shape != (image.height, image.width) or not mask.any():
                raise DataError(
                    f"a mask of {mask.shape[1]} x {mask.shape[0]} pixels, {mask.sum()} of them true, for a picture of {image.width} x {image.height}"
                )
            rgb = image.convert("RGB")
            made = self._paint(rgb, mask, wanted, seed)
            painted.append(fromarray(np.where(mask[..., None], np.asarray(made), np.asarray(rgb))))
        return painted

    @abstractmethod
    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        """The picture with something painted in the mask; what it has elsewhere is not looked at."""


def box_mask(size: tuple[int, int], boxes: Sequence[Box]) -> Mask:
    """True inside the boxes, for a picture of (width, height)."""
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def bounds(mask: Mask) -> Box:
    """The smallest box around what is true."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
