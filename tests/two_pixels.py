"""The smallest world that an Attacker can learn in, and questions and pictures to train it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparring.data.records import VisualQuestion
from sparring.models.editors import Conditions

SPREAD = 0.15


class TwoPixels:
    """A world of two grey pixels: the editor's exact flow leads to a Gaussian around `centre`, which is all
    that it can learn.
    """

    has_lora = False
    step_distilled = False
    device = torch.device("cpu")
    multiple = 1
    transformer = torch.nn.Module()

    def __init__(self) -> None:
        self.centre = torch.nn.Parameter(torch.zeros(2))

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        return {"centre": self.centre}

    def encode(
        self, images: Sequence[Image.Image], instructions: Sequence[str], guidance_scale: float = 1.0
    ) -> Conditions:
        return Conditions({"row": torch.zeros(len(images), 1)}, 1, 2, (1, 1), guidance_scale)

    def noise(self, conditions: Conditions, seeds: Sequence[int]) -> Tensor:
        return torch.cat(
            [torch.randn(1, 1, 2, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        return torch.linspace(1, 0, steps + 1)

    def velocity(self, x: Tensor, sigma: float | Tensor, conditions: Conditions) -> Tensor:
        s = torch.as_tensor(sigma).expand(len(x)).view(-1, 1, 1)
        variance = (1 - s) ** 2 * SPREAD**2 + s**2
        residual = x - (1 - s) * self.centre
        return s / variance * residual - self.centre - (1 - s) * SPREAD**2 / variance * residual

    def decode(self, latents: Tensor, conditions: Conditions) -> Tensor:
        return (latents / 2 + 0.5).clamp(0, 1).view(-1, 1, 1, 2).expand(-1, 3, -1, -1)


def questions(count: int) -> list[VisualQuestion]:
    return [
        VisualQuestion(f"q{i}", Path("none.png"), f"Where is thing {i}?", ("left", "right"), "A")
        for i in range(count)
    ]


def pictures(count: int, size: tuple[int, int] = (64, 64)) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        for _ in range(count)
    ]
