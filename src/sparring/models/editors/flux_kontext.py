"""FLUX.1-Kontext: AutoencoderKL, FluxTransformer2DModel, a T5 and a CLIP text encoder, as in diffusers'
FluxKontextPipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from diffusers import FluxKontextPipeline
from PIL.Image import Image
from torch import Tensor

from sparring.models.editors.base import PackedEditor
from sparring.models.editors.conditions import unique

TEXT_TOKENS = 512


class FluxKontextEditor(PackedEditor):
    """T5 reads the instruction token by token, CLIP as a whole; a distilled guidance scale is one more input
    of the transformer.

    The official pipeline scales every input picture to one of 17 sizes of about a megapixel; here a smaller
    one keeps its size (see `base`).
    """

    pipeline_class: ClassVar[Any] = FluxKontextPipeline
    lora_targets: ClassVar[str] = (
        r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
        r"|single_transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v)"
    )
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")

    @property
    def text_length(self) -> int:
        """Tokens of T5 to which every instruction is padded or cut: 512 for the real model."""
        return min(TEXT_TOKENS, int(self.pipeline.tokenizer_2.model_max_length))

    def _encode_text(self, images: Sequence[Image], texts: Sequence[str]) -> dict[str, Tensor]:
        different, places = unique(texts, str)
        embeddings, pooled, _ = self.pipeline.encode_prompt(
            different, device=self.device, max_sequence_length=self.text_length
        )
        tensors = {"text": torch.as_tensor(embeddings)[places], "pooled": torch.as_tensor(pooled)[places]}
        if self.transformer.config.guidance_embeds:
            # Kept with the rows, so that training sees the scale that the roll-out saw.
            tensors["guidance"] = torch.full((len(texts), 1), self.embedded_guidance, device=self.device)
        return tensors

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        return _image_positions(grid)

    def _predict(
        self, state_BSC: Tensor, sigma_B: Tensor, texts: dict[str, Tensor], positions: Tensor
    ) -> Tensor:
        output: Tensor = self.transformer(
            hidden_states=state_BSC,
            timestep=sigma_B,
            guidance=texts["guidance"].squeeze(1) if "guidance" in texts else None,
            pooled_projections=texts["pooled"],
            encoder_hidden_states=texts["text"],
            txt_ids=torch.zeros(texts["text"].shape[1], 3, device=self.device),
            img_ids=positions.to(self.device),
            return_dict=False,
        )[0]
        return output

    def _encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        config = self.pipeline.vae.config
        latents_BCHW = self.pipeline.vae.encode(pixels_BCHW).latent_dist.mode()
        return self._pack((latents_BCHW - config.shift_factor) * config.scaling_factor).float()

    def _decode_latents(self, latents_BTC: Tensor, grid: tuple[int, int]) -> Tensor:
        config = self.pipeline.vae.config
        latents_BCHW = self._unpack(latents_BTC, grid) / config.scaling_factor + config.shift_factor
        pixels_BCHW: Tensor = self.pipeline.vae.decode(latents_BCHW, return_dict=False)[0]
        return pixels_BCHW


@lru_cache(maxsize=64)
def _image_positions(grid: tuple[int, int]) -> Tensor:
    """Positions (which picture, row, column) of the edited picture's tokens (0) and then of the input
    picture's (1), [2 * tokens, 3].
    """
    return torch.cartesian_prod(torch.arange(2), torch.arange(grid[0]), torch.arange(grid[1])).float()
