"""The policy that a KL term holds the Defender near: itself as it was before training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sparring.models.vlms import lora
from sparring.models.vlms.local import Batch, LocalVLM


class Reference:
    """The Defender at the start. One that trains a LoRA is its own reference with the LoRA switched off; else a frozen copy is kept in memory."""

    def __init__(self, vlm: LocalVLM, *, adapted: bool) -> None:
        """Make it before `vlm` is prepared for training. `adapted`: a LoRA is going to be trained, and nothing else."""
        self.vlm = vlm if adapted else LocalVLM(copy.deepcopy(vlm.model), vlm.processor, name="reference")

    @torch.no_grad()
    def logprobs(self, batch: Batch, replies: Sequence[Sequence[Sequence[int]]], temperature: float) -> Tensor:
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
