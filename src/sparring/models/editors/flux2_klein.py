"""FLUX.2-klein: AutoencoderKLFlux2, Flux2Transformer2DModel and a Qwen3 text encoder, as in diffusers'
Flux2KleinPipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from diffusers import Flux2KleinPipeline
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from sparring.models.editors.base import FlowEditor
from sparring.models.editors.conditions import unique
from sparring.models.private import empirical_shift

TEXT_TOKENS = 512


class Flux2KleinEditor(FlowEditor):
    """Text of at most `tokenizer.model_max_length` tokens (512 for the real models) joins the picture's
    tokens, padding and all.
    """

    pipeline_class: ClassVar[Any] = Flux2KleinPipeline
    lora_targets: ClassVar[str] = (
        r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
    )

    @property
    def takes_guidance(self) -> bool:
        """A distilled checkpoint ignores guidance, as the official pipeline does."""
        return not self.step_distilled

    @property
    def step_distilled(self) -> bool:
        """As the pipeline's configuration says; FLUX.2-klein-base is not."""
        return bool(self.pipeline.config.is_distilled)

    @property
    def text_length(self) -> int:
        """Tokens to which every instruction is padded or cut."""
        return min(TEXT_TOKENS, int(self.pipeline.tokenizer.model_max_length))

    @property
    def text_layers(self) -> tuple[int, int, int]:
        """The encoder's layers that are read: the quarters of its depth, which are the pipeline's own 9, 18,
        27 of 36.
        """
        depth = int(self.pipeline.text_encoder.config.num_hidden_layers)
        return depth // 4, depth * 2 // 4, depth * 3 // 4

    def _encode_text(self, images: Sequence[Image], texts: Sequence[str]) -> dict[str, Tensor]:
        different, places = unique(texts, str)
        embeddings, _ = self.pipeline.encode_prompt(
            different,
            device=self.device,
            max_sequence_length=self.text_length,
            text_encoder_out_layers=self.text_layers,
        )
        return {"text": torch.as_tensor(embeddings)[places]}

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        return image_positions(grid)

    def _predict(
        self, state_BSC: Tensor, sigma_B: Tensor, texts: dict[str, Tensor], positions: Tensor
    ) -> Tensor:
        output: Tensor = self.transformer(
            hidden_states=state_BSC,
            timestep=sigma_B,
            guidance=None,
            encoder_hidden_states=texts["text"],
            txt_ids=_text_ids(texts["text"].shape[1]).to(self.device),
            img_ids=positions.to(self.device),
            return_dict=False,
        )[0]
        return output

    def _encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        latents_BCHW = functional.pixel_unshuffle(self.pipeline.vae.encode(pixels_BCHW).latent_dist.mode(), 2)
        mean, std = self._statistics(latents_BCHW)
        return self._pack((latents_BCHW - mean) / std).float()

    def _decode_latents(self, latents_BTC: Tensor, grid: tuple[int, int]) -> Tensor:
        packed_BCHW = latents_BTC.transpose(1, 2).unflatten(2, grid).contiguous().to(self.dtype)
        mean, std = self._statistics(packed_BCHW)
        latents_BCHW = functional.pixel_shuffle(packed_BCHW * std + mean, 2)
        pixels_BCHW: Tensor = self.pipeline.vae.decode(latents_BCHW, return_dict=False)[0]
        return pixels_BCHW

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation by which latents are normalised, held by the VAE's batch norm."""
        vae = self.pipeline.vae
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(like)
        std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps).to(like)
        return mean, std

    def _pack(self, latents_BCHW: Tensor) -> Tensor:
        return latents_BCHW.flatten(2).transpose(1, 2).contiguous()

    def _noise_shape(self, grid: tuple[int, int]) -> tuple[int, ...]:
        return (1, int(self.transformer.config.in_channels), *grid)

    def _shift(self, steps: int, tokens: int) -> float:
        return empirical_shift(tokens, steps)


@lru_cache(maxsize=64)
def _text_ids(length: int) -> Tensor:
    """Positions (T, H, W, L) of text tokens, [length, 4]: only L runs."""
    return torch.cartesian_prod(torch.arange(1), torch.arange(1), torch.arange(1), torch.arange(length))


@lru_cache(maxsize=64)
def image_positions(grid: tuple[int, int]) -> Tensor:
    """Positions (T, H, W, L) of the edited picture's tokens (T = 0) and then of the input picture's (T = 10),
    [2 * tokens, 4].
    """
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    parts = [torch.cartesian_prod(torch.tensor([time]), rows, columns, torch.arange(1)) for time in (0, 10)]
    return torch.cat(parts)
