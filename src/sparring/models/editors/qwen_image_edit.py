"""Qwen-Image-Edit: AutoencoderKLQwenImage, QwenImageTransformer2DModel and Qwen2.5-VL, as in diffusers' QwenImageEditPipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import transformers
from diffusers import QwenImageEditPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_shift
from PIL.Image import Image
from torch import Tensor
from transformers.processing_utils import ProcessorMixin

from sparring.data.errors import ModelError
from sparring.models.editors.base import Conditions, FlowEditor, unique

NO_INSTRUCTION = " "


class Qwen2VLProcessor(transformers.Qwen2VLProcessor):  # type: ignore[misc, unused-ignore]
    """transformers' processor of the same name without its video part, which would need torchvision; pictures and text are read alike."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template, **kwargs)


class QwenImageEditEditor(FlowEditor):
    """Qwen2.5-VL reads the instruction together with the picture; the transformer also sees the picture's latents.

    The official pipeline scales every input picture to about one megapixel; here a smaller one keeps its size (see `base`).
    """

    pipeline_class: ClassVar[Any] = QwenImageEditPipeline
    lora_targets: ClassVar[str] = r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"

    @classmethod
    def load(cls, path: str | Path, *, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu") -> Self:
        """See `FlowEditor.load`."""
        try:
            processor = Qwen2VLProcessor.from_pretrained(str(path), subfolder="processor")
        except (OSError, ValueError) as error:
            raise ModelError(f"editor {path}: its processor cannot be loaded: {error}") from error
        return cls._load(path, dtype, device, processor=processor)

    def save_pipeline(self, folder: str | Path) -> None:
        """See `FlowEditor.save_pipeline`. The index names transformers' own processor class, so that any diffusers reads the folder."""
        super().save_pipeline(folder)
        index = Path(folder) / "model_index.json"
        entries = json.loads(index.read_text())
        entries["processor"] = ["transformers", "Qwen2VLProcessor"]
        index.write_text(json.dumps(entries, indent=2) + "\n")

    @property
    def multiple(self) -> int:
        """VAE factor times the 2 x 2 packing."""
        return int(self.pipeline.vae_scale_factor) * 2

    @torch.no_grad()
    def encode(self, images: Sequence[Image], instructions: Sequence[str], guidance_scale: float = 1.0) -> Conditions:
        """See `FlowEditor.encode`. Guidance is against the instruction " ", with the norm of the guided velocity kept."""
        if not images or len(images) != len(instructions):
            raise ModelError(f"{len(images)} pictures and {len(instructions)} instructions: there must be as many, and at least one")
        pictures, places = unique(images, id)
        pixels_BCHW = self.pixels(pictures)
        fitted = [self.fit(picture) for picture in pictures]
        prompt_images = [fitted[place] for place in places]
        tensors = {"image": self._encode_pixels(pixels_BCHW)[places]}
        tensors["text"], tensors["text_mask"] = self._encode_text(prompt_images, instructions)
        if guidance_scale > 1:
            negative = [NO_INSTRUCTION] * len(instructions)
            tensors["negative_text"], tensors["negative_text_mask"] = self._encode_text(prompt_images, negative)
        grid = (pixels_BCHW.shape[2] // self.multiple, pixels_BCHW.shape[3] // self.multiple)
        return Conditions(tensors, images[0].height, images[0].width, grid, guidance_scale)

    def _encode_text(self, images: Sequence[Image], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings [B, length, channels] and mask [B, length] of (picture, text) pairs; a repeated pair is read once."""
        different, places = unique(list(zip(images, texts, strict=True)), lambda pair: (id(pair[0]), pair[1]))
        embeddings, mask = self.pipeline.encode_prompt(
            prompt=[text for _, text in different], image=[image for image, _ in different], device=self.device
        )
        if mask is None:  # the pipeline's word for "no padding"
            mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        return embeddings[places], mask[places]

    def velocity(self, latents_BTC: Tensor, sigma: float | Tensor, conditions: Conditions) -> Tensor:
        """See `FlowEditor.velocity`."""
        batch, tokens = latents_BTC.shape[:2]
        state = torch.cat([latents_BTC, conditions.tensors["image"]], dim=1).to(self.transformer.dtype)
        sigma_B = self._timesteps(sigma, batch)
        shapes = [[(1, *conditions.grid), (1, *conditions.grid)]] * batch

        def predict(name: str) -> Tensor:
            mask = conditions.tensors[f"{name}_mask"]
            output = self.transformer(
                hidden_states=state,
                timestep=sigma_B,
                guidance=None,
                encoder_hidden_states=conditions.tensors[name],
                encoder_hidden_states_mask=None if bool(mask.all()) else mask,
                img_shapes=shapes,
                return_dict=False,
            )[0]
            return torch.as_tensor(output[:, :tokens]).float()

        v_BTC = predict("text")
        if "negative_text" not in conditions.tensors:
            return v_BTC
        negative_BTC = predict("negative_text")
        guided_BTC = negative_BTC + conditions.guidance_scale * (v_BTC - negative_BTC)
        norm_BT1, guided_norm_BT1 = (torch.sqrt((velocity**2).sum(-1, keepdim=True)) for velocity in (v_BTC, guided_BTC))
        return guided_BTC * (norm_BT1 / guided_norm_BT1)

    @torch.no_grad()
    def decode(self, latents_BTC: Tensor, conditions: Conditions) -> Tensor:
        """See `FlowEditor.decode`."""
        factor = int(self.pipeline.vae_scale_factor)
        height, width = (side * self.multiple for side in conditions.grid)
        latents_BCFHW = self.pipeline._unpack_latents(latents_BTC, height, width, factor).to(self.dtype)
        mean, std = self._statistics(latents_BCFHW)
        pixels_BCHW = self.pipeline.vae.decode(latents_BCFHW * std + mean, return_dict=False)[0][:, :, 0]
        return self._finish(pixels_BCHW, conditions)

    def _encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        latents_BCFHW = self.pipeline.vae.encode(pixels_BCHW.unsqueeze(2)).latent_dist.mode()
        mean, std = self._statistics(latents_BCFHW)
        return self._pack(((latents_BCFHW - mean) / std).squeeze(2)).float()

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation by which latents are normalised, held by the VAE's config."""
        config = self.pipeline.vae.config
        return tuple(torch.tensor(values).view(1, -1, 1, 1, 1).to(like) for values in (config.latents_mean, config.latents_std))  # type: ignore[return-value]

    def _pack(self, latents_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = latents_BCHW.shape
        return torch.as_tensor(self.pipeline._pack_latents(latents_BCHW.contiguous(), batch, channels, height, width))

    def _noise_shape(self, grid: tuple[int, int]) -> tuple[int, ...]:
        return (1, int(self.transformer.config.in_channels) // 4, grid[0] * 2, grid[1] * 2)

    def _shift(self, steps: int, tokens: int) -> float:
        config = self.pipeline.scheduler.config
        first, last = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        return float(calculate_shift(tokens, first, last, config.get("base_shift", 0.5), config.get("max_shift", 1.15)))
