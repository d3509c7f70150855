"""A cache of keys and values that takes the tokens of a step into room kept free behind it. transformers' own
is copied as a whole in every step.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache, DynamicLayer

STEPS_AHEAD = 8


class RoomyLayer(DynamicLayer):
    """Keys and values [rows, heads, tokens, channels] of one layer; `keys` and `values` are views of the
    longer tensors that they lie in.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.held: dict[str, tuple[Tensor, Tensor]] = {}
        """By name, the view that was handed out last, and the tensor that it is the beginning of."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Put the tokens of a step, [rows, heads, step's tokens, channels], behind the others. Returns all
        keys and all values.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._appended("keys", key_states), self._appended("values", value_states)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep those rows alone, and the room behind them."""
        if not self.get_seq_length():
            return
        for name in ("keys", "values"):
            present = getattr(self, name)
            seen, whole = self.held.get(name, (None, present))
            whole = (whole if present is seen else present)[indices]
            view = whole[..., : present.shape[-2], :]
            self.held[name] = (view, whole)
            setattr(self, name, view)

    def _appended(self, name: str, new: Tensor) -> Tensor:
        before = getattr(self, name)
        length = before.shape[-2] if before.numel() else 0
        needed = length + new.shape[-2]
        seen, whole = self.held.get(name, (None, new))
        # Whatever else changes the cache (copies of rows, for instance) puts other tensors into it, behind
        # which there is no room.
        if before is not seen or whole.shape[-2] < needed:
            room = needed // 4 + STEPS_AHEAD * new.shape[-2] if length else 0
            whole = new.new_empty(*new.shape[:-2], needed + room, new.shape[-1])
            if length:
                whole[..., :length, :] = before
        whole[..., length:needed, :] = new
        view = whole[..., :needed, :]
        self.held[name] = (view, whole)
        return view


def roomy_cache() -> Cache:
    """An empty cache for every layer of a model with full attention."""
    return Cache(layer_class_to_replicate=RoomyLayer)
