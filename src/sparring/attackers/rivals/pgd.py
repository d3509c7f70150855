r"""A white-box gradient attack on pixels: projected gradient descent in an L-infinity ball (Madry et al.
2018, arXiv 1706.06083).

Steps of the gradient's sign, from random starts, through the model's own preprocessing. Minimised is the
log-probability of the Defender's own right reply to the clean picture (of `\boxed{X}` where that reply is
wrong), or, with the goal "wrong", maximised is that of `\boxed{W}` for a wrong option W. What
comes out is rounded to 8 bits, inside the budget. Of several starts one that then makes the Defender answer
wrongly, through the processor that pictures of files go through, is preferred, then the one whose loss went
furthest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image, Resampling
from torch import Tensor

from sparring.attackers.rivals.base import OneByOne
from sparring.attackers.rollout import to_pictures
from sparring.config import PgdSettings
from sparring.data.errors import ModelError
from sparring.data.records import VisualQuestion
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import Batch, LocalVLM
from sparring.seeds import derive_seed

PROCESSORS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorPil")
"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL have the same picture processor with other numbers. The first is
transformers' torchvision version.
"""
PRECISION = 2**22


class PatchPixels:
    """Pixels to a processor's `pixel_values`, with a gradient."""

    def __init__(self, image_processor: Any) -> None:
        """Raises ModelError for a processor of another kind, or one told not to resize, rescale or normalise
        or with another filter than bicubic.
        """
        name = type(image_processor).__name__
        if name not in PROCESSORS:
            raise ModelError(
                f"a gradient attack on pixels needs a picture processor of the kinds "
                f"{', '.join(PROCESSORS)}; this one is {name}"
            )
        usual = all(getattr(image_processor, f"do_{step}") for step in ("resize", "rescale", "normalize"))
        if not usual or int(image_processor.resample) != int(Resampling.BICUBIC):
            raise ModelError(
                "a gradient attack on pixels needs a processor that resizes (bicubic), rescales and "
                "normalises its pictures"
            )
        self.patch, self.merge = int(image_processor.patch_size), int(image_processor.merge_size)
        self.frames = int(image_processor.temporal_patch_size)
        self.factor = float(image_processor.rescale_factor)
        self.mean, self.std = (
            torch.tensor(numbers, dtype=torch.float32)
            for numbers in (image_processor.image_mean, image_processor.image_std)
        )

    def __call__(self, pixels_RHWC: Tensor, grid: tuple[int, int]) -> Tensor:
        """pixel_values [R * patches, numbers of a patch], float32, of pictures in [0, 255] that are resized
        to `grid` (rows, columns) patches.
        """
        size = grid[0] * self.patch, grid[1] * self.patch
        resized_RCHW = resize(rounded(pixels_RHWC.double()).permute(0, 3, 1, 2), size)
        scaled_RCHW = (resized_RCHW * self.factor).float()
        mean, std = (numbers.to(scaled_RCHW.device)[:, None, None] for numbers in (self.mean, self.std))
        return self._cut((scaled_RCHW - mean) / std, grid)

    def _cut(self, pictures_RCHW: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches in the order of the blocks that are merged later; a still picture is so many equal
        frames.
        """
        rows, columns = grid[0] // self.merge, grid[1] // self.merge
        count, channels = pictures_RCHW.shape[:2]
        blocks = pictures_RCHW.view(
            count, channels, rows, self.merge, self.patch, columns, self.merge, self.patch
        )
        patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6).expand(*[-1] * 6, self.frames, -1, -1)
        return patches.reshape(count * grid[0] * grid[1], channels * self.frames * self.patch**2)


def resize(pictures_RCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's bicubic resize of 8-bit pictures (float64, whole numbers in [0, 255]) to `size` (height,
    width): columns first, then rows.
    """
    height, width = pictures_RCHW.shape[2:]
    if width != size[1]:
        pictures_RCHW = to_bytes(pictures_RCHW @ weights(width, size[1]).to(pictures_RCHW.device).T)
    if height != size[0]:
        pictures_RCHW = to_bytes(weights(height, size[0]).to(pictures_RCHW.device) @ pictures_RCHW)
    return pictures_RCHW


@lru_cache(maxsize=64)
def weights(old: int, new: int) -> Tensor:
    """Bicubic weights [new, old], float64, as Pillow computes them: the kernel with a = -0.5, as wide as the
    step where it makes smaller, normalised to 1, then rounded to units of 2^-22.
    """
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
    """Rounded half up and clipped to [0, 255]; the gradient passes as if it were not rounded, where it is not
    clipped.
    """
    x = x.clamp(0, 255)
    return x + ((x + 0.5).floor() - x).detach()


# of pixel_values; one grey level is about 0.015. Beyond it the processor is not the one that is imitated
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Victim:
    """The Defender as a gradient attack sees it: the model, what it is asked, and whether a reply answers a
    question rightly.
    """

    vlm: LocalVLM
    prompt: Callable[[VisualQuestion], str]
    right: Callable[[VisualQuestion, str], bool]
    max_new_tokens: int


def require_gradients(processor: Any, name: str) -> PatchPixels:
    """The processor's work, differentiably. Raises ModelError, naming the model, where its processor is not
    one that can be differentiated.
    """
    try:
        return PatchPixels(processor.image_processor)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


class Pgd(OneByOne):
    """See the module. One question at a time, its starts side by side, so that a picture does not depend on
    what else is attacked.
    """

    def __init__(self, victim: Victim, settings: PgdSettings, name: str = "pgd") -> None:
        """Raises ModelError where the victim's picture processor is not one that can be differentiated."""
        super().__init__(name)
        self.victim, self.settings = victim, settings
        self.preprocess = require_gradients(victim.vlm.processor, victim.vlm.name)
        self.budget = math.floor(settings.eps)

    def _edit_one(self, question: VisualQuestion, image: Image, seed: int) -> tuple[Image, str]:
        settings, vlm = self.settings, self.victim.vlm
        prompt = self.victim.prompt(question)
        text, sign = self._text(question, image, prompt, seed)
        tokens = vlm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        batch = vlm.encode([image] * settings.restarts, [prompt] * settings.restarts)
        clean_HWC = torch.from_numpy(np.array(image)).to(vlm.device, torch.float32)
        self._check(batch, clean_HWC)
        x_RHWC = self._starts(clean_HWC, seed)
        size = settings.step if settings.step is not None else 2.5 * settings.eps / settings.steps
        for _ in range(settings.steps):
            x_RHWC.requires_grad_(True)
            (slope_RHWC,) = torch.autograd.grad(self._loss(batch, x_RHWC, tokens, sign).sum(), x_RHWC)
            x_RHWC = self._inside(x_RHWC.detach() + size * slope_RHWC.sign(), clean_HWC, settings.eps)
        pictures = to_pictures(self._inside(x_RHWC.round(), clean_HWC, self.budget).permute(0, 3, 1, 2) / 255)
        goal = "the right answer's" if sign < 0 else "a wrong answer's"
        done = f"L-inf {settings.eps:g}/255, {settings.steps} steps on {goal} probability"
        if len(pictures) == 1:
            return pictures[0], done
        best, fooled = self._best(question, pictures, prompt, tokens, sign)
        return pictures[best], f"{done}, best of {len(pictures)}; {'fooled' if fooled else 'not fooled'}"

    def _text(self, question: VisualQuestion, image: Image, prompt: str, seed: int) -> tuple[str, int]:
        """The reply whose log-probability is moved, and whether down (-1) or up (+1)."""
        if self.settings.goal == "wrong":
            wrong = [letter for letter in question.letters if letter != question.answer]
            return f"\\boxed{{{wrong[derive_seed(seed, 'wrong') % len(wrong)]}}}", 1
        reply = self._replies(question, [image], prompt)[0]
        return (reply if self.victim.right(question, reply) else f"\\boxed{{{question.answer}}}"), -1

    def _starts(self, clean_HWC: Tensor, seed: int) -> Tensor:
        """Random places in the ball, or the clean picture itself."""
        starts = clean_HWC.expand(self.settings.restarts, *clean_HWC.shape).clone()
        if self.settings.random_start:
            random = torch.Generator().manual_seed(derive_seed(seed, "starts"))
            noise = torch.rand(starts.shape, generator=random).to(starts) * 2 - 1
            starts = self._inside(starts + noise * self.settings.eps, clean_HWC, self.settings.eps)
        return starts

    def _loss(self, batch: Batch, x_RHWC: Tensor, tokens: list[int], sign: int) -> Tensor:
        """loss_R, to be raised: the mean log-probability of a token of the reply, times the sign."""
        grid = batch["image_grid_thw"][0]
        values = self.preprocess(x_RHWC, (int(grid[1]), int(grid[2]))).to(batch["pixel_values"].dtype)
        logprobs_RT, _ = self.victim.vlm.completion_logprobs(
            {**batch, "pixel_values": values}, [[tokens]] * len(x_RHWC)
        )
        return sign * logprobs_RT.mean(1)

    @torch.no_grad()
    def _best(
        self, question: VisualQuestion, pictures: list[Image], prompt: str, tokens: list[int], sign: int
    ) -> tuple[int, bool]:
        """The start to keep, and whether it makes the Defender answer wrongly. Judged on rounded pictures, as
        anybody would load them.
        """
        batch = self.victim.vlm.encode(pictures, [prompt] * len(pictures))
        logprobs_RT, _ = self.victim.vlm.completion_logprobs(batch, [[tokens]] * len(pictures))
        losses = (sign * logprobs_RT.mean(1)).tolist()
        fooled = [
            not self.victim.right(question, reply) for reply in self._replies(question, pictures, prompt)
        ]
        best = max(range(len(pictures)), key=lambda i: (fooled[i], losses[i]))
        return best, fooled[best]

    def _replies(self, question: VisualQuestion, pictures: list[Image], prompt: str) -> list[str]:
        limit = self.victim.max_new_tokens
        return [
            own[0].text
            for own in self.victim.vlm.generate(pictures, [prompt] * len(pictures), Sampling(limit))
        ]

    @torch.no_grad()
    def _check(self, batch: Batch, clean_HWC: Tensor) -> None:
        grid = batch["image_grid_thw"][0]
        ours = self.preprocess(clean_HWC[None], (int(grid[1]), int(grid[2])))
        worst = float((ours - batch["pixel_values"][: len(ours)].float()).abs().max())
        if worst > TOLERANCE:
            raise ModelError(
                f"{self.victim.vlm.name}: its processor's pixel values differ from ours by up to "
                f"{worst:.3f}, so gradients would be of another picture"
            )

    @staticmethod
    def _inside(x_RHWC: Tensor, clean_HWC: Tensor, eps: float) -> Tensor:
        """Nearest point of the ball around the clean picture, among pictures."""
        return torch.minimum(torch.maximum(x_RHWC, clean_HWC - eps), clean_HWC + eps).clamp(0, 255)
