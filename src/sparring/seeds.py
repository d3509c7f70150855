"""Seeds: every random choice is a function of the run's seed and of where it is made, never of what
happened before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def derive_seed(*where: int | str) -> int:
    """A seed in [0, 2^62) from the run's seed and the place of use: derive_seed(7, "round1/attacker", 12)."""
    text = "\x1f".join(str(part) for part in where)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def shuffled(items: Sequence[T], *where: int | str) -> list[T]:
    """The items in an order that depends on the place of use alone."""
    order = list(items)
    random.Random(derive_seed(*where)).shuffle(order)
    return order


def draw(items: Sequence[T], count: int, step: int, *where: int | str) -> list[T]:
    """`count` items for one step: all items are gone through in a shuffled order, again and again, before one
    comes back.

    Pure in (items, step, where), so that a resumed phase draws what an undisturbed one would have drawn. The
    items of one call are distinct as long as `count` does not exceed their number.
    """
    if not items:
        raise ValueError("there is nothing to draw from")
    size, start = len(items), step * count
    epochs = range(start // size, (start + count - 1) // size + 1)
    order = [index for epoch in epochs for index in shuffled(range(size), *where, epoch)]
    due = order[start % size : start % size + count]
    if count <= size:
        # Across the border of two epochs an item may be due twice in one call: the second time another takes
        # its place.
        spare = shuffled(range(size), *where, "spare", step)
        due = list(dict.fromkeys(due + spare))[:count]
    return [items[index] for index in due]
