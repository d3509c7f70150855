"""Colours of the heat maps: straight lines in OKLab, so that equal steps of a value look like equal steps (Ottosson, 2020)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Stops = tuple[str, ...]

ON_PAPER: Stops = ("#f3f1ea", "#8fc3c2", "#0f6f78", "#0a3a48")
"""From low to high on a light page: high is dark."""
ON_NIGHT: Stops = ("#22272b", "#1d5f68", "#3fa9a6", "#b5efe2")
"""From low to high on a dark page: high is bright."""
HEAT: Stops = ("#101519", "#17505a", "#3fa9a6", "#f4f0d8")
"""For difference pictures: nothing changed is nearly black."""

_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]]
)
_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099], [0.0259040371, 0.7827717662, -0.8086757660]]
)


def ramp(values: NDArray[np.floating], stops: Stops) -> NDArray[np.uint8]:
    """sRGB colours [..., 3] of values [...] in 0 to 1 (clipped), piecewise linear in OKLab between evenly spaced stops."""
    lab_S3 = _to_oklab(np.array([_rgb(stop) for stop in stops], dtype=np.float64) / 255)
    places = np.clip(values, 0, 1) * (len(stops) - 1)
    lab = np.stack([np.interp(places, np.arange(len(stops)), lab_S3[:, channel]) for channel in range(3)], axis=-1)
    return (np.clip(_from_oklab(lab), 0, 1) * 255 + 0.5).astype(np.uint8)


def color_of(value: float, stops: Stops) -> str:
    """The hex colour of one value in 0 to 1."""
    red, green, blue = ramp(np.array(value), stops).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def ink_on(color: str) -> str:
    """Near-black or white, whichever reads better on a hex colour; the contrast (WCAG) is then at least 4.5."""
    return max(("#050506", "#ffffff"), key=lambda ink: contrast(ink, color))


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two hex colours, 1 to 21."""
    first, second = (float(_linear(np.array(_rgb(c)) / 255) @ np.array([0.2126, 0.7152, 0.0722])) for c in (a, b))
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _linear(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _to_oklab(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    lab: NDArray[np.float64] = np.cbrt(_linear(srgb) @ _TO_LMS.T) @ _TO_LAB.T
    return lab


def _from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.clip((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
