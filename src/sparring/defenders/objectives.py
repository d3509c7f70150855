"""What a Defender's rewards are turned into: each algorithm's objective, and the KL term's reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sparring.config import (
    ClippedSettings,
    NormalisedSettings,
    RewardedAlgorithm,
)
from sparring.models.vlms import lora
from sparring.models.vlms.local import Batch, LocalVLM
from sparring.rl.policy import MeanOver, RatioOver, Surrogate


@dataclass(frozen=True, slots=True)
class Objective:
    """See `rl.policy.clipped_surrogate` and `rl.advantages.group_advantages`. Numbers are a recipe's, or not
    read.
    """

    ratio_over: RatioOver
    surrogate: Surrogate
    mean_over: MeanOver
    std_over: Literal["group", "none"]
    clip_low: float = 0.0
    clip_high: float = 0.0
    dual_clip: float | None = None
    epsilon: float = 0.0


OBJECTIVES = {
    "dapo": Objective("token", "clipped", "token", "group"),
    "grpo": Objective("token", "clipped", "sequence", "group"),
    "dr_grpo": Objective("token", "clipped", "constant", "none"),
    "gspo": Objective("sequence", "clipped", "sequence", "group"),
    "cispo": Objective("token", "detached", "token", "group"),
}


def objective_of(algorithm: RewardedAlgorithm) -> Objective:
    """The objective that a recipe asks for, with its numbers."""
    objective = replace(OBJECTIVES[algorithm.type], clip_high=algorithm.clip_high)
    if isinstance(algorithm, ClippedSettings):
        objective = replace(objective, clip_low=algorithm.clip_low, dual_clip=algorithm.dual_clip)
    if isinstance(algorithm, NormalisedSettings):
        objective = replace(objective, epsilon=algorithm.advantage_epsilon)
    return objective


class Reference:
    """The Defender at the start, for the KL term.

    One that trains a LoRA is its own reference with the LoRA switched off; else a frozen copy is kept in
    memory.
    """

    def __init__(self, vlm: LocalVLM, *, adapted: bool) -> None:
        """Make it before `vlm` is prepared for training. `adapted`: a LoRA is going to be trained, and
        nothing else.
        """
        self.vlm = vlm if adapted else LocalVLM(copy.deepcopy(vlm.model), vlm.processor, name="reference")

    @torch.no_grad()
    def logprobs(
        self, batch: Batch, replies: Sequence[Sequence[Sequence[int]]], temperature: float
    ) -> Tensor:
        """logprobs_NT of given replies, as `LocalVLM.completion_logprobs` orders them."""
        with without_adapter(self.vlm):
            return self.vlm.completion_logprobs(batch, replies, temperature=temperature)[0]


@contextmanager
def without_adapter(vlm: LocalVLM) -> Iterator[None]:
    """Inside, the model computes what it would without its LoRA, if it has one."""
    layers = lora.layers(vlm.model).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
