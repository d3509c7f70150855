"""What FLUX.1 and Qwen-Image have in common: how latents become tokens, and how the sigmas shift with their number."""

from __future__ import annotations

import torch
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
from torch import Tensor

from sparring.models.editors.base import FlowEditor


class PackedEditor(FlowEditor):
    """2 x 2 latent pixels make a token. The pipelines draw noise before they pack it."""

    def _pack(self, latents_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = latents_BCHW.shape
        return torch.as_tensor(self.pipeline._pack_latents(latents_BCHW.contiguous(), batch, channels, height, width))

    def _unpack(self, latents_BTC: Tensor, grid: tuple[int, int]) -> Tensor:
        """Latents as the family's VAE takes them, in its dtype."""
        height, width = (side * self.multiple for side in grid)
        unpacked = self.pipeline._unpack_latents(latents_BTC, height, width, int(self.pipeline.vae_scale_factor))
        return torch.as_tensor(unpacked).to(self.dtype)

    def _noise_shape(self, grid: tuple[int, int]) -> tuple[int, ...]:
        return (1, int(self.transformer.config.in_channels) // 4, grid[0] * 2, grid[1] * 2)

    def _shift(self, steps: int, tokens: int) -> float:
        config = self.pipeline.scheduler.config
        first, last = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        return float(calculate_shift(tokens, first, last, config.get("base_shift", 0.5), config.get("max_shift", 1.15)))
