"""FLUX.2-dev as an Attacker: an adapter for diffusers' Flux2Pipeline.

Letters: B rows of a batch, T tokens of one picture, S = 2 T tokens of the edited picture and then of the
input picture, C channels, H and W pixels or latent pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from transformers import AutoTokenizer

from sparring.data.errors import ModelError
from sparring.models.editors import FlowEditor
from sparring.models.editors.conditions import unique

TEXT_TOKENS = 512


class Flux2Editor(FlowEditor):
    """Mistral reads the instruction; a guidance scale is one more input of the transformer."""

    # It is for folders whose model_index.json names this class.
    pipeline_class: ClassVar[Any] = Flux2Pipeline
    # Layers that a LoRA is put on, a regular expression for the whole name.
    lora_targets: ClassVar[str] = (
        r"transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
    )

    @classmethod
    def _components(cls, path: str | Path) -> dict[str, Any]:
        # The folder's processor of texts and pictures needs torchvision; it is given texts alone.
        try:
            return {"tokenizer": AutoTokenizer.from_pretrained(str(path), subfolder="tokenizer")}
        except (OSError, ValueError) as error:
            raise ModelError(f"editor {path}: its tokenizer cannot be loaded: {error}") from error

    @property
    def takes_guidance(self) -> bool:
        """The official pipeline knows no classifier-free guidance (`attacker.guidance_scale`)."""
        return False

    @property
    def text_options(self) -> dict[str, Any]:
        """How the pipeline reads a text: layers 10, 20 and 30 of the 40 that Mistral Small has."""
        depth = int(self.pipeline.text_encoder.config.get_text_config().num_hidden_layers)
        length = min(TEXT_TOKENS, int(self.pipeline.tokenizer.model_max_length))
        layers = tuple(depth * quarter // 4 for quarter in (1, 2, 3))
        return {"max_sequence_length": length, "text_encoder_out_layers": layers}

    def _encode_text(self, images: Sequence[Image], texts: Sequence[str]) -> dict[str, Tensor]:
        different, places = unique(texts, str)
        text_BTC, _ = self.pipeline.encode_prompt(different, device=self.device, **self.text_options)
        # Kept with the rows, so that training sees the scale that the roll-out saw.
        scale_B1 = torch.full((len(texts), 1), self.embedded_guidance, device=self.device)
        return {"text": text_BTC[places], "guidance": scale_B1}

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """(time, row, column, 0) of every token, [S, 4]: time 0 for the edited picture, 10 for the input."""
        rows, columns, zero = torch.arange(grid[0]), torch.arange(grid[1]), torch.arange(1)
        times = torch.tensor([[0], [10]])
        return torch.cat([torch.cartesian_prod(time, rows, columns, zero) for time in times])

    def _predict(
        self,
        state_BSC: Tensor,
        sigma_B: Tensor,
        texts: dict[str, Tensor],
        positions: Tensor,
    ) -> Tensor:
        zero, words = torch.arange(1), torch.arange(texts["text"].shape[1])
        output_BSC: Tensor = self.transformer(
            hidden_states=state_BSC,
            timestep=sigma_B,
            guidance=texts["guidance"].squeeze(1),
            encoder_hidden_states=texts["text"],
            txt_ids=torch.cartesian_prod(zero, zero, zero, words).to(self.device),
            img_ids=positions.to(self.device),
            return_dict=False,
        )[0]
        return output_BSC

    def _encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        latents_BCHW = pixel_unshuffle(self.pipeline.vae.encode(pixels_BCHW).latent_dist.mode(), 2)
        mean, std = self._statistics(latents_BCHW)
        return self._pack((latents_BCHW - mean) / std).float()

    def _decode_latents(self, latents_BTC: Tensor, grid: tuple[int, int]) -> Tensor:
        packed_BCHW = latents_BTC.transpose(1, 2).unflatten(2, grid).contiguous().to(self.dtype)
        mean, std = self._statistics(packed_BCHW)
        latents_BCHW = pixel_shuffle(packed_BCHW * std + mean, 2)
        pixels_BCHW: Tensor = self.pipeline.vae.decode(latents_BCHW, return_dict=False)[0]
        return pixels_BCHW

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of latents, which the autoencoder's batch norm holds."""
        norm, eps = self.pipeline.vae.bn, self.pipeline.vae.config.batch_norm_eps
        mean, variance = (own.view(1, -1, 1, 1).to(like) for own in (norm.running_mean, norm.running_var))
        return mean, torch.sqrt(variance + eps)

    def _pack(self, latents_BCHW: Tensor) -> Tensor:
        return latents_BCHW.flatten(2).transpose(1, 2).contiguous()

    def _noise_shape(self, grid: tuple[int, int]) -> tuple[int, ...]:
        return (1, int(self.transformer.config.in_channels), *grid)

    def _shift(self, steps: int, tokens: int) -> float:
        return float(compute_empirical_mu(tokens, steps))
