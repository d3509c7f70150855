"""The unmodified pipelines of diffusers, called so that they edit a picture at its own size: the oracle of
the adapters.

FLUX.2-klein keeps the size of a picture below a megapixel by itself. FLUX.1-Kontext scales to sizes that it
prefers unless it is told not to, by arguments of its own. The Qwen pipelines scale every picture to about a
megapixel; their function that says to which size is replaced by one that says the picture's own (the smaller
view of a picture that Qwen-Image-Edit-Plus shows to its language model is left as it is). Nothing else
changes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL.Image import Image
from torch import Tensor

from sparring.models.editors import FlowEditor
from sparring.models.editors.flux2_klein import Flux2KleinEditor
from sparring.models.editors.flux_kontext import FluxKontextEditor
from sparring.models.editors.qwen_image_edit import QwenImageEditPlusEditor


def official(
    editor: FlowEditor,
    image: Image,
    instruction: str,
    seed: int,
    guidance: float = 1.0,
    *,
    steps: int = 3,
    pipeline: Any = None,
) -> Tensor:
    """What the unmodified pipeline (the editor's own if none is given) makes from the same noise, [C, H, W]
    in [0, 1].
    """
    pipeline = pipeline or editor.pipeline
    arguments = {
        "image": image,
        "prompt": instruction,
        "num_inference_steps": steps,
        "output_type": "pt",
        "generator": torch.Generator().manual_seed(seed),
    }
    pipeline.set_progress_bar_config(disable=True)
    if isinstance(editor, Flux2KleinEditor):
        length, layers = editor.text_length, editor.text_layers
        return pipeline(
            **arguments, guidance_scale=guidance, text_encoder_out_layers=layers, max_sequence_length=length
        ).images[0]
    if isinstance(editor, FluxKontextEditor):
        size = {
            "width": image.width,
            "height": image.height,
            "max_area": image.width * image.height,
            "_auto_resize": False,
        }
        return pipeline(
            **arguments,
            **size,
            guidance_scale=editor.embedded_guidance,
            true_cfg_scale=guidance,
            negative_prompt="" if guidance > 1 else None,
            max_sequence_length=editor.text_length,
        ).images[0]
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(editor, QwenImageEditPlusEditor):
            own, view = (
                pipeline_qwenimage_edit_plus.calculate_dimensions,
                pipeline_qwenimage_edit_plus.CONDITION_IMAGE_SIZE,
            )
            patch.setattr(
                pipeline_qwenimage_edit_plus,
                "calculate_dimensions",
                lambda area, ratio: own(area, ratio) if area == view else image.size,
            )
        else:
            patch.setattr(
                pipeline_qwenimage_edit, "calculate_dimensions", lambda area, ratio: (*image.size, None)
            )
        return pipeline(
            **arguments, true_cfg_scale=guidance, negative_prompt=" " if guidance > 1 else None
        ).images[0]
