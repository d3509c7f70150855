"""Qwen-Image-Edit: AutoencoderKLQwenImage, QwenImageTransformer2DModel and Qwen2.5-VL, as in diffusers'
QwenImageEditPipeline.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline
from PIL.Image import Image
from torch import Tensor
from transformers import ProcessorMixin

from sparring.data.errors import ModelError
from sparring.models.editors.base import PackedEditor
from sparring.models.editors.conditions import pad_rows, unique
from sparring.models.private import size_to_read


class Qwen2VLProcessor(transformers.Qwen2VLProcessor):  # type: ignore[misc, unused-ignore]
    """transformers' processor of the same name without its video part, which would need torchvision; pictures
    and text are read alike.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template, **kwargs)


class QwenImageEditEditor(PackedEditor):
    """Qwen2.5-VL reads the instruction together with the picture; the transformer also sees the picture's
    latents.

    The official pipeline scales every input picture to about one megapixel; here a smaller one keeps its
    size (see `base`).
    """

    pipeline_class: ClassVar[Any] = QwenImageEditPipeline
    lora_targets: ClassVar[str] = (
        r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    )
    no_instruction: ClassVar[str] = " "

    @classmethod
    def _components(cls, path: str | Path) -> dict[str, Any]:
        try:
            return {"processor": Qwen2VLProcessor.from_pretrained(str(path), subfolder="processor")}
        except (OSError, ValueError) as error:
            raise ModelError(f"editor {path}: its processor cannot be loaded: {error}") from error

    def save_pipeline(self, folder: str | Path) -> None:
        """See `EditorWeights.save_pipeline`. The index names transformers' own processor class, so that any
        diffusers reads the folder.
        """
        super().save_pipeline(folder)
        index = Path(folder) / "model_index.json"
        entries = json.loads(index.read_text())
        entries["processor"] = ["transformers", "Qwen2VLProcessor"]
        index.write_text(json.dumps(entries, indent=2) + "\n")

    def _encode_text(self, images: Sequence[Image], texts: Sequence[str]) -> dict[str, Tensor]:
        pairs, places = unique(list(zip(images, texts, strict=True)), lambda pair: (id(pair[0]), pair[1]))
        embeddings, mask = self._read([image for image, _ in pairs], [text for _, text in pairs])
        return {"text": embeddings[places], "text_mask": mask[places]}

    def _read(self, images: Sequence[Image], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings [B, length, channels] and mask [B, length] of (picture, text) pairs."""
        embeddings, mask = self.pipeline.encode_prompt(
            prompt=list(texts), image=[self.fit(image) for image in images], device=self.device
        )
        if mask is None:  # the pipeline's word for "no padding"
            mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        return embeddings, mask

    def _positions(self, grid: tuple[int, int]) -> list[tuple[int, int, int]]:
        return [(1, *grid), (1, *grid)]

    def _predict(
        self,
        state_BSC: Tensor,
        sigma_B: Tensor,
        texts: dict[str, Tensor],
        positions: list[tuple[int, int, int]],
    ) -> Tensor:
        mask = texts["text_mask"]
        output: Tensor = self.transformer(
            hidden_states=state_BSC,
            timestep=sigma_B,
            guidance=None,
            encoder_hidden_states=texts["text"],
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[positions] * len(state_BSC),
            return_dict=False,
        )[0]
        return output

    def _guide(self, v_BTC: Tensor, negative_BTC: Tensor, scale: float) -> Tensor:
        """Guidance with the norm of the unguided velocity kept."""
        guided_BTC = super()._guide(v_BTC, negative_BTC, scale)
        norm_BT1, guided_norm_BT1 = (
            torch.sqrt((velocity**2).sum(-1, keepdim=True)) for velocity in (v_BTC, guided_BTC)
        )
        return guided_BTC * (norm_BT1 / guided_norm_BT1)

    def _encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        latents_BCFHW = self.pipeline.vae.encode(pixels_BCHW.unsqueeze(2)).latent_dist.mode()
        mean, std = self._statistics(latents_BCFHW)
        return self._pack(((latents_BCFHW - mean) / std).squeeze(2)).float()

    def _decode_latents(self, latents_BTC: Tensor, grid: tuple[int, int]) -> Tensor:
        latents_BCFHW = self._unpack(latents_BTC, grid).unsqueeze(2)
        mean, std = self._statistics(latents_BCFHW)
        pixels_BCHW: Tensor = self.pipeline.vae.decode(latents_BCFHW * std + mean, return_dict=False)[0][
            :, :, 0
        ]
        return pixels_BCHW

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation by which latents are normalised, held by the VAE's config."""
        config = self.pipeline.vae.config
        return tuple(
            torch.tensor(values).view(1, -1, 1, 1, 1).to(like)
            for values in (config.latents_mean, config.latents_std)
        )  # type: ignore[return-value]


class QwenImageEditPlusEditor(QwenImageEditEditor):
    """As Qwen-Image-Edit, but the language model sees the picture at about 384 x 384 pixels, whatever its
    size, as "Picture 1".

    Its prompts are read one by one: to this pipeline several pictures are the pictures of a single prompt.
    """

    pipeline_class: ClassVar[Any] = QwenImageEditPlusPipeline

    def _read(self, images: Sequence[Image], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [
            self.pipeline.encode_prompt(prompt=text, image=[self._view(image)], device=self.device)[0]
            for image, text in zip(images, texts, strict=True)
        ]
        length = max(row.shape[1] for row in rows)
        masks = [torch.ones(row.shape[:2], dtype=torch.long, device=row.device) for row in rows]
        return torch.cat([pad_rows(row, length) for row in rows]), torch.cat(
            [pad_rows(mask, length) for mask in masks]
        )

    def _view(self, image: Image) -> Image:
        width, height = size_to_read(image.width, image.height)
        view: Image = self.pipeline.image_processor.resize(image.convert("RGB"), height, width)
        return view
