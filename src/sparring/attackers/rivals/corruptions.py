"""The fifteen common corruptions of ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261), at five severities, for pictures of any size.

Written here because the packages that offer them (imagecorruptions 1.1.2 and its fork imagecorruptions-imaug 1.1.5) carry photographs of
frost without a known licence, need OpenCV, draw from a global generator, and do not scale with the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL.Image import Image

from sparring.attackers.rivals import blur, noise, weather
from sparring.attackers.rivals.base import OneByOne, generator
from sparring.attackers.rivals.noise import Array, jpeg, to_array, to_image
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion

CORRUPTIONS: dict[str, Callable[[Array, int, np.random.Generator], Array]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": noise.brightness,
    "contrast": noise.contrast,
    "elastic_transform": blur.elastic_transform,
    "pixelate": noise.pixelate,
    "jpeg_compression": noise.jpeg_compression,
}
SEVERITIES = (1, 2, 3, 4, 5)


class Corruption(OneByOne):
    """One of the fifteen, at a severity from 1 to 5."""

    def __init__(self, kind: str, severity: int) -> None:
        if kind not in CORRUPTIONS or severity not in SEVERITIES:
            raise RecipeError(f"corruption {kind!r} at severity {severity}: known are {', '.join(CORRUPTIONS)}, at severities 1 to 5")
        super().__init__(f"corruption:{kind}:{severity}")
        self.kind, self.severity = kind, severity

    def _edit_one(self, question: VisualQuestion, image: Image, seed: int) -> tuple[Image, str]:
        return corrupt(image, self.kind, self.severity, generator(seed)), f"{self.kind} of severity {self.severity}"


class Jpeg(OneByOne):
    """JPEG at a quality from 1 to 100."""

    def __init__(self, quality: int) -> None:
        if not 1 <= quality <= 100:
            raise RecipeError(f"jpeg:{quality}: a quality lies between 1 and 100")
        super().__init__(f"jpeg:{quality}")
        self.quality = quality

    def _edit_one(self, question: VisualQuestion, image: Image, seed: int) -> tuple[Image, str]:
        return jpeg(image, self.quality), f"JPEG of quality {self.quality}"


def corrupt(image: Image, kind: str, severity: int, rng: np.random.Generator) -> Image:
    """The corrupted picture, RGB, of the same size."""
    return to_image(CORRUPTIONS[kind](to_array(image), severity, rng))
