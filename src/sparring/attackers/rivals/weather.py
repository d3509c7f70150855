"""Common corruptions by weather: snow, frost, fog.

Parameters are those of ImageNet-C (see `noise.py`; lengths are scaled as in `blur.py`). Its frost is laid over from photographs of windows
whose licence is not known; ours is drawn: cracks between random seeds of crystals on a cloudy pane.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import zoom

from sparring.attackers.rivals.blur import scale, smear
from sparring.attackers.rivals.noise import Array

LUMA = np.array([0.299, 0.587, 0.114])
ICE = np.array([0.82, 0.91, 1.0])


def snow(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """Flakes, smeared as they fall, over a picture drawn towards a pale grey; they fall twice, the second time upside down.

    Ours in ImageNet-C's table: the size of the flakes, and density, smear and paleness of severities 2 and 5. As published the second severity
    changes a picture more than the third, and on small pictures the fifth less than the fourth.
    """
    mean, std, size, threshold, radius, sigma, keep = (
        (0.1, 0.3, 4.5, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 4.5, 0.5, 12, 4, 0.75),
        (0.55, 0.3, 3, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 2.75, 0.85, 12, 8, 0.65),
        (0.6, 0.3, 2.75, 0.8, 12, 8, 0.55),
    )[severity - 1]
    height, width = picture.shape[:2]
    # A flake may be smaller than a pixel: small pictures get theirs drawn at the published size and averaged.
    larger = max(scale(picture), 1.0)
    tall, wide = (round(side * larger / scale(picture)) for side in (height, width))
    coarse = rng.normal(mean, std, (int(np.ceil(tall / (size * larger))) + 1, int(np.ceil(wide / (size * larger))) + 1))
    layer = zoom(coarse, size * larger, order=1)[:tall, :wide]
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    layer = smear(layer[..., None], radius * larger, sigma * larger, rng.uniform(np.pi / 4, 3 * np.pi / 4))[..., 0]
    layer = np.asarray(Image.fromarray(layer.astype(np.float32)).resize((width, height), Image.Resampling.BOX), dtype=np.float64)[..., None]
    grey = (picture @ LUMA)[..., None]
    pale = keep * picture + (1 - keep) * np.maximum(picture, 1.5 * grey + 0.5)
    return np.asarray(pale + layer + layer[::-1, ::-1], dtype=np.float64)


def frost(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A frosted pane laid over the picture."""
    keep, share = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    return keep * picture + share * pane(picture.shape[0], picture.shape[1], rng)


def pane(height: int, width: int, rng: np.random.Generator) -> Array:
    """A frosted window, [height, width, 3] in [0, 1]. The seeds of the crystals lie the denser the finer their generation."""
    from scipy.spatial import cKDTree  # slow to import, for one of many corruptions

    side = min(height, width)
    y, x = np.mgrid[:height, :width]
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    cracks = np.zeros((height, width))
    for generation, seeds in enumerate((12, 40, 140)):
        count = max(4, round(seeds * height * width / side**2))
        near = cKDTree(rng.uniform((0, 0), (height, width), (count, 2))).query(points, k=2)[0]
        # Where two seeds are equally near, their crystals meet.
        gap = (near[:, 1] - near[:, 0]).reshape(height, width) / np.sqrt(height * width / count)
        cracks = np.maximum(cracks, np.exp(-gap / (0.12 + 0.05 * generation)) * (1, 0.8, 0.6)[generation])
    cloud = plasma(height, width, 1.6, rng)
    return np.asarray(np.clip(0.25 * cloud + 0.75 * cracks * (0.4 + 0.6 * cloud), 0, 1)[..., None] * ICE, dtype=np.float64)


def fog(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A plasma added, and the sum scaled back to the brightest value that the picture had."""
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    most = float(picture.max())
    clouds = plasma(picture.shape[0], picture.shape[1], decay, rng)
    foggy = picture + amount * clouds[..., None]
    return np.asarray(foggy * most / (most + amount), dtype=np.float64)


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> Array:
    """Clouds, [height, width] in [0, 1]: random grids, each twice as fine as the one before and weaker by `decay` squared.

    That is the spectrum of the diamond-square fractal, whose random steps shrink so from one halving to the next.
    """
    total, weight, cells = np.zeros((height, width)), 1.0, 2
    longest = max(height, width)
    while cells < 2 * longest:
        grid = rng.uniform(-1, 1, (min(cells, longest) + 1, min(cells, longest) + 1))
        places = (np.linspace(0, grid.shape[0] - 1, longest)[:height], np.linspace(0, grid.shape[1] - 1, longest)[:width])
        total += weight * _between(grid, *places)
        weight, cells = weight / decay**2, cells * 2
    total -= total.min()
    return np.asarray(total / max(float(total.max()), 1e-12), dtype=np.float64)


def _between(grid: Array, y: Array, x: Array) -> Array:
    """A grid read at the crossings of rows y and columns x, linearly."""
    rows = np.stack([np.interp(y, np.arange(grid.shape[0]), column) for column in grid.T], axis=1)
    return np.stack([np.interp(x, np.arange(grid.shape[1]), row) for row in rows])
