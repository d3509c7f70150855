"""From what settings name to a painter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparring.config import PainterSettings
from sparring.data.errors import ModelError
from sparring.forge.painters.base import Painter

if TYPE_CHECKING:
    import torch

PLAIN = ("paste", "edges")


def is_plain(model: str) -> bool:
    """It needs no model."""
    return model.partition(":")[0] in PLAIN


def load_painter(settings: PainterSettings, device: torch.device) -> Painter:
    """The painter of these settings; a model's family is what its model_index.json says. Raises ModelError, and DataError for missing cut-outs."""
    from sparring.forge.painters.plain import Edges, Paste

    kind, _, rest = settings.model.partition(":")
    if kind == "paste":
        return Paste(rest or None)
    if settings.model == "edges":
        return Edges()
    from diffusers import DiffusionPipeline

    from sparring.forge.painters.models import FAMILIES

    try:
        name = DiffusionPipeline.load_config(settings.model).get("_class_name")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"painter {settings.model}: no readable model_index.json, so this is no diffusers pipeline folder: {error}"
        ) from error
    for family in FAMILIES:
        if name in family.made_for:
            return family.load(settings, device)
    known = ", ".join(sorted(made for family in FAMILIES for made in family.made_for))
    raise ModelError(f"painter {settings.model}: its pipeline class is {name}, known are {known}")
