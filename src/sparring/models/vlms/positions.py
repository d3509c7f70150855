"""Positions of tokens: counted, or along three axes (time, row, column) for models with multimodal rotary positions.

Letters: P prompts, L prompt tokens (padded on the left), Q tokens behind the prompt, K kinds of layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def prompt_positions(core: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Positions of the prompts' tokens: counted from the first that is no padding, [P, L], or as the model lays pictures out in three axes, [3, P, L]."""
    if not hasattr(core, "get_rope_index"):
        return (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    mask, types, grid = batch["attention_mask"], batch["mm_token_type_ids"], batch.get("image_grid_thw")
    pictures = (types.diff(dim=1, prepend=torch.zeros_like(types[:, :1])) == 1).sum(1)
    if grid is None or not (pictures == 1).all():
        positions: Tensor = core.get_rope_index(torch.zeros_like(mask), mm_token_type_ids=types, image_grid_thw=grid, attention_mask=mask)[
            0
        ]
        return positions
    # They depend on where the picture stands and how large it is, and the model goes through them row by row: once for every kind of row.
    layout = torch.cat([mask, types, grid], dim=1)
    kinds, kind_of = torch.unique(layout, dim=0, return_inverse=True)
    mask, types, grid = kinds.split([mask.shape[1], types.shape[1], 3], dim=1)
    positions_3KL: Tensor = core.get_rope_index(torch.zeros_like(mask), mm_token_type_ids=types, image_grid_thw=grid, attention_mask=mask)[
        0
    ]
    return positions_3KL[:, kind_of]


def next_positions(position_ids: Tensor) -> Tensor:
    """The position [P] of the first token behind each prompt, from [P, L] or [3, P, L]. Padding holds small positions."""
    return position_ids.reshape(-1, *position_ids.shape[-2:]).amax(dim=(0, 2)) + 1


def text_positions(position_ids: Tensor, positions_PQ: Tensor) -> Tensor:
    """Positions of text: [P, Q], or the same along all three axes where the model has three."""
    return positions_PQ if position_ids.dim() == 2 else positions_PQ.expand(3, -1, -1)
