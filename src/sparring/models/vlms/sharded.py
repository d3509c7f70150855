"""Tensors whose parts lie in several processes (FSDP2)."""

from __future__ import annotations

from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, distribute_tensor


def full(tensor: Tensor) -> Tensor:
    """A tensor as a whole, wherever its parts are. All processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on the other's device, and in parts as the other is."""
    moved = tensor.to(other.device)
    return distribute_tensor(moved, other.device_mesh, other.placements) if isinstance(other, DTensor) else moved


def writes_files() -> bool:
    """Of several processes that hold the same model, the first one writes it."""
    return not distributed.is_available() or not distributed.is_initialized() or distributed.get_rank() == 0
