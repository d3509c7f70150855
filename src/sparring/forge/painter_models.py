"""Painters that are inpainting pipelines of diffusers: FLUX.1-Fill, FLUX.2-klein, Qwen-Image."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers import (
    Flux2KleinInpaintPipeline,
    FluxFillPipeline,
    FluxTransformer2DModel,
    QwenImageInpaintPipeline,
)
from PIL.Image import Image, fromarray

from sparring.attackers.crops import choose_crop
from sparring.config import PainterSettings
from sparring.data.errors import ModelError
from sparring.forge.painters import Mask, Painter, bounds
from sparring.models.players import DTYPES


class PipelinePainter(Painter):
    """A painter that is a pipeline. `made_for`: pipeline classes whose folders it can load."""

    pipeline_class: ClassVar[Any]
    made_for: ClassVar[tuple[str, ...]]
    transformer_class: ClassVar[Any] = None

    def __init__(self, pipeline: Any, settings: PainterSettings) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.settings = pipeline, settings

    @classmethod
    def load(cls, settings: PainterSettings, device: torch.device) -> Self:
        """Load the model of these settings; safetensors only. Raises ModelError."""
        dtype, parts = DTYPES[settings.dtype], dict[str, Any]()
        try:
            if settings.transformer is not None:
                if cls.transformer_class is None:
                    raise ModelError(
                        f"painter {settings.model}: another transformer can be put into FLUX.1-Fill only"
                    )
                name, _, subfolder = (
                    settings.transformer.partition(":")
                    if not Path(settings.transformer).is_dir()
                    else (settings.transformer, "", "")
                )
                parts["transformer"] = cls.transformer_class.from_pretrained(
                    name, subfolder=subfolder or None, torch_dtype=dtype, use_safetensors=True
                )
            pipeline = cls.pipeline_class.from_pretrained(
                settings.model, torch_dtype=dtype, use_safetensors=True, **parts
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"painter {settings.model}: not a readable {cls.pipeline_class.__name__} with safetensors "
                f"weights: {error}"
            ) from error
        return cls(pipeline.to(device), settings)

    @property
    def multiple(self) -> int:
        """Pixels that the sides of what the model works on are a multiple of."""
        return int(self.pipeline.vae_scale_factor) * 2

    @abstractmethod
    def _call(self, prompt: str) -> dict[str, Any]:
        """What the family's pipeline is called with beside picture, mask, size, steps and noise."""

    @torch.no_grad()
    def _paint(self, image: Image, mask: Mask, wanted: str, seed: int) -> Image:
        crop = choose_crop(image.size, [bounds(mask)], self.settings.crop, self.multiple)
        whole = fromarray(mask.astype(np.uint8) * 255)
        cut, hole = crop.cut(image), crop.cut(whole).point(lambda level: 255 if level else 0)
        right, below = (-side % self.multiple for side in cut.size)
        padded = fromarray(np.pad(np.asarray(cut), ((0, below), (0, right), (0, 0)), mode="edge"))
        hole = fromarray(np.pad(np.asarray(hole), ((0, below), (0, right))))
        made = self.pipeline(
            image=padded,
            mask_image=hole,
            width=padded.width,
            height=padded.height,
            strength=1.0,
            num_inference_steps=self.settings.steps,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="pil",
            **self._call(self.settings.prompt.replace("{object}", wanted)),
        ).images[0]
        if made.size != padded.size:
            raise ModelError(
                f"painter {self.settings.model}: gave back {made.size} pixels for {padded.size}; lower "
                f"painter.crop.max_area"
            )
        return crop.compose(image, made.convert("RGB").crop((0, 0, *cut.size)))


class FluxFill(PipelinePainter):
    """FLUX.1-Fill, and with `transformer` the OneReward checkpoint, which is such a model."""

    pipeline_class = FluxFillPipeline
    made_for = ("FluxFillPipeline",)
    transformer_class = FluxTransformer2DModel

    def _call(self, prompt: str) -> dict[str, Any]:
        length = min(512, int(self.pipeline.tokenizer_2.model_max_length))
        return {
            "prompt": prompt,
            "guidance_scale": self.settings.guidance_scale,
            "max_sequence_length": length,
        }


class Flux2Klein(PipelinePainter):
    """FLUX.2-klein: an editor that also sees the picture as it was."""

    pipeline_class = Flux2KleinInpaintPipeline
    made_for = ("Flux2KleinPipeline", "Flux2KleinInpaintPipeline")

    def _call(self, prompt: str) -> dict[str, Any]:
        depth = int(self.pipeline.text_encoder.config.num_hidden_layers)
        length = min(512, int(self.pipeline.tokenizer.model_max_length))
        # The quarters of the text encoder's depth: of 36 layers the pipeline's own 9, 18 and 27.
        layers = (depth // 4, depth * 2 // 4, depth * 3 // 4)
        guidance = self.settings.guidance_scale
        return {
            "prompt": prompt,
            "guidance_scale": guidance,
            "max_sequence_length": length,
            "text_encoder_out_layers": layers,
        }


class QwenImage(PipelinePainter):
    """Qwen-Image as an inpainting model."""

    pipeline_class = QwenImageInpaintPipeline
    made_for = ("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline")

    def _call(self, prompt: str) -> dict[str, Any]:
        scale = self.settings.guidance_scale
        length = min(512, int(self.pipeline.tokenizer.model_max_length))
        return {"prompt": prompt, "true_cfg_scale": scale, "max_sequence_length": length} | (
            {"negative_prompt": " "} if scale > 1 else {}
        )


FAMILIES: tuple[type[PipelinePainter], ...] = (FluxFill, Flux2Klein, QwenImage)
