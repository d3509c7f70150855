"""Common corruptions that move light about: defocus, glass, motion and zoom blur, elastic distortion.

Parameters are those of ImageNet-C (see `noise.py`). Its lengths are pixels of a picture of 224; here they are scaled by the shorter side over
224 and used as real numbers, so that a picture of any size looks the same, and five severities stay five also where a pixel is coarse.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from sparring.attackers.rivals.noise import Array

SIDE = 224  # pixels of the pictures that the published lengths are for


def scale(picture: Array) -> float:
    """Pixels of this picture for one of the published ones."""
    return float(min(picture.shape[:2])) / SIDE


def defocus_blur(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A disk, its rim softened over a pixel so that the radius is a real number."""
    radius = (3, 4, 6, 8, 10)[severity - 1] * scale(picture)
    reach = int(np.ceil(radius + 0.5))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return convolve(picture, np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


def glass_blur(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """Pixels change places with near ones, between two soft blurs. Every pass looks a random step of at most `delta` pixels away."""
    sigma, delta, passes = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    shuffled = _soft(picture, sigma * scale(picture))
    reach = delta * scale(picture)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float64)
    for _ in range(passes):
        shuffled = warp(shuffled, y + rng.uniform(-reach, reach, y.shape), x + rng.uniform(-reach, reach, x.shape))
    return _soft(shuffled, sigma * scale(picture))


def motion_blur(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A smear along one direction within 45 degrees of the horizontal."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return smear(picture, radius * scale(picture), sigma * scale(picture), rng.uniform(-np.pi / 4, np.pi / 4))


def smear(picture: Array, radius: float, sigma: float, angle: float) -> Array:
    """A trail behind every point: half a Gaussian of `sigma` pixels, cut off after 2 `radius`, at `angle` from the x axis."""
    length = 2 * radius
    along = np.linspace(0, length, 4 * int(np.ceil(length)) + 1)
    weight = np.exp(-(along**2) / (2 * sigma**2))
    reach = int(np.ceil(length)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    y, x = reach + along * np.sin(angle), reach + along * np.cos(angle)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            part = np.abs(1 - dy - (y - top)) * np.abs(1 - dx - (x - left))
            np.add.at(kernel, (top + dy, left + dx), weight * part)
    return convolve(picture, kernel)


def zoom_blur(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """The mean of the picture and of ever larger views of its middle.

    In steps of 0.01 at every severity: ImageNet-C's wider steps at 3 and 5 make fewer views, among which the sharp one weighs more.
    """
    zooms = np.arange(1, (1.11, 1.16, 1.21, 1.26, 1.31)[severity - 1], 0.01)
    height, width = picture.shape[:2]
    total = picture.copy()
    for c in range(picture.shape[2]):
        channel = Image.fromarray(picture[..., c].astype(np.float32))
        for zoom in zooms:
            x, y = width * (1 - 1 / zoom) / 2, height * (1 - 1 / zoom) / 2
            view = channel.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, width - x, height - y))
            total[..., c] += np.asarray(view)
    return total / (len(zooms) + 1)


def elastic_transform(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A smooth random displacement field on a small random affine map.

    Severities 3 to 5 are ImageNet-C's. Its first two are warps of the whole picture that displace more than its last ones; here 1 and 2 go
    on downwards from 3, so that severities are ordered.
    """
    side = min(picture.shape[:2])
    amplitude = (0.02, 0.035, 0.05, 0.07, 0.12)[severity - 1] * side
    sigma, jitter = 0.01 * side, 0.02 * side * (0.4, 0.7, 1, 1, 1)[severity - 1]
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float64)
    third = side // 3 or 1
    cy, cx = picture.shape[0] / 2, picture.shape[1] / 2
    corners = np.array([[cy + third, cx + third], [cy + third, cx - third], [cy - third, cx - third]])
    moved = corners + rng.uniform(-jitter, jitter, corners.shape)
    affine = np.linalg.solve(np.column_stack([corners, np.ones(3)]), moved)
    fields = [
        gaussian_filter(rng.uniform(-1, 1, y.shape), sigma, mode="reflect", truncate=3) * amplitude * _damping(sigma) for _ in range(2)
    ]
    grid = np.stack([y, x, np.ones_like(y)], -1) @ affine
    return warp(picture, grid[..., 0] + fields[0], grid[..., 1] + fields[1])


def _damping(sigma: float) -> float:
    """What a Gaussian filter leaves of white noise in two dimensions depends on sigma in pixels; this keeps it as it is at 224 pixels."""
    return sigma / (0.01 * SIDE)


def warp(picture: Array, y: Array, x: Array) -> Array:
    """The picture read at the places (y, x), linearly, its border mirrored."""
    channels = [map_coordinates(picture[..., c], (y, x), order=1, mode="reflect") for c in range(picture.shape[2])]
    return np.stack(channels, axis=-1)


def convolve(picture: Array, kernel: Array) -> Array:
    """Every channel convolved with an odd kernel of sum 1 (it is normalised here), the border mirrored."""
    from scipy.signal import fftconvolve  # slow to import, for some of many corruptions

    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(picture, ((rows, rows), (columns, columns), (0, 0)), mode="symmetric")
    return np.asarray(fftconvolve(padded, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1)), dtype=np.float64)


def _soft(picture: Array, sigma: float) -> Array:
    return np.asarray(gaussian_filter(picture, (sigma, sigma, 0), mode="nearest"), dtype=np.float64)
