"""From a pipeline folder to the adapter of its family: one of `FAMILIES`, or a further one that is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from sparring.data.errors import ModelError, RecipeError
from sparring.engine.calls import import_named
from sparring.models.editors.base import FlowEditor
from sparring.models.editors.flux2_klein import Flux2KleinEditor
from sparring.models.editors.flux_kontext import FluxKontextEditor
from sparring.models.editors.loras import read_lora
from sparring.models.editors.qwen_image_edit import QwenImageEditEditor, QwenImageEditPlusEditor
from sparring.models.names import require_there

FAMILIES: tuple[type[FlowEditor], ...] = (
    Flux2KleinEditor,
    FluxKontextEditor,
    QwenImageEditEditor,
    QwenImageEditPlusEditor,
)


def load_editor(
    path: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    offload: bool = False,
    family: str | None = None,
) -> FlowEditor:
    """Load an editor. For `family` see `family_of`, for `offload` see `weights`. Raises ModelError."""
    return family_of(path, family).load(path, dtype=dtype, device=device, offload=offload)


def family_of(path: str | Path, further: str | None = None) -> type[FlowEditor]:
    """The adapter for the pipeline class that a folder's model_index.json names.

    further: a family beside the known ones, and before them, as `package.module:Class`. Raises ModelError
    where none of them is for that class, RecipeError where the further one cannot be had.
    """
    name = _index(path).get("_class_name")
    families = FAMILIES if further is None else (import_family(further), *FAMILIES)
    for family in families:
        if family.pipeline_class.__name__ == name:
            return family
    known = ", ".join(family.pipeline_class.__name__ for family in families)
    raise ModelError(
        f"editor {path}: its pipeline class is {name}, known are {known}. "
        "An adapter of your own is made known by attacker.family (docs/extend.md)."
    )


def import_family(name: str) -> type[FlowEditor]:
    """The adapter that `attacker.family` names as `package.module:Class`.

    Raises RecipeError where it cannot be imported, is no FlowEditor, or lacks something that one must have.
    """
    family = import_named(name, "attacker.family", form="package.module:Class")
    if not (isinstance(family, type) and issubclass(family, FlowEditor)):
        raise RecipeError(f'attacker.family: "{name}" is no subclass of sparring.models.editors.FlowEditor.')
    lacks = [own for own in ("pipeline_class", "lora_targets") if not hasattr(family, own)]
    lacks += sorted(family.__abstractmethods__)
    if lacks:
        raise RecipeError(f'attacker.family: "{name}" lacks {", ".join(lacks)}; see models/editors/base.py.')
    return family


def check_editor(path: str | Path, lora: str | Path | None = None, family: str | None = None) -> None:
    """Would this editor load, with this LoRA, which must change something? No weights of the editor are read.

    Raises ModelError, and as `family_of`.
    """
    adapter = family_of(path, family)
    if lora is None:
        return
    try:
        kind = getattr(diffusers, _index(path)["transformer"][1])
        with torch.device("meta"):
            transformer = kind.from_config(kind.load_config(str(path), subfolder="transformer"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"editor {path}: its transformer's configuration cannot be read: {error}") from error
    read_lora(lora, transformer, adapter.pipeline_class.lora_state_dict).require_change()


def _index(path: str | Path) -> dict[str, Any]:
    require_there(path, "editor")
    try:
        return dict(DiffusionPipeline.load_config(str(path)))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"editor {path}: no readable model_index.json, so this is no diffusers pipeline folder: {error}"
        ) from error
