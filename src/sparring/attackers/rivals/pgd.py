"""A white-box gradient attack on pixels: projected gradient descent in an L-infinity ball (Madry et al. 2018, arXiv 1706.06083).

Steps of the gradient's sign, from random starts, through the model's own preprocessing. Minimised is the log-probability of the Defender's own
right reply to the clean picture (of `\\boxed{X}` where that reply is wrong), or, with the goal "wrong", maximised is that of `\\boxed{W}` for a
wrong option W. Every start is rounded to 8 bits before it is judged, inside the budget, through the processor that pictures of files go
through; a start that makes the Defender answer wrongly is preferred, then the one whose loss went furthest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from sparring.attackers.rivals.base import OneByOne
from sparring.attackers.rivals.preprocess import PatchPixels
from sparring.attackers.rollout import to_pictures
from sparring.config import PgdSettings
from sparring.data.errors import ModelError
from sparring.data.records import VisualQuestion
from sparring.models.vlms.local import Batch, LocalVLM
from sparring.rl.seeds import derive_seed

TOLERANCE = 0.05  # of pixel_values; one grey level is about 0.015. Beyond it the processor is not the one that is imitated


@dataclass(frozen=True, slots=True)
class Victim:
    """The Defender as a gradient attack sees it: the model, what it is asked, and whether a reply answers a question rightly."""

    vlm: LocalVLM
    prompt: Callable[[VisualQuestion], str]
    right: Callable[[VisualQuestion, str], bool]
    max_new_tokens: int


def require_gradients(processor: Any, name: str) -> PatchPixels:
    """The processor's work, differentiably. Raises ModelError, naming the model, where its processor is not one that can be differentiated."""
    try:
        return PatchPixels(processor.image_processor)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


class Pgd(OneByOne):
    """See the module. One question at a time, its starts side by side, so that a picture does not depend on what else is attacked."""

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
        best, fooled = self._best(question, pictures, prompt, tokens, sign)
        goal = "the right answer's" if sign < 0 else "a wrong answer's"
        done = f"L-inf {settings.eps:g}/255, {settings.steps} steps on {goal} probability, best of {settings.restarts}"
        return pictures[best], f"{done}; {'fooled' if fooled else 'not fooled'}"

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
        logprobs_RT, _ = self.victim.vlm.completion_logprobs({**batch, "pixel_values": values}, [[tokens]] * len(x_RHWC))
        return sign * logprobs_RT.mean(1)

    @torch.no_grad()
    def _best(self, question: VisualQuestion, pictures: list[Image], prompt: str, tokens: list[int], sign: int) -> tuple[int, bool]:
        """The start to keep, and whether it makes the Defender answer wrongly. Judged on rounded pictures, as anybody would load them."""
        batch = self.victim.vlm.encode(pictures, [prompt] * len(pictures))
        logprobs_RT, _ = self.victim.vlm.completion_logprobs(batch, [[tokens]] * len(pictures))
        losses = (sign * logprobs_RT.mean(1)).tolist()
        fooled = [not self.victim.right(question, reply) for reply in self._replies(question, pictures, prompt)]
        best = max(range(len(pictures)), key=lambda i: (fooled[i], losses[i]))
        return best, fooled[best]

    def _replies(self, question: VisualQuestion, pictures: list[Image], prompt: str) -> list[str]:
        limit = self.victim.max_new_tokens
        return [own[0].text for own in self.victim.vlm.generate(pictures, [prompt] * len(pictures), max_new_tokens=limit)]

    @torch.no_grad()
    def _check(self, batch: Batch, clean_HWC: Tensor) -> None:
        grid = batch["image_grid_thw"][0]
        ours = self.preprocess(clean_HWC[None], (int(grid[1]), int(grid[2])))
        worst = float((ours - batch["pixel_values"][: len(ours)].float()).abs().max())
        if worst > TOLERANCE:
            raise ModelError(
                f"{self.victim.vlm.name}: its processor's pixel values differ from ours by up to {worst:.3f}, so gradients would be of another picture"
            )

    @staticmethod
    def _inside(x_RHWC: Tensor, clean_HWC: Tensor, eps: float) -> Tensor:
        """Nearest point of the ball around the clean picture, among pictures."""
        return torch.minimum(torch.maximum(x_RHWC, clean_HWC - eps), clean_HWC + eps).clamp(0, 255)
