"""Large pictures: which part of one is edited, and how the edit comes back into it.

Editors were made for about one megapixel. A picture of more is not scaled down for them: a crop around what
the question is about is edited at its own resolution and fades into the untouched rest. Scaled is only what
cannot be cropped: targets too far apart for one crop, and pictures without targets. Then it is the *change*
that is scaled back up and added, so that scaling by itself changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling, fromarray

from sparring.config import CropSettings
from sparring.data.errors import ModelError
from sparring.data.records import Box, VisualQuestion


@dataclass(frozen=True, slots=True)
class Crop:
    """The part of a picture of `whole` pixels that is edited: its `box`, worked on at `size` pixels; sizes
    are (width, height).

    `feather`: from a side of the box that is no side of the picture the edit fades in over so many pixels.
    """

    whole: tuple[int, int]
    box: Box
    size: tuple[int, int]
    feather: int = 0

    @property
    def extent(self) -> tuple[int, int]:
        """(width, height) of the box."""
        x0, y0, x1, y1 = self.box
        return x1 - x0, y1 - y0

    def cut(self, image: Image) -> Image:
        """What the editor is given: the box at `size` pixels, or the picture itself where the box is all of
        it. ModelError for another size.
        """
        self._check(image, self.whole)
        part = image if self.extent == self.whole else image.crop(self.box)
        return part if self.size == self.extent else part.resize(self.size, Resampling.LANCZOS)

    def compose(self, image: Image, edit: Image) -> Image:
        """The picture with an edit of its cut: source + weight x (edit - cut), rounded; outside the box every
        pixel is the source's.

        image: RGB, of `whole` pixels; edit: RGB, of `size` pixels. The weight is 1 but for the feathered
        rim. ModelError for other sizes.
        """
        self._check(edit, self.size)
        if self.size == self.whole:
            return edit
        x0, y0, x1, y1 = self.box
        pixels_HWC, before, after = np.array(image), np.asarray(self.cut(image)), np.asarray(edit)
        weight_YX = self._weight()
        # one at a time: the floats of a scaled edit are as large as the picture
        for channel in range(pixels_HWC.shape[2]):
            change = after[..., channel].astype(np.float32) - before[..., channel]
            if self.size != self.extent:
                change = np.asarray(fromarray(change).resize(self.extent, Resampling.BICUBIC))
            part_YX = pixels_HWC[y0:y1, x0:x1, channel]
            part_YX[...] = np.rint(np.clip(part_YX + weight_YX * change, 0, 255))
        return fromarray(pixels_HWC)

    def _weight(self) -> NDArray[np.float32]:
        x0, y0, x1, y1 = self.box
        rows = _ramp(y1 - y0, self.feather, y0 > 0, y1 < self.whole[1])
        columns = _ramp(x1 - x0, self.feather, x0 > 0, x1 < self.whole[0])
        return rows[:, None] * columns

    @staticmethod
    def _check(image: Image, size: tuple[int, int]) -> None:
        if image.size != size:
            raise ModelError(
                f"a picture of {image.width} x {image.height} pixels does not fit a crop that expects "
                f"{size[0]} x {size[1]}"
            )


def choose_crop(whole: tuple[int, int], boxes: Sequence[Box], settings: CropSettings, multiple: int) -> Crop:
    """Where to edit a picture of `whole` = (width, height) pixels whose targets lie in `boxes`.

    All of it where it has at most `max_area` pixels. Of a larger one a crop of about `max_area` pixels, as
    square as can be, its sides multiples of `multiple` or sides of the picture; it holds all boxes with
    `context` around them, or with as much of that as fits. Where the boxes alone do not fit they are scaled
    down, context and all; a picture without boxes is scaled down as a whole.
    """
    width, height = whole
    everything = (0, 0, width, height)
    if width * height <= settings.max_area:
        return Crop(whole, everything, whole)
    if not boxes:
        return Crop(whole, everything, _scaled(whole, settings.max_area, multiple))
    for context in range(settings.context, -1, -1):
        needed = _around(boxes, context, whole)
        shape = _shape(needed, whole, settings.max_area, multiple)
        if shape is not None:
            box = _placed(shape, needed, whole)
            return Crop(whole, box, shape, settings.feather)
    box = _around(boxes, settings.context, whole)
    extent = box[2] - box[0], box[3] - box[1]
    return Crop(whole, box, _scaled(extent, settings.max_area, multiple), settings.feather)


def crops_of(
    questions: Sequence[VisualQuestion], images: Sequence[Image], settings: CropSettings, multiple: int
) -> list[Crop]:
    """`choose_crop` for questions and the pictures beside them; `multiple` is the editor's."""
    pairs = zip(questions, images, strict=True)
    return [
        choose_crop(image.size, [target.box for target in question.targets], settings, multiple)
        for question, image in pairs
    ]


def cut_all(images: Sequence[Image], crops: Sequence[Crop]) -> list[Image]:
    """What the editor is given of every picture. The same crop of the same picture is cut once, so that it is
    also encoded once.
    """
    cuts: dict[tuple[int, Crop], Image] = {}
    for image, crop in zip(images, crops, strict=True):
        if (id(image), crop) not in cuts:
            cuts[id(image), crop] = crop.cut(image)
    return [cuts[id(image), crop] for image, crop in zip(images, crops, strict=True)]


def _ramp(length: int, feather: int, first: bool, last: bool) -> NDArray[np.float32]:
    """Weights along one axis: rising in equal steps from the first side, falling to the last, where these are
    to be feathered; else 1.
    """
    places = np.arange(1, length + 1)
    distance = np.full(length, feather + 1)
    for reach in ([places] if first else []) + ([places[::-1]] if last else []):
        distance = np.minimum(distance, reach)
    return (distance / (feather + 1)).astype(np.float32)


def _around(boxes: Sequence[Box], context: int, whole: tuple[int, int]) -> Box:
    """The smallest box around all boxes, so many pixels wider on every side, cut at the picture's border."""
    x0s, y0s, x1s, y1s = zip(*boxes, strict=True)
    left, top = max(0, min(x0s) - context), max(0, min(y0s) - context)
    return left, top, min(whole[0], max(x1s) + context), min(whole[1], max(y1s) + context)


def _shape(needed: Box, whole: tuple[int, int], area: int, multiple: int) -> tuple[int, int] | None:
    """(width, height) of a crop that holds `needed`, as square as can be; None where that would be more than
    `area` pixels.
    """

    def up(length: int) -> int:
        return -(-length // multiple) * multiple

    def beside(length: int) -> int:
        """The longest side beside one of that length, which the editor pads to a multiple."""
        return area // up(length) // multiple * multiple

    need = needed[2] - needed[0], needed[3] - needed[1]
    width = max(math.isqrt(area) // multiple * multiple, up(need[0]))
    height = beside(width)
    if height < need[1]:
        height = up(need[1])
        width = beside(height)
    if height > whole[1]:
        height = whole[1]
        width = beside(height)
    if width > whole[0]:
        width = whole[0]
        height = min(beside(width), whole[1])
    return (width, height) if width >= need[0] and height >= need[1] else None


def _placed(shape: tuple[int, int], needed: Box, whole: tuple[int, int]) -> Box:
    """A box of that shape around the middle of `needed`, pushed back into the picture where it would reach
    over the border.
    """
    x0, y0 = (
        max(0, min((needed[axis] + needed[axis + 2] - shape[axis]) // 2, whole[axis] - shape[axis]))
        for axis in (0, 1)
    )
    return x0, y0, x0 + shape[0], y0 + shape[1]


def _scaled(size: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """(width, height) of about the same aspect with at most `area` pixels, both multiples of `multiple`."""
    scale = min(1.0, math.sqrt(area / (size[0] * size[1])))
    width, height = (max(1, int(side * scale) // multiple) * multiple for side in size)
    if width * height <= area:
        return width, height
    # A strip so thin that one multiple is more than its share: the other side pays.
    return (
        (area // height // multiple * multiple, height)
        if width > height
        else (width, area // width // multiple * multiple)
    )
