"""What a Defender's rewards are turned into: each algorithm's objective, and the KL term's reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sparring.config import (
    ClippedSettings,
    DefenderSettings,
    ImitationSettings,
    NormalisedSettings,
)
from sparring.models.vlms import lora
from sparring.models.vlms.local import Batch, LocalVLM
from sparring.rl.policy import Surrogate

FORMS: dict[str, dict[str, Any]] = {
    "dapo": {},
    "grpo": {"mean_over": "sequence"},
    "dr_grpo": {"mean_over": "constant"},
    "gspo": {"ratio_over": "sequence", "mean_over": "sequence"},
    "cispo": {"surrogate": "detached"},
}
"""How each algorithm's loss differs from DAPO's."""


def objective_of(settings: DefenderSettings) -> Surrogate:
    """The loss that a recipe asks for, with its numbers."""
    algorithm = settings.algorithm
    assert not isinstance(algorithm, ImitationSettings)  # which has no rewards
    clipped = algorithm if isinstance(algorithm, ClippedSettings) else None
    return Surrogate(
        clip_low=clipped.clip_low if clipped else 0.0,
        clip_high=algorithm.clip_high,
        dual_clip=clipped.dual_clip if clipped else None,
        longest=settings.max_new_tokens,
        kl_weight=settings.kl_weight,
        **FORMS[algorithm.type],
    )


def spread_of(settings: DefenderSettings) -> dict[str, Any]:
    """What advantages are divided by, as `rl.advantages` takes it."""
    algorithm = settings.algorithm
    if isinstance(algorithm, NormalisedSettings):
        return {"std_over": "group", "eps": algorithm.advantage_epsilon}
    return {"std_over": "none", "eps": 0.0}


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
