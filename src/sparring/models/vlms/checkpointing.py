"""Gradient checkpointing (arXiv 1604.06174) of a model that stays in evaluation mode.

transformers checkpoints only what is in training mode, where dropout would work too. Here the blocks alone are in it, and none of their parts.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from sparring.data.errors import ModelError


def set_up(model: nn.Module, enabled: bool) -> None:
    """Let every block that transformers can checkpoint do so, or none. Raises ModelError where there is none to be had."""
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if enabled and not blocks:
        raise ModelError(
            f"{type(model).__name__}: no blocks whose gradients could be checkpointed; set defender.gradient_checkpointing to false"
        )
    for block in blocks:
        block.training = block.gradient_checkpointing = enabled
        if enabled:
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
