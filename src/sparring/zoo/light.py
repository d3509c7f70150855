"""The light on a scene: gains of the colour channels. It changes a picture everywhere, and nothing that is in
it.
"""

from __future__ import annotations

import math

import numpy as np

Gains = tuple[float, float, float]


def gains(brightness: float, warmth: float) -> Gains:
    """Factors of red, green and blue; brightness is the logarithm of the common one, warmth goes from blue to
    red.
    """
    common = math.exp(brightness)
    return common * (1 + warmth), common, common * (1 - warmth)


def drift(rng: np.random.Generator, brightness: float, warmth: float, mean: float = 0.0) -> Gains:
    """A random light; brightness and warmth are standard deviations, `mean` that of the brightness."""
    return gains(rng.normal(mean, brightness), rng.normal(0, warmth))
