"""A constraint inside the advantage: a measure of every answer that shall reach a target on average, whatever the reward does.

Faithful GRPO (arXiv 2604.08476) sets the idea: the constraint has an advantage of its own, weighted by a Lagrange multiplier that dual ascent moves.
Target, rate and bound are ours. Letters: P groups, G answers of each.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sparring.rl.advantages import group_advantages


def constrained_advantages(
    rewards_PG: Tensor,
    measure_PG: Tensor,
    multiplier: float,
    *,
    std_over: Literal["group", "batch", "none"] = "group",
    eps: float = 1e-4,
) -> Tensor:
    """advantages_PG = A(rewards) + multiplier x A(measure), each normalised by itself, so that neither washes the other out."""
    rewarded_PG = group_advantages(rewards_PG, std_over=std_over, eps=eps)
    return rewarded_PG + multiplier * group_advantages(measure_PG, std_over=std_over, eps=eps)


def dual_ascent(multiplier: float, measured: float, *, target: float, rate: float, upper: float) -> float:
    """The multiplier after an update whose answers had that mean measure: it rises while the target is missed, falls when it is passed, in [0, upper]."""
    return min(max(multiplier + rate * (target - measured), 0.0), upper)
