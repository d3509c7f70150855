"""What an editor knows of (picture, instruction) pairs before it denoises: encoded once, then repeated,
selected and put together as rows.

Letters: B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparring.data.errors import ModelError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Everything that is encoded once for B (image, instruction) pairs of one size.

    tensors: each with B rows. height, width: pixels of the decoded picture. grid: rows and columns of packed
    latent tokens.
    """

    tensors: dict[str, Tensor]
    height: int
    width: int
    grid: tuple[int, int]
    guidance_scale: float = 1.0

    @property
    def batch(self) -> int:
        """The number of rows."""
        return int(next(iter(self.tensors.values())).shape[0])

    def to(self, device: torch.device | str) -> Conditions:
        """The same on another device."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})

    def repeat(self, n: int) -> Conditions:
        """Each entry n times in a row: entry i becomes rows i*n to i*n + n - 1."""
        return replace(
            self, tensors={name: tensor.repeat_interleave(n, dim=0) for name, tensor in self.tensors.items()}
        )

    def select(self, rows: Tensor | slice | Sequence[int]) -> Conditions:
        """The given rows, in the given order; a row may come more than once."""
        index: Any = rows if isinstance(rows, (Tensor, slice)) else torch.tensor(list(rows), dtype=torch.long)
        return replace(self, tensors={name: tensor[index] for name, tensor in self.tensors.items()})

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        """Parts of the same size, one below the other; texts of unequal length are padded with zeros (their
        masks too).
        """
        first = parts[0]
        if any(
            (part.height, part.width, part.grid, part.guidance_scale)
            != (first.height, first.width, first.grid, first.guidance_scale)
            for part in parts
        ):
            raise ModelError(
                "conditions of different picture sizes or guidance scales cannot be put into one batch; sort "
                "them by size first"
            )
        tensors = {}
        for name in first.tensors:
            pieces = [part.tensors[name] for part in parts]
            length = max(piece.shape[1] for piece in pieces)
            tensors[name] = torch.cat([pad_rows(piece, length) for piece in pieces])
        return replace(first, tensors=tensors)


def pad_rows(piece: Tensor, length: int) -> Tensor:
    """Zeros appended along axis 1 up to `length`."""
    missing = length - piece.shape[1]
    return (
        piece
        if missing == 0
        else torch.cat([piece, piece.new_zeros(piece.shape[0], missing, *piece.shape[2:])], dim=1)
    )


def unique(items: Sequence[Item], key: Callable[[Item], Hashable]) -> tuple[list[Item], list[int]]:
    """The different items in order of appearance, and for every item the place of its like among them."""
    places: dict[Hashable, int] = {}
    different: list[Item] = []
    index = []
    for item in items:
        name = key(item)
        if name not in places:
            places[name] = len(different)
            different.append(item)
        index.append(places[name])
    return different, index
