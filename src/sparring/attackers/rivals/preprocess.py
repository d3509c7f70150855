"""What a Qwen-VL picture processor does to pixels, differentiably: resize, rescale, normalise, cut into patches.

The forward pass is the processor's own arithmetic, rounding included (Pillow's resampling of 8-bit pictures: weights in units of 2^-22, each
of its two passes rounded to 8 bits), so that an attack optimises the numbers that the model will see. The backward pass takes rounding for
the identity.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparring.data.errors import ModelError

PROCESSORS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorPil")
"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL have the same picture processor with other numbers. The first is transformers' torchvision version."""
PRECISION = 2**22


class PatchPixels:
    """Pixels to a processor's `pixel_values`, with a gradient."""

    def __init__(self, image_processor: Any) -> None:
        """Raises ModelError for a processor of another kind, or one told not to resize, rescale or normalise or with another filter than bicubic."""
        name = type(image_processor).__name__
        if name not in PROCESSORS:
            raise ModelError(
                f"a gradient attack on pixels needs a picture processor of the kinds {', '.join(PROCESSORS)}; this one is {name}"
            )
        usual = all(getattr(image_processor, f"do_{step}") for step in ("resize", "rescale", "normalize"))
        if not usual or int(image_processor.resample) != int(Image.Resampling.BICUBIC):
            raise ModelError("a gradient attack on pixels needs a processor that resizes (bicubic), rescales and normalises its pictures")
        self.patch, self.merge = int(image_processor.patch_size), int(image_processor.merge_size)
        self.frames = int(image_processor.temporal_patch_size)
        self.factor = float(image_processor.rescale_factor)
        self.mean, self.std = (
            torch.tensor(numbers, dtype=torch.float32) for numbers in (image_processor.image_mean, image_processor.image_std)
        )

    def __call__(self, pixels_RHWC: Tensor, grid: tuple[int, int]) -> Tensor:
        """pixel_values [R * patches, numbers of a patch], float32, of pictures in [0, 255] that are resized to `grid` (rows, columns) patches."""
        size = grid[0] * self.patch, grid[1] * self.patch
        resized_RCHW = resize(rounded(pixels_RHWC.double()).permute(0, 3, 1, 2), size)
        scaled_RCHW = (resized_RCHW * self.factor).float()
        mean, std = (numbers.to(scaled_RCHW.device)[:, None, None] for numbers in (self.mean, self.std))
        return self._cut((scaled_RCHW - mean) / std, grid)

    def _cut(self, pictures_RCHW: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches in the order of the blocks that are merged later; a still picture is so many equal frames."""
        rows, columns = grid[0] // self.merge, grid[1] // self.merge
        count, channels = pictures_RCHW.shape[:2]
        blocks = pictures_RCHW.view(count, channels, rows, self.merge, self.patch, columns, self.merge, self.patch)
        patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6).expand(*[-1] * 6, self.frames, -1, -1)
        return patches.reshape(count * grid[0] * grid[1], channels * self.frames * self.patch**2)


def resize(pictures_RCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's bicubic resize of 8-bit pictures (float64, whole numbers in [0, 255]) to `size` (height, width): columns first, then rows."""
    height, width = pictures_RCHW.shape[2:]
    if width != size[1]:
        pictures_RCHW = to_bytes(pictures_RCHW @ weights(width, size[1]).to(pictures_RCHW.device).T)
    if height != size[0]:
        pictures_RCHW = to_bytes(weights(height, size[0]).to(pictures_RCHW.device) @ pictures_RCHW)
    return pictures_RCHW


@lru_cache(maxsize=64)
def weights(old: int, new: int) -> Tensor:
    """Bicubic weights [new, old], float64, as Pillow computes them: the kernel with a = -0.5, as wide as the step where it makes smaller,
    normalised to 1, then rounded to units of 2^-22."""
    step = old / new
    wide = max(step, 1.0)
    support = 2 * wide
    matrix = np.zeros((new, old))
    for place in range(new):
        center = (place + 0.5) * step
        first, last = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), old)
        row = cubic((np.arange(first, last, dtype=np.float64) - center + 0.5) / wide)
        matrix[place, first:last] = row / row.sum()
    whole = np.trunc(matrix * PRECISION + np.where(matrix < 0, -0.5, 0.5))
    return torch.from_numpy(whole / PRECISION)


def cubic(x: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Keys' cubic convolution kernel with a = -0.5."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def rounded(x: Tensor) -> Tensor:
    """Rounded to whole numbers; the gradient passes as if it were not."""
    return x + (x.round() - x).detach()


def to_bytes(x: Tensor) -> Tensor:
    """Rounded half up and clipped to [0, 255]; the gradient passes as if it were not rounded, where it is not clipped."""
    x = x.clamp(0, 255)
    return x + ((x + 0.5).floor() - x).detach()
