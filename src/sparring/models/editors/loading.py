"""From a pipeline folder to the adapter of its family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from sparring.data.errors import ModelError
from sparring.models.editors.base import FlowEditor
from sparring.models.editors.flux2_klein import Flux2KleinEditor
from sparring.models.editors.flux_kontext import FluxKontextEditor
from sparring.models.editors.loras import read_lora
from sparring.models.editors.qwen_image_edit import QwenImageEditEditor, QwenImageEditPlusEditor
from sparring.models.names import require_there

FAMILIES: tuple[type[FlowEditor], ...] = (Flux2KleinEditor, FluxKontextEditor, QwenImageEditEditor, QwenImageEditPlusEditor)


def load_editor(
    path: str | Path, *, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu", offload: bool = False
) -> FlowEditor:
    """Load an editor; the family is what `_class_name` in the folder's model_index.json says. For `offload` see `weights`. Raises ModelError."""
    return family_of(path).load(path, dtype=dtype, device=device, offload=offload)


def family_of(path: str | Path) -> type[FlowEditor]:
    """The adapter of the family that a folder's model_index.json names. Raises ModelError where there is
    none.
    """
    index = _index(path)
    for family in FAMILIES:
        if family.pipeline_class.__name__ == index.get("_class_name"):
            return family
    known = ", ".join(family.pipeline_class.__name__ for family in FAMILIES)
    raise ModelError(f"editor {path}: its pipeline class is {index.get('_class_name')}, known are {known}")


def check_editor(path: str | Path, lora: str | Path | None = None) -> None:
    """Would this editor load, with this LoRA, which must change something? No weights of the editor are
    read. Raises ModelError.
    """
    family = family_of(path)
    if lora is None:
        return
    try:
        kind = getattr(diffusers, _index(path)["transformer"][1])
        with torch.device("meta"):
            transformer = kind.from_config(kind.load_config(str(path), subfolder="transformer"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"editor {path}: its transformer's configuration cannot be read: {error}") from error
    read_lora(lora, transformer, family.pipeline_class.lora_state_dict).require_change()


def _index(path: str | Path) -> dict[str, Any]:
    require_there(path, "editor")
    try:
        return dict(DiffusionPipeline.load_config(str(path)))
    except (OSError, ValueError) as error:
        raise ModelError(f"editor {path}: no readable model_index.json, so this is no diffusers pipeline folder: {error}") from error
