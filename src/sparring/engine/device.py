"""Which device computes."""

from __future__ import annotations

import torch

from sparring.data.errors import RecipeError


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("device is cuda, but torch sees no CUDA device. Use --set device=cpu or auto.")
    return torch.device(name)
