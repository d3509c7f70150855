"""What DAPO keeps of its samples: dynamic sampling and the soft overlong punishment (arXiv 2503.14476, sections 3.2 and 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor


def keep_groups(rewards_PG: Tensor, low: float, high: float) -> Tensor:
    """keep_P (bool): groups whose mean reward lies strictly between low and high, the others being all wrong or all right."""
    means_P = rewards_PG.float().mean(dim=1)
    return (means_P > low) & (means_P < high)


def overlong_penalty(lengths_N: Tensor, limit: int, cache: int) -> Tensor:
    """DAPO's soft punishment (eq. 13), float32: 0 up to limit - cache tokens, then linear down to -1 at limit. cache 0 punishes nothing."""
    if cache <= 0:
        return torch.zeros_like(lengths_N, dtype=torch.float32)
    return ((limit - cache - lengths_N.float()) / cache).clamp(-1.0, 0.0)
