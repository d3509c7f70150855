"""Qwen-Image-Edit-Plus (Qwen-Image-Edit-2509 and later), as in diffusers' QwenImageEditPlusPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import CONDITION_IMAGE_SIZE, calculate_dimensions
from PIL.Image import Image
from torch import Tensor

from sparring.models.editors.conditions import pad_rows
from sparring.models.editors.qwen_image_edit import QwenImageEditEditor


class QwenImageEditPlusEditor(QwenImageEditEditor):
    """As Qwen-Image-Edit, but the language model sees the picture at about 384 x 384 pixels, whatever its size, as "Picture 1".

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
        return torch.cat([pad_rows(row, length) for row in rows]), torch.cat([pad_rows(mask, length) for mask in masks])

    def _view(self, image: Image) -> Image:
        width, height = calculate_dimensions(CONDITION_IMAGE_SIZE, image.width / image.height)
        view: Image = self.pipeline.image_processor.resize(image.convert("RGB"), height, width)
        return view
