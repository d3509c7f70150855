"""The cheapest opponent of all: every pixel times a number."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from sparring.attackers.rivals.base import OneByOne
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion


class Light(OneByOne):
    """A picture in another light: 0.75 is a quarter darker. What a Defender loses to it, it loses without content."""

    def __init__(self, gain: float) -> None:
        """Raises RecipeError for a gain that is not above 0."""
        if not (math.isfinite(gain) and gain > 0):
            raise RecipeError(f"light:{gain}: a gain is a number above 0, such as 0.75")
        super().__init__(f"light:{gain:g}")
        self.gain = gain

    def _edit_one(self, question: VisualQuestion, image: Image.Image, seed: int) -> tuple[Image.Image, str]:
        pixels = np.asarray(image, dtype=np.float64) * self.gain
        return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)), f"every pixel times {self.gain:g}"
