"""What happens to a picture between the world and the eye: light, blur, noise. All that a bundled model sees
in training goes through it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def blur(images_BCHW: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of so many pixels."""
    line = torch.exp(-torch.arange(-2, 3).float().square() / (2 * sigma**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = F.pad(images_BCHW, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(padded, kernel.expand(3, 1, 5, 5), groups=3)


def vary(images_BCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures in [-1, 1] in another light: gains of 0.5 to 1.5, casts, contrast, blur up to 0.9 pixels,
    noise up to 8 grey levels.
    """
    batch = len(images_BCHW)
    gain = np.exp(rng.uniform(np.log(0.5), np.log(1.5), (batch, 1))) * np.exp(rng.normal(0, 0.08, (batch, 3)))
    gain[rng.random(batch) < 0.2] = 1
    light = torch.from_numpy(gain.astype(np.float32))[:, :, None, None]
    varied = ((images_BCHW + 1) * light - 1).clamp(-1, 1)
    soft = rng.random(batch) < 0.3
    if soft.any():
        varied[torch.from_numpy(soft)] = blur(varied[torch.from_numpy(soft)], float(rng.uniform(0.3, 0.9)))
    strength = torch.from_numpy(rng.uniform(0, 0.06, (batch, 1, 1, 1)).astype(np.float32))
    return varied + strength * torch.from_numpy(rng.normal(0, 1, tuple(varied.shape)).astype(np.float32))
