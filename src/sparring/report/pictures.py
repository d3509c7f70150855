"""Pictures for a page: the amplified difference, bounded sizes, data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from sparring.report.color import HEAT, ramp

SMALL = 128
"""Pictures whose longer side has at most so many pixels are kept as they are, and shown enlarged with hard pixels."""
LARGEST = 320
"""Longer side of what is embedded of a larger picture."""
FITS, EXPLAINED = 3, 0.7
"""Light is fitted so many times, each time to this share of the pixels that the fit before explained best."""
CHANGED = 20
"""Grey levels from which a pixel counts as changed."""
AMPLIFIED = 4.0
"""A change of 255 / 4 grey levels is already as bright as can be."""


def difference(before: Image.Image, after: Image.Image) -> Image.Image:
    """Where two pictures of one size differ: the largest change of the three channels, amplified, dark where nothing changed."""
    gap = np.abs(np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)).max(-1) / 255
    return Image.fromarray(ramp(np.clip(gap * AMPLIFIED, 0, 1), HEAT))


def in_the_light_of(before: Image.Image, after: Image.Image) -> Image.Image:
    """The picture before the edit in the light of the one after it: each channel times a gain plus an
    offset, both fitted by least squares.

    The fit (ours) is repeated on the pixels that it explains best, so that an object that was put in does
    not pass for light.
    """
    old, new = (np.asarray(image, dtype=np.float64).reshape(-1, 3) for image in (before, after))
    lit = np.empty_like(old)
    for channel in range(3):
        x, y = old[:, channel], new[:, channel]
        kept = np.ones(len(x), dtype=bool)
        for _ in range(FITS):
            spread = x[kept].var()
            gain = ((x[kept] - x[kept].mean()) * (y[kept] - y[kept].mean())).mean() / spread if spread > 1e-9 else 1.0
            lit[:, channel] = gain * (x - x[kept].mean()) + y[kept].mean()
            residual = np.abs(y - lit[:, channel])
            kept = residual <= np.quantile(residual, EXPLAINED)
    return Image.fromarray((np.clip(lit, 0, 255) + 0.5).astype(np.uint8).reshape(np.asarray(before).shape))


def change_in_words(before: Image.Image, after: Image.Image) -> str:
    """What a difference picture shows, for those who do not see it: how much of the picture changed, where
    most, and the change of light."""
    old, new = (np.asarray(image, dtype=np.float64) for image in (before, after))
    light = round(float((new - old).mean()))
    shade = "no change of light" if abs(light) < 2 else f"{abs(light)} grey levels {'darker' if light < 0 else 'lighter'} on the whole"
    rest = np.abs(new - np.asarray(in_the_light_of(before, after), dtype=np.float64)).max(-1)
    changed = rest > CHANGED
    if not changed.any():
        return f"{shade}, and nothing else changed"
    height, width = changed.shape
    y, x = (places.mean() / size for places, size in zip(np.nonzero(changed), (height, width), strict=True))
    across, down = ("left", "middle", "right")[min(2, int(3 * x))], ("upper", "middle", "lower")[min(2, int(3 * y))]
    where = "middle" if across == down else f"{down} {across}"
    share = max(1, round(100 * changed.mean()))
    return f"{shade}; {share} % of the picture changed beyond that, around the {where}"


def is_small(image: Image.Image) -> bool:
    """The picture is shown pixel by pixel."""
    return max(image.size) <= SMALL


def data_uri(image: Image.Image) -> str:
    """The picture as a data URI: small ones exactly (PNG), larger ones reduced to `LARGEST` pixels (WebP)."""
    stream = io.BytesIO()
    if is_small(image):
        image.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        reduced = image.copy()
        reduced.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        reduced.save(stream, "WEBP", quality=80)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
