"""Painters without a model: baselines of those with one, and what the forge runs on where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL.Image import Image, fromarray
from scipy import ndimage

from sparring.attackers.rivals.paste import BUNDLED, fit, object_name, read_cutout
from sparring.data.errors import DataError
from sparring.forge.painters.base import Mask, Painter, bounds

SOFT = 0.04  # of the picture's shorter side: distance from the border at which "edges" has become soft


class Paste(Painter):
    """Lays the cut-out of an object into the middle of the mask, as large as fits. A cut-out's file name says what it shows ("alarm_clock.webp")."""

    outpaints = False

    def __init__(self, folder: str | None = None) -> None:
        """folder: of RGBA pictures; None: the bundled ones. Raises DataError where there is none."""
        self.folder = Path(folder) if folder else BUNDLED
        files = sorted(path for path in self.folder.glob("*") if path.suffix.lower() in (".webp", ".png"))
        self._files = {object_name(path): path for path in files}
        if not self._files:
            raise DataError(
                f"{self.folder}: no cut-outs there. Name a folder of RGBA pictures (.png, .webp), each file named after its object."
            )

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(self._files)

    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        words = wanted.lower().split()
        able = [name for name in self._files if name.split() == words[-len(name.split()) :]]
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
    """Draws the nearest known pixels outwards and lets them go soft: a picture grows by calm surroundings in which there is nothing new."""

    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        if mask.all():
            raise DataError("the mask covers the whole picture: there is no edge to draw outwards")
        distance, (rows, columns) = ndimage.distance_transform_edt(mask, return_indices=True)
        drawn = np.asarray(image)[rows, columns].astype(np.float32)
        reach = max(1.0, SOFT * min(image.size))
        soft = ndimage.gaussian_filter(drawn, (reach, reach, 0))
        share = np.clip(distance / (2 * reach), 0, 1)[..., None].astype(np.float32)
        return fromarray(np.rint(np.clip(drawn + share * (soft - drawn), 0, 255)).astype(np.uint8))
