"""From a pipeline folder to the adapter of its family."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from sparring.data.errors import ModelError
from sparring.models.editors.base import FlowEditor
from sparring.models.editors.flux2_klein import Flux2KleinEditor
from sparring.models.editors.flux_kontext import FluxKontextEditor
from sparring.models.editors.qwen_image_edit import QwenImageEditEditor
from sparring.models.editors.qwen_image_edit_plus import QwenImageEditPlusEditor

FAMILIES: tuple[type[FlowEditor], ...] = (Flux2KleinEditor, FluxKontextEditor, QwenImageEditEditor, QwenImageEditPlusEditor)


def load_editor(
    path: str | Path, *, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu", offload: bool = False
) -> FlowEditor:
    """Load an editor; the family is what `_class_name` in the folder's model_index.json says. For `offload` see `weights`. Raises ModelError."""
    try:
        name = DiffusionPipeline.load_config(str(path)).get("_class_name")
    except (OSError, ValueError) as error:
        raise ModelError(f"editor {path}: no readable model_index.json, so this is no diffusers pipeline folder: {error}") from error
    for family in FAMILIES:
        if family.pipeline_class.__name__ == name:
            return family.load(path, dtype=dtype, device=device, offload=offload)
    known = ", ".join(family.pipeline_class.__name__ for family in FAMILIES)
    raise ModelError(f"editor {path}: its pipeline class is {name}, known are {known}")
