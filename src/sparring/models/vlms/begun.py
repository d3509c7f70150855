"""Replies that are already begun: tokens laid behind encoded prompts, for the model to go on from.

Letters: P prompts, L tokens of the longest row (padded on the left).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparring.models.vlms.positions import next_positions, text_positions


def begin_replies(batch: Mapping[str, Tensor], begun: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """The encoded prompts with the token ids of each reply's beginning behind them; rows stay padded on the left.

    Positions count on from each prompt, as they do when the model writes these tokens itself.
    """
    longest = max(len(own) for own in begun)
    if longest == 0:
        return dict(batch)
    device = batch["input_ids"].device
    tokens_PB = torch.full((len(begun), longest), pad, dtype=batch["input_ids"].dtype, device=device)
    written_PB = torch.zeros((len(begun), longest), dtype=batch["attention_mask"].dtype, device=device)
    for row, own in enumerate(begun):
        tokens_PB[row, : len(own)] = torch.tensor(list(own), dtype=tokens_PB.dtype)
        written_PB[row, : len(own)] = 1
    behind_PB = next_positions(batch["position_ids"]).unsqueeze(1) + torch.arange(longest, device=device)
    positions = torch.cat([batch["position_ids"], text_positions(batch["position_ids"], behind_PB)], dim=-1)
    found = dict(batch)
    found["input_ids"] = torch.cat([batch["input_ids"], tokens_PB], dim=1)
    found["attention_mask"] = torch.cat([batch["attention_mask"], written_PB], dim=1)
    # The padding that now stands behind short beginnings goes to the left: a stable sort keeps the order of all else.
    order_PL = found["attention_mask"].argsort(dim=1, stable=True)
    found["input_ids"] = found["input_ids"].gather(1, order_PL)
    found["attention_mask"] = found["attention_mask"].gather(1, order_PL)
    positions = positions.gather(-1, order_PL.expand_as(positions))
    # Padding holds small positions, so that the next one is the largest plus one.
    found["position_ids"] = positions.masked_fill(found["attention_mask"] == 0, 0)
    found.pop("mm_token_type_ids", None)
    return found
