"""The fifteen common corruptions of ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261), at five
severities, for pictures of any size.

Written here because the packages that offer them (imagecorruptions 1.1.2 and its fork imagecorruptions-imaug
1.1.5) carry photographs of frost without a known licence, need OpenCV, draw from a global generator, and do
not scale with the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from sparring.attackers.rivals.base import OneByOne, generator
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion

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
    """V of HSV raised by so much: hue and saturation stay, so a pixel is scaled by the ratio of its V after
    and before.
    """
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
    """Pixels change places with near ones, between two soft blurs. Every pass looks a random step of at most
    `delta` pixels away.
    """
    sigma, delta, passes = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    shuffled = _soft(picture, sigma * scale(picture))
    reach = delta * scale(picture)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float64)
    for _ in range(passes):
        shuffled = warp(
            shuffled, y + rng.uniform(-reach, reach, y.shape), x + rng.uniform(-reach, reach, x.shape)
        )
    return _soft(shuffled, sigma * scale(picture))


def motion_blur(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A smear along one direction within 45 degrees of the horizontal."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return smear(picture, radius * scale(picture), sigma * scale(picture), rng.uniform(-np.pi / 4, np.pi / 4))


def smear(picture: Array, radius: float, sigma: float, angle: float) -> Array:
    """A trail behind every point: half a Gaussian of `sigma` pixels, cut off after 2 `radius`, at `angle`
    from the x axis.
    """
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

    In steps of 0.01 at every severity: ImageNet-C's wider steps at 3 and 5 make fewer views, among which the
    sharp one weighs more.
    """
    zooms = np.arange(1, (1.11, 1.16, 1.21, 1.26, 1.31)[severity - 1], 0.01)
    height, width = picture.shape[:2]
    total = picture.copy()
    for c in range(picture.shape[2]):
        channel = Image.fromarray(picture[..., c].astype(np.float32))
        for factor in zooms:
            x, y = width * (1 - 1 / factor) / 2, height * (1 - 1 / factor) / 2
            view = channel.resize(
                (width, height), Image.Resampling.BILINEAR, box=(x, y, width - x, height - y)
            )
            total[..., c] += np.asarray(view)
    return total / (len(zooms) + 1)


def elastic_transform(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A smooth random displacement field on a small random affine map.

    Severities 3 to 5 are ImageNet-C's. Its first two are warps of the whole picture that displace more than
    its last ones; here 1 and 2 go on downwards from 3, so that severities are ordered.
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
        gaussian_filter(rng.uniform(-1, 1, y.shape), sigma, mode="reflect", truncate=3)
        * amplitude
        * _damping(sigma)
        for _ in range(2)
    ]
    grid = np.stack([y, x, np.ones_like(y)], -1) @ affine
    return warp(picture, grid[..., 0] + fields[0], grid[..., 1] + fields[1])


def _damping(sigma: float) -> float:
    """What a Gaussian filter leaves of white noise in two dimensions depends on sigma in pixels; this keeps
    it as it is at 224 pixels.
    """
    return sigma / (0.01 * SIDE)


def warp(picture: Array, y: Array, x: Array) -> Array:
    """The picture read at the places (y, x), linearly, its border mirrored."""
    channels = [
        map_coordinates(picture[..., c], (y, x), order=1, mode="reflect") for c in range(picture.shape[2])
    ]
    return np.stack(channels, axis=-1)


def convolve(picture: Array, kernel: Array) -> Array:
    """Every channel convolved with an odd kernel of sum 1 (it is normalised here), the border mirrored."""
    from scipy.signal import fftconvolve  # slow to import, for some of many corruptions

    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(picture, ((rows, rows), (columns, columns), (0, 0)), mode="symmetric")
    return np.asarray(
        fftconvolve(padded, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1)), dtype=np.float64
    )


def _soft(picture: Array, sigma: float) -> Array:
    return np.asarray(gaussian_filter(picture, (sigma, sigma, 0), mode="nearest"), dtype=np.float64)


LUMA = np.array([0.299, 0.587, 0.114])
ICE = np.array([0.82, 0.91, 1.0])


def snow(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """Flakes, smeared as they fall, over a picture drawn towards a pale grey; they fall twice, the second
    time upside down.

    Ours in ImageNet-C's table: the size of the flakes, and density, smear and paleness of severities 2 and
    5. As published the second severity changes a picture more than the third, and on small pictures the
    fifth less than the fourth.
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
    coarse = rng.normal(
        mean, std, (int(np.ceil(tall / (size * larger))) + 1, int(np.ceil(wide / (size * larger))) + 1)
    )
    layer = zoom(coarse, size * larger, order=1)[:tall, :wide]
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    layer = smear(layer[..., None], radius * larger, sigma * larger, rng.uniform(np.pi / 4, 3 * np.pi / 4))[
        ..., 0
    ]
    layer = np.asarray(
        Image.fromarray(layer.astype(np.float32)).resize((width, height), Image.Resampling.BOX),
        dtype=np.float64,
    )[..., None]
    grey = (picture @ LUMA)[..., None]
    pale = keep * picture + (1 - keep) * np.maximum(picture, 1.5 * grey + 0.5)
    return np.asarray(pale + layer + layer[::-1, ::-1], dtype=np.float64)


def frost(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A frosted pane laid over the picture."""
    keep, share = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    return keep * picture + share * pane(picture.shape[0], picture.shape[1], rng)


def pane(height: int, width: int, rng: np.random.Generator) -> Array:
    """A frosted window, [height, width, 3] in [0, 1]. The seeds of the crystals lie the denser the finer
    their generation.
    """
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
    return np.asarray(
        np.clip(0.25 * cloud + 0.75 * cracks * (0.4 + 0.6 * cloud), 0, 1)[..., None] * ICE, dtype=np.float64
    )


def fog(picture: Array, severity: int, rng: np.random.Generator) -> Array:
    """A plasma added, and the sum scaled back to the brightest value that the picture had."""
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    most = float(picture.max())
    clouds = plasma(picture.shape[0], picture.shape[1], decay, rng)
    foggy = picture + amount * clouds[..., None]
    return np.asarray(foggy * most / (most + amount), dtype=np.float64)


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> Array:
    """Clouds, [height, width] in [0, 1]: random grids, each twice as fine as the one before and weaker by
    `decay` squared.

    That is the spectrum of the diamond-square fractal, whose random steps shrink so from one halving to the
    next.
    """
    total, weight, cells = np.zeros((height, width)), 1.0, 2
    longest = max(height, width)
    while cells < 2 * longest:
        grid = rng.uniform(-1, 1, (min(cells, longest) + 1, min(cells, longest) + 1))
        places = (
            np.linspace(0, grid.shape[0] - 1, longest)[:height],
            np.linspace(0, grid.shape[1] - 1, longest)[:width],
        )
        total += weight * _between(grid, *places)
        weight, cells = weight / decay**2, cells * 2
    total -= total.min()
    return np.asarray(total / max(float(total.max()), 1e-12), dtype=np.float64)


def _between(grid: Array, y: Array, x: Array) -> Array:
    """A grid read at the crossings of rows y and columns x, linearly."""
    rows = np.stack([np.interp(y, np.arange(grid.shape[0]), column) for column in grid.T], axis=1)
    return np.stack([np.interp(x, np.arange(grid.shape[1]), row) for row in rows])


CORRUPTIONS: dict[str, Callable[[Array, int, np.random.Generator], Array]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
SEVERITIES = (1, 2, 3, 4, 5)


class Corruption(OneByOne):
    """One of the fifteen, at a severity from 1 to 5."""

    def __init__(self, kind: str, severity: int) -> None:
        if kind not in CORRUPTIONS or severity not in SEVERITIES:
            raise RecipeError(
                f"corruption {kind!r} at severity {severity}: known are {', '.join(CORRUPTIONS)}, at "
                f"severities 1 to 5"
            )
        super().__init__(f"corruption:{kind}:{severity}")
        self.kind, self.severity = kind, severity

    def _edit_one(self, question: VisualQuestion, image: Image.Image, seed: int) -> tuple[Image.Image, str]:
        return corrupt(
            image, self.kind, self.severity, generator(seed)
        ), f"{self.kind} of severity {self.severity}"


class Jpeg(OneByOne):
    """JPEG at a quality from 1 to 100."""

    def __init__(self, quality: int) -> None:
        if not 1 <= quality <= 100:
            raise RecipeError(f"jpeg:{quality}: a quality lies between 1 and 100")
        super().__init__(f"jpeg:{quality}")
        self.quality = quality

    def _edit_one(self, question: VisualQuestion, image: Image.Image, seed: int) -> tuple[Image.Image, str]:
        return jpeg(image, self.quality), f"JPEG of quality {self.quality}"


def corrupt(image: Image.Image, kind: str, severity: int, rng: np.random.Generator) -> Image.Image:
    """The corrupted picture, RGB, of the same size."""
    return to_image(CORRUPTIONS[kind](to_array(image), severity, rng))
