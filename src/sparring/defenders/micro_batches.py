"""How an update's groups are cut into what one forward and backward pass takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from sparring.defenders.rollout import Group

MicroBatch = tuple[list[Group], Tensor]
"""Groups and the advantages of their answers, flat."""


def micro_batches(groups: Sequence[Group], advantages_PG: Tensor, size: int) -> list[MicroBatch]:
    """Micro-batches of at most `size` answers. A group is kept together, its picture being computed once for all of it, unless it is larger."""
    if not groups:
        return []
    answers = advantages_PG.shape[1]
    at_once = size // answers
    if at_once:
        return [(list(groups[i : i + at_once]), advantages_PG[i : i + at_once].flatten()) for i in range(0, len(groups), at_once)]
    parts = [slice(start, start + size) for start in range(0, answers, size)]
    return [([_part(group, part)], own_G[part]) for group, own_G in zip(groups, advantages_PG, strict=True) for part in parts]


def _part(group: Group, part: slice) -> Group:
    return replace(group, replies=group.replies[part], answers=group.answers[part], rewards=group.rewards[part])
