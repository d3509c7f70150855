"""Common corruptions of single pixels and of encoding: noise, brightness, contrast, pixelation, JPEG.

Pictures are float64 [H, W, 3] in [0, 1]; what is returned may lie outside and is clipped by the caller. Parameters are those of ImageNet-C
(Hendrycks and Dietterich 2019, arXiv 1903.12261, and the tables of its published code), by severity 1 to 5.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]


def gaussian_noise(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """Additive white noise."""
    std = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return picture + rng.normal(0, std, picture.shape)


def shot_noise(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """Photons counted: so many of them make white."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(picture * photons) / photons


def impulse_noise(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """Salt and pepper, in every channel by itself."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    draw, salt = rng.random(picture.shape), rng.random(picture.shape) < 0.5
    return np.where(draw < share, salt.astype(np.float64), picture)


def brightness(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """V of HSV raised by so much: hue and saturation stay, so a pixel is scaled by the ratio of its V after and before."""
    value = picture.max(-1, keepdims=True)
    brighter = np.minimum(value + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1], 1)
    scaled = picture * (brighter / np.maximum(value, 1e-12))
    return np.asarray(np.where(value > 0, scaled, brighter), dtype=np.float64)


def contrast(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """Drawn towards the mean colour."""
    mean = picture.mean((0, 1), keepdims=True)
    return np.asarray((picture - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1] + mean, dtype=np.float64)


def pixelate(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """Fewer and larger pixels."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    image = to_image(picture)
    small = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return to_array(image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX))


def jpeg_compression(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """JPEG at a low quality."""
    return to_array(jpeg(to_image(picture), (25, 18, 15, 10, 7)[severity - 1]))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The picture after JPEG at that quality, 1 to 100, with Pillow's default chroma subsampling."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def to_array(image: Image.Image) -> Array:
    """RGB picture to [H, W, 3] in [0, 1]."""
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def to_image(picture: Array) -> Image.Image:
    """[H, W, 3], clipped to [0, 1], to an RGB picture rounded to 8 bits."""
    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
