"""Questions of relative position from boxes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sparring.seeds import derive_seed

SIDES = ("left", "right", "above", "below")
SMALLEST = 0.001
"""Share of the picture that an object must cover to be asked about."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An annotated object: its box [x0, y0, x1, y1] in pixels; a crowd is never asked about."""

    name: str
    box: list[int]
    crowd: bool = False


def relation_question(things: Sequence[Thing], size: tuple[int, int], name: str) -> tuple[Thing, Thing, str, tuple[str, ...]] | None:
    """(a, b, the side of b on which a is, all sides), drawn by the record's name; None where no pair is
    clear.

    Both are the only objects of their kind in the picture, and neither is tiny.
    """
    kinds = Counter(thing.name for thing in things)
    least = SMALLEST * size[0] * size[1]
    able = [t for t in things if kinds[t.name] == 1 and not t.crowd and (t.box[2] - t.box[0]) * (t.box[3] - t.box[1]) >= least]
    pairs = [(a, b, side) for a in able for b in able if a is not b and (side := side_of(a.box, b.box))]
    if not pairs:
        return None
    return *pairs[derive_seed("relation", name) % len(pairs)], SIDES


def side_of(a: Sequence[int], b: Sequence[int]) -> str | None:
    """Where box a is as seen from box b; None where that is not plain: beyond it along one axis, and beside
    it along the other.

    Along the other axis one box's middle must lie within the other box, so that no second side would be right
    as well.
    """
    for axis, (before, after) in enumerate((("left", "right"), ("above", "below"))):
        other = 1 - axis
        middles = [(box[other] + box[other + 2]) / 2 for box in (a, b)]
        beside = b[other] <= middles[0] < b[other + 2] or a[other] <= middles[1] < a[other + 2]
        if beside and a[axis + 2] <= b[axis]:
            return before
        if beside and b[axis + 2] <= a[axis]:
            return after
    return None
