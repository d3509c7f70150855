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
AMPLIFIED = 4.0
"""A change of 255 / 4 grey levels is already as bright as can be."""


def difference(before: Image.Image, after: Image.Image) -> Image.Image:
    """Where two pictures of one size differ: the largest change of the three channels, amplified, dark where nothing changed."""
    gap = np.abs(np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)).max(-1) / 255
    return Image.fromarray(ramp(np.clip(gap * AMPLIFIED, 0, 1), HEAT))


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
