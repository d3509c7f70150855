"""The learning rate over a round's training."""

from __future__ import annotations


def rate_factor(step: int, steps: int, end: float) -> float:
    """What the learning rate of update `step` (from 0) of `steps` is multiplied by: 1 at the first, `end` at the last, in a straight line between."""
    return 1 + (end - 1) * min(1.0, step / max(1, steps - 1))
