"""Two ways to sturdier Defenders: part of the way back to older weights, and NoisyRollout's noise on
pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from sparring.config import DefenderSettings, NoisySettings
from sparring.engine.ranks import placed_like
from sparring.models.vlms.base import Completion
from sparring.models.vlms.local import LocalVLM


@torch.no_grad()
def move_towards_base(vlm: LocalVLM, base: LocalVLM, share: float) -> None:
    """Leave the Defender so much of its way from `base`, in place: 1 changes nothing, 0 is `base`. Both must
    have the same weights by name.
    """
    for (name, parameter), (same, start) in zip(
        vlm.model.named_parameters(), base.model.named_parameters(), strict=True
    ):
        assert name == same
        parameter.copy_(torch.lerp(placed_like(start.to(parameter.dtype), parameter), parameter, share))


STEPS = 1000


def strength(settings: NoisySettings, step: int, steps: int) -> int:
    """The diffusion step at update `step` of `steps`: strength x (1 - sigmoid(steepness x (step / steps -
    midpoint))), rounded down.
    """
    place = settings.steepness * (step / max(1, steps) - settings.midpoint)
    return int(settings.strength / (1 + math.exp(place)))


def kept_signal(strength: int) -> float:
    """alpha-bar after that step: the product of 1 - beta up to it, beta = 1e-5 + (5e-3 - 1e-5) sigmoid(x), x
    from -6 to 6 in 1000 steps.
    """
    beta = 1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-np.linspace(-6, 6, STEPS)))
    return float(np.prod(1 - beta[: strength + 1]))


def distort(image: Image.Image, strength: int, seed: int) -> Image.Image:
    """sqrt(alpha-bar) image + sqrt(1 - alpha-bar) noise, pixels in [0, 1], clipped to it."""
    signal = kept_signal(strength)
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    noise = np.random.default_rng(seed).standard_normal(pixels.shape)
    noisy = np.clip(math.sqrt(signal) * pixels + math.sqrt(1 - signal) * noise, 0, 1)
    return Image.fromarray((255 * noisy).round().astype(np.uint8))


@torch.no_grad()
def as_of_clean(
    vlm: LocalVLM,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    starts: Sequence[str],
    replies: Sequence[Sequence[Completion]],
    settings: DefenderSettings,
) -> list[list[Completion]]:
    """The same replies with the log-probabilities that they have about these pictures, for the ratio to begin
    at 1 where they are learned from.
    """
    moved = []
    at_once = max(1, settings.micro_batch // max(len(own) for own in replies))
    for first in range(0, len(replies), at_once):
        part = slice(first, first + at_once)
        batch = vlm.encode(images[part], prompts[part], starts[part])
        logprobs_NT, _ = vlm.completion_logprobs(
            batch,
            [[reply.token_ids for reply in own] for own in replies[part]],
            temperature=settings.temperature,
        )
        rows = iter(logprobs_NT.tolist())
        moved += [
            [replace(reply, logprobs=tuple(next(rows)[: len(reply.token_ids)])) for reply in own]
            for own in replies[part]
        ]
    return moved
