"""One interface over everything that paints a part of a picture and leaves the rest as it is, to the bit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, fromarray
from scipy import ndimage

from sparring.attackers.rivals.paste import BUNDLED, fit, object_name, read_cutout
from sparring.config import PainterSettings
from sparring.data.errors import DataError, ModelError
from sparring.data.records import Box

if TYPE_CHECKING:
    import torch


Mask = NDArray[np.bool_]


class Painter(ABC):
    """A painter. `outpaints`: it can paint around a picture, not only put an object into a box."""

    outpaints: bool = True

    @property
    def objects(self) -> tuple[str, ...] | None:
        """What it is able to paint; None: anything that it is told."""
        return None

    def paints(self, wanted: str) -> bool:
        """Is it able to paint that object?"""
        return True

    def fill(
        self, images: Sequence[Image], masks: Sequence[Mask], objects: Sequence[str], seeds: Sequence[int]
    ) -> list[Image]:
        """Paint each object where its picture's mask [height, width] is true; every other pixel is the
        picture's own.

        A picture depends on its own seed and inputs alone. DataError for a mask of another size, or one that
        is nowhere true.
        """
        painted = []
        for image, mask, wanted, seed in zip(images, masks, objects, seeds, strict=True):
            if mask.shape != (image.height, image.width) or not mask.any():
                raise DataError(
                    f"a mask of {mask.shape[1]} x {mask.shape[0]} pixels, {mask.sum()} of them true, for a "
                    f"picture of {image.width} x {image.height}"
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


SOFT = 0.04  # of the picture's shorter side: distance from the border at which "edges" has become soft


class Paste(Painter):
    """Lays the cut-out of an object into the middle of the mask, as large as fits. A cut-out's file name says
    what it shows ("alarm_clock.webp").
    """

    outpaints = False

    def __init__(self, folder: str | None = None) -> None:
        """folder: of RGBA pictures; None: the bundled ones. Raises DataError where there is none."""
        self.folder = Path(folder) if folder else BUNDLED
        files = sorted(path for path in self.folder.glob("*") if path.suffix.lower() in (".webp", ".png"))
        self._files = {object_name(path): path for path in files}
        if not self._files:
            raise DataError(
                f"{self.folder}: no cut-outs there. Name a folder of RGBA pictures (.png, .webp), each file "
                f"named after its object."
            )

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(self._files)

    def paints(self, wanted: str) -> bool:
        return bool(self._able(wanted))

    def _able(self, wanted: str) -> list[str]:
        """The cut-outs of what the words end in: of a "red toy car" that of a "toy car"."""
        words = wanted.lower().split()
        return [name for name in self._files if name.split() == words[-len(name.split()) :]]

    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        able = self._able(wanted)
        if not able:
            raise DataError(f'there is no cut-out of "{wanted}" in {self.folder}')
        x0, y0, x1, y1 = bounds(mask)
        cutout = read_cutout(self._files[max(able, key=len)])
        scaled = fit(cutout, min((x1 - x0) / cutout.width, (y1 - y0) / cutout.height) * max(cutout.size))
        if np.random.default_rng(seed).integers(2):
            scaled = fromarray(np.asarray(scaled)[:, ::-1].copy())
        made = image.copy()
        made.paste(scaled, ((x0 + x1 - scaled.width) // 2, (y0 + y1 - scaled.height) // 2), scaled)
        return made


class Edges(Painter):
    """Draws the nearest known pixels outwards and lets them go soft: a picture grows by calm surroundings in
    which there is nothing new.
    """

    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        if mask.all():
            raise DataError("the mask covers the whole picture: there is no edge to draw outwards")
        distance, (rows, columns) = ndimage.distance_transform_edt(mask, return_indices=True)
        drawn = np.asarray(image)[rows, columns].astype(np.float32)
        reach = max(1.0, SOFT * min(image.size))
        soft = ndimage.gaussian_filter(drawn, (reach, reach, 0))
        share = np.clip(distance / (2 * reach), 0, 1)[..., None].astype(np.float32)
        return fromarray(np.rint(np.clip(drawn + share * (soft - drawn), 0, 255)).astype(np.uint8))


PLAIN = ("paste", "edges")


def is_plain(model: str) -> bool:
    """It needs no model."""
    return model.partition(":")[0] in PLAIN


def load_painter(settings: PainterSettings, device: torch.device) -> Painter:
    """The painter of these settings; a model's family is what its model_index.json says. Raises ModelError,
    and DataError for missing cut-outs.
    """
    kind, _, rest = settings.model.partition(":")
    if kind == "paste":
        return Paste(rest or None)
    if settings.model == "edges":
        return Edges()
    from diffusers import DiffusionPipeline

    from sparring.forge.painter_models import FAMILIES

    try:
        name = DiffusionPipeline.load_config(settings.model).get("_class_name")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"painter {settings.model}: no readable model_index.json, so this is no diffusers pipeline "
            f"folder: {error}"
        ) from error
    for family in FAMILIES:
        if name in family.made_for:
            return family.load(settings, device)
    known = ", ".join(sorted(made for family in FAMILIES for made in family.made_for))
    raise ModelError(f"painter {settings.model}: its pipeline class is {name}, known are {known}")
