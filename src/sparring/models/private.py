"""Names of transformers and diffusers that are not of their public interface and cannot be done without.

All of them stand in this file; `tests/models/test_private.py` says which of them a version took away. Modules
of diffusers are imported where they are used: a vision-language model alone shall not wait for pipelines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attention_of(config: Any) -> str | None:
    """The implementation of attention, such as "sdpa", of a model of transformers or of a part of one.

    The public `set_attn_implementation` sets it; nothing public tells it.
    """
    implementation: str | None = config._attn_implementation
    return implementation


def choose_attention(config: Any, implementation: str | None) -> None:
    """Let a model of transformers, or a part of one, attend in that registered way from here on.

    The public `set_attn_implementation` hands the name on to all parts of a model; here one part is changed,
    also for a single call.
    """
    config._attn_implementation = implementation


def checkpoint_block(block: Any, function: Callable[..., Any]) -> None:
    """Let `function` run a block of transformers whose gradients are checkpointed.

    The public `gradient_checkpointing_enable` is for a whole model in training mode, with dropout; here the
    model stays in evaluation mode, and its blocks alone are told that they train.
    """
    block._gradient_checkpointing_func = function


def linear_shift(tokens: int, config: Any) -> float:
    """mu of dynamic shifting by the number of tokens, as the pipelines of FLUX.1 and Qwen-Image compute it.

    config: their scheduler's.
    """
    # A helper of the pipeline's file, which many others copy.
    from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return float(calculate_shift(tokens, fewest, most, low, high))


def empirical_shift(tokens: int, steps: int) -> float:
    """mu of dynamic shifting by the numbers of tokens and steps, as the pipelines of FLUX.2 compute it."""
    # A helper of the pipeline's file that holds constants fitted by its authors.
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    return float(compute_empirical_mu(tokens, steps))


def size_to_read(width: int, height: int) -> tuple[int, int]:
    """(width, height) at which the language model of Qwen-Image-Edit-Plus is shown a picture of this size."""
    # The area is a constant of the pipeline's file, and what rounds the sides is a helper of it.
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import (
        CONDITION_IMAGE_SIZE,
        calculate_dimensions,
    )

    wide, high = calculate_dimensions(CONDITION_IMAGE_SIZE, width / height)
    return int(wide), int(high)
