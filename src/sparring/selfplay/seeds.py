"""Seeded orders: what is drawn is a function of the run's seed and of the place of use, never of what was drawn before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from sparring.rl.seeds import derive_seed

T = TypeVar("T")


def shuffled(items: Sequence[T], *where: int | str) -> list[T]:
    """The items in an order that depends on the place of use alone."""
    order = list(items)
    random.Random(derive_seed(*where)).shuffle(order)
    return order


def draw(items: Sequence[T], count: int, step: int, *where: int | str) -> list[T]:
    """`count` items for one step: all items are gone through in a shuffled order, again and again, before one comes back.

    Pure in (items, step, where), so that a resumed phase draws what an undisturbed one would have drawn. The items of one call
    are distinct as long as `count` does not exceed their number.
    """
    if not items:
        raise ValueError("there is nothing to draw from")
    size, start = len(items), step * count
    epochs = range(start // size, (start + count - 1) // size + 1)
    order = [index for epoch in epochs for index in shuffled(range(size), *where, epoch)]
    due = order[start % size : start % size + count]
    if count <= size:
        # Across the border of two epochs an item may be due twice in one call: the second time another takes its place.
        spare = shuffled(range(size), *where, "spare", step)
        due = list(dict.fromkeys(due + spare))[:count]
    return [items[index] for index in due]
