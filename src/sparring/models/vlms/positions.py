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
    # They depend on where pictures stand and how large they are, and the model goes through them row by row: once for every kind of row.
    mask_PL, types_PL = batch["attention_mask"], batch["mm_token_type_ids"]
    length, counts = mask_PL.shape[1], batch["picture_count"].tolist()
    grids_PI3 = mask_PL.new_zeros(len(counts), max(counts), 3)
    for grids_I3, own in zip(grids_PI3, torch.split(batch.get("image_grid_thw", mask_PL.new_zeros(0, 3)), counts), strict=True):
        grids_I3[: len(own)] = own
    kinds, kind_of = torch.unique(torch.cat([mask_PL, types_PL, grids_PI3.flatten(1)], dim=1), dim=0, return_inverse=True)
    mask, types, flat = kinds.split([length, length, 3 * max(counts)], dim=1)
    grids = flat.reshape(-1, 3)
    positions_3KL: Tensor = core.get_rope_index(
        torch.zeros_like(mask), mm_token_type_ids=types, image_grid_thw=grids[grids.prod(1) > 0], attention_mask=mask
    )[0]
    return positions_3KL[:, kind_of]


def next_positions(position_ids: Tensor) -> Tensor:
    """The position [P] of the first token behind each prompt, from [P, L] or [3, P, L]. Padding holds small positions."""
    return position_ids.reshape(-1, *position_ids.shape[-2:]).amax(dim=(0, 2)) + 1


def text_positions(position_ids: Tensor, positions_PQ: Tensor) -> Tensor:
    """Positions of text: [P, Q], or the same along all three axes where the model has three."""
    return positions_PQ if position_ids.dim() == 2 else positions_PQ.expand(3, -1, -1)
