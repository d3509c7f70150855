"""From what `train_editor.py` trains to an ordinary pipeline folder.

Training works on tokens of pixels in the order (colour, row, column) divided by `scale`, plus four constants,
and adds noise of standard deviation `noise` to them. A pipeline works on the packed latents of its
autoencoder, in their order, with noise of standard deviation 1. Both are the same up to an order and a
factor, which go into the transformer's first and last layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from transformers import Qwen3ForCausalLM

from sparring_arena.world import SIZE
from workshop.exact_autoencoder import build, packed_order


def export(
    transformer: Flux2Transformer2DModel,
    text_encoder: Qwen3ForCausalLM,
    tokenizer: Any,
    folder: str | Path,
    *,
    scale: float,
    noise: float,
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
    with torch.no_grad():
        exported.x_embedder.weight.copy_(transformer.x_embedder.weight[:, order] * noise)
        exported.proj_out.weight.copy_(transformer.proj_out.weight[order] / noise)
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=build(SIZE, scale=scale, noise=noise, constant=constant),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=exported,
        is_distilled=False,
    )
    pipeline.save_pretrained(folder)


def read_back(
    transformer: Flux2Transformer2DModel, text_encoder: Qwen3ForCausalLM, folder: str | Path, *, noise: float
) -> None:
    """Put into the two modules what `export` saved, to train it further."""
    flow = Flux2Transformer2DModel.from_pretrained(folder, subfolder="transformer")
    known, order = flow.state_dict(), packed_order()
    known["x_embedder.weight"] = torch.empty_like(known["x_embedder.weight"]).index_copy_(
        1, order, known["x_embedder.weight"] / noise
    )
    known["proj_out.weight"] = torch.empty_like(known["proj_out.weight"]).index_copy_(
        0, order, known["proj_out.weight"] * noise
    )
    transformer.load_state_dict(known)
    text_encoder.load_state_dict(
        Qwen3ForCausalLM.from_pretrained(folder, subfolder="text_encoder").state_dict()
    )
