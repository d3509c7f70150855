"""Group-relative advantages: a sample is measured against the other samples of its own prompt.

Letters: P prompts (groups), G samples of each.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def group_advantages(
    rewards_PG: Tensor,
    *,
    std_over: Literal["group", "batch", "none"] = "group",
    eps: float = 1e-4,
    clip: float | None = None,
) -> Tensor:
    """GRPO's advantages_PG = (reward - group mean) / (std + eps) (arXiv 2402.03300, section 4.1.2), float32.

    rewards_PG: [groups, samples], at least two samples. `std_over`: the sample standard deviation (n - 1) of
    the group, or of all P x G rewards; with "none" they are reward - group mean, nothing being divided by
    (Dr. GRPO, arXiv 2503.20783). A group without differences gets zeros. `clip`: advantages are clamped to
    [-clip, clip]. Raises ValueError for another shape.
    """
    if rewards_PG.dim() != 2 or rewards_PG.shape[1] < 2:
        raise ValueError(
            f"rewards must be [groups, samples] with at least two samples, not {list(rewards_PG.shape)}"
        )
    rewards_PG = rewards_PG.float()
    centred_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    # Equal rewards may leave a rounding error that a small std would blow up.
    flat_P1 = (rewards_PG == rewards_PG[:, :1]).all(dim=1, keepdim=True)
    centred_PG = centred_PG.masked_fill(flat_P1, 0.0)
    if std_over == "none":
        advantages_PG = centred_PG
    else:
        std = rewards_PG.std(dim=1, keepdim=True) if std_over == "group" else rewards_PG.std()
        advantages_PG = centred_PG / (std + eps)
    return advantages_PG if clip is None else torch.clamp(advantages_PG, -clip, clip)


def constrained_advantages(
    rewards_PG: Tensor,
    measure_PG: Tensor,
    multiplier: float,
    *,
    std_over: Literal["group", "batch", "none"] = "group",
    eps: float = 1e-4,
) -> Tensor:
    """advantages_PG = A(rewards) + multiplier x A(measure), each normalised by itself, so that neither washes
    the other out.
    """
    rewarded_PG = group_advantages(rewards_PG, std_over=std_over, eps=eps)
    return rewarded_PG + multiplier * group_advantages(measure_PG, std_over=std_over, eps=eps)


def dual_ascent(multiplier: float, measured: float, *, target: float, rate: float, upper: float) -> float:
    """The multiplier after an update whose answers had that mean measure: it rises while the target is
    missed, falls when it is passed, in [0, upper].
    """
    return min(max(multiplier + rate * (target - measured), 0.0), upper)
