"""Players as settings want them: from a name in a recipe to a loaded model."""

from __future__ import annotations

from pathlib import Path

import torch

from sparring.config import AttackerSettings, DefenderSettings, EndpointSettings
from sparring.models.editors import FlowEditor, load_editor
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.base import VLM, load_vlm, traits_of
from sparring.models.vlms.traits import Traits

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_attacking_editor(path: str, settings: AttackerSettings, device: torch.device) -> FlowEditor:
    """The editor in that folder, or of that hub id, as an Attacker's settings want it.

    Raises ModelError, and as `family_of`.
    """
    dtype = DTYPES[settings.dtype]
    editor = load_editor(path, dtype=dtype, device=device, offload=settings.offload, family=settings.family)
    editor.embedded_guidance = settings.embedded_guidance
    return editor


def load_asked_defender(path: str, settings: DefenderSettings, device: torch.device, cache: Path) -> VLM:
    """The Defender in that folder, of that hub id or behind that endpoint, whose answers are kept in `cache`.
    Raises ModelError.
    """
    return load_vlm(
        path,
        dtype=DTYPES[settings.dtype],
        device=device,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        endpoint=settings.endpoint,
        cache=cache,
    )


def traits_of_defender(path: str, settings: DefenderSettings) -> Traits:
    """The traits of the Defender that `load_asked_defender` would load."""
    return traits_of(
        path,
        dtype=settings.dtype,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        endpoint=settings.endpoint,
    )


def spending_of(path: str | None, endpoint: EndpointSettings, cache: Path) -> dict[str, float] | None:
    """What an endpoint has cost since its cache was begun, read without asking it anything; None where that
    names none.
    """
    if path is None or not is_endpoint(path):
        return None
    from sparring.models.vlms.endpoint import EndpointVLM

    return EndpointVLM(path, endpoint, cache=cache).spending()
