"""From what `train_editor.py` trains to an ordinary pipeline folder.

Training works on tokens of pixels in the order (colour, row, column) divided by `scale`, plus four constants,
and adds noise of the standard deviations `noise` to pixels and
constants. A pipeline works on the packed latents of its
autoencoder, in their order, with noise of standard deviation 1. Both are the same up to an order and a
factor, which go into the transformer's first and last layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from torch import Tensor
from transformers import Qwen3ForCausalLM

from sparring_arena.world import SIZE
from workshop.exact_autoencoder import PACKED, PIXELS, build, packed_order


def export(
    transformer: Flux2Transformer2DModel,
    text_encoder: Qwen3ForCausalLM,
    tokenizer: Any,
    folder: str | Path,
    *,
    scale: float,
    noise: tuple[float, float],
    constant: float,
    shift: float,
) -> None:
    """Save a `Flux2KleinPipeline` that does to latents what `transformer` does to tokens of pixels.

    scale, noise, constant: of the training's tokens; shift: of the scheduler's noise levels. The modules
    given are not changed. Raises ValueError for a transformer on other tokens.
    """
    order = packed_order()
    channels = (transformer.config.in_channels, transformer.proj_out.out_features)
    if channels != (len(order), len(order)):
        raise ValueError(
            f"a transformer of {channels} channels in and out: tokens of pixels have {len(order)}"
        )
    exported = Flux2Transformer2DModel.from_config(transformer.config)
    exported.load_state_dict(transformer.state_dict())
    deviation = deviations(noise)
    with torch.no_grad():
        exported.x_embedder.weight.copy_((transformer.x_embedder.weight * deviation)[:, order])
        exported.proj_out.weight.copy_((transformer.proj_out.weight / deviation[:, None])[order])
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=build(SIZE, scale=scale, noise=noise, constant=constant),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=exported,
        is_distilled=False,
    )
    pipeline.save_pretrained(folder)


def deviations(noise: tuple[float, float]) -> Tensor:
    """The standard deviation of the noise in every channel of a token of pixels, [196]."""
    return torch.tensor([noise[0]] * PACKED * PIXELS + [noise[1]] * PACKED)


def read_back(
    transformer: Flux2Transformer2DModel,
    text_encoder: Qwen3ForCausalLM,
    folder: str | Path,
    *,
    scale: float,
    constant: float,
) -> None:
    """Put into the two modules what `export` saved, to train it further. Its noise is told by its autoencoder."""
    flow = Flux2Transformer2DModel.from_pretrained(folder, subfolder="transformer")
    bn = AutoencoderKLFlux2.from_pretrained(folder, subfolder="vae").bn
    deviation = (bn.running_var[[0, -1]] + bn.eps).sqrt() * torch.tensor([1 / scale, constant])
    channels = deviations((deviation[0].item(), deviation[1].item()))
    known, back = flow.state_dict(), packed_order().argsort()
    known["x_embedder.weight"] = known["x_embedder.weight"][:, back] / channels
    known["proj_out.weight"] = known["proj_out.weight"][back] * channels[:, None]
    transformer.load_state_dict(known)
    text_encoder.load_state_dict(
        Qwen3ForCausalLM.from_pretrained(folder, subfolder="text_encoder").state_dict()
    )
