"""Do servers answer with the weights that they were sent? Shown by a few fixed questions: replies that a
server samples to them have, by its own account, the log-probabilities that the model in training gives them.

The bounds are ours. Two implementations in 16 bits differ by a few hundredths a token; how far these two do
shows at the first update, and no later one may differ ten times as far. A server that says exactly what it
said before the update, where the model in training has changed, did not take it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from PIL import Image

from sparring.data.errors import ModelError
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.endpoint import EndpointVLM
from sparring.models.vlms.local import LocalVLM

QUESTIONS = 4
TOKENS = 16
SIDE = 112
FARTHER = 10.0
SLIGHT = 1e-3
"""Nats a token that are never too much, nor a change."""


@dataclass(frozen=True, slots=True)
class _Said:
    tokens: list[list[int]]
    by_server: list[float]
    by_trainer: list[float]


class ServerCheck:
    """Looks at every server after every update."""

    def __init__(
        self, tolerance: float, *, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> None:
        """tolerance: mean difference of log-probabilities a token, in nats, above which is never allowed.

        min_pixels, max_pixels: the areas that pictures are brought to lie in, where they are not the
        checkpoint's own. One picture is then smaller, one larger: their tokens show a server without them.
        """
        self.tolerance = tolerance
        sides = [SIDE] * QUESTIONS
        if min_pixels is not None:
            sides.append(max(1, math.isqrt(min_pixels // 2)))
        if max_pixels is not None:
            sides.append(math.isqrt(max_pixels * 2))
        self.images = [_picture(number, side) for number, side in enumerate(sides)]
        self.prompts = [f"What is in picture {number}?" for number in range(len(sides))]
        self._first: dict[str, float] = {}
        self._last: dict[str, _Said] = {}

    def look(
        self, vlm: LocalVLM, remotes: Sequence[EndpointVLM], how: Mapping[str, Any], temperature: float
    ) -> float:
        """The largest difference of any server, in nats a token. how: see `orders.how_to_ask`.

        Raises ModelError, naming the server, where it does not answer as what it was sent would.
        """
        return max(self._look(vlm, remote, how, temperature) for remote in remotes)

    def _look(self, vlm: LocalVLM, remote: EndpointVLM, how: Mapping[str, Any], temperature: float) -> float:
        # Never from the cache: what was answered once tells nothing of the server as it is now.
        asked = {**how, "weights": f"{how.get('weights', '')} {uuid4()}"}
        replies = remote.sample(self.images, self.prompts, Sampling(TOKENS, temperature), how=asked)
        tokens = [one["token_ids"] for (one,) in replies]
        by_server = [value for (one,) in replies for value in one["logprobs"]]
        if not by_server:
            raise ModelError(
                f"endpoint {remote.address}: its replies to the questions of the check are empty."
            )
        batch = vlm.encode(self.images, self.prompts)
        self._sizes(remote, [one["prompt_tokens"] for (one,) in replies], batch)
        said = _Said(tokens, by_server, _logprobs(vlm, batch, tokens, temperature))
        address, difference = str(remote.address), _distance(said.by_server, said.by_trainer)
        allowed = self.tolerance
        if address in self._first:
            allowed = min(allowed, SLIGHT + FARTHER * self._first[address])
        last = self._last.get(address)
        moved = 0.0
        if last is not None and (last.tokens, last.by_server) == (said.tokens, said.by_server):
            moved = _distance(last.by_trainer, said.by_trainer)
        if moved > SLIGHT:
            raise _unserved(
                remote,
                f"it says exactly what it said before the update, which changed the log-probabilities of the "
                f"same tokens by {moved:.2g} nats in the model that trains",
            )
        if difference > allowed:
            raise _unserved(
                remote,
                f"its log-probabilities differ by {difference:.2g} nats a token from those of the model that "
                f"trains (allowed: {allowed:.2g})",
            )
        self._first.setdefault(address, difference)
        self._last[address] = said
        return difference

    def _sizes(self, remote: EndpointVLM, told: Sequence[int], batch: Mapping[str, torch.Tensor]) -> None:
        """Does the server make as many tokens of the pictures beyond the limits as training does?"""
        own = batch["attention_mask"].sum(1).tolist()
        for image, served, trained in list(zip(self.images, told, own, strict=True))[QUESTIONS:]:
            if served and served != trained:  # 0: it does not count
                raise _unserved(
                    remote,
                    f"it makes {served} tokens of a prompt with a picture of {image.width} x {image.height} "
                    f"pixels, and training makes {trained}",
                )


def _unserved(remote: EndpointVLM, reason: str) -> ModelError:
    return ModelError(
        f"endpoint {remote.address} does not answer with the weights that it was sent: {reason}. Serve the "
        "very model that defender.model names, with its log-probabilities after temperature and the limits "
        "of defender.min_pixels and max_pixels, where they are set; a LoRA on the vision tower "
        "(defender.train_vision) is more than servers apply as a rule. Where it computes in fewer bits, "
        "raise defender.rollout_server.probe_tolerance."
    )


@torch.no_grad()
def _logprobs(
    vlm: LocalVLM, batch: dict[str, torch.Tensor], tokens: Sequence[Sequence[int]], temperature: float
) -> list[float]:
    logprobs_NT, mask_NT = vlm.completion_logprobs(batch, [[own] for own in tokens], temperature=temperature)
    values: list[float] = logprobs_NT[mask_NT].tolist()
    return values


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return fmean(abs(a - b) for a, b in zip(one, other, strict=True))


def _picture(number: int, side: int) -> Image.Image:
    """Coloured blocks: nothing to be known, and all the vision tower's work."""
    blocks = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)
