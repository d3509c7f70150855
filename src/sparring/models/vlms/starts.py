"""Replies that are begun for the model: text put behind the prompt, for the model to go on from.

Letters: P prompts, L tokens of the longest prompt, padded on the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FILL = {"attention_mask": 1, "mm_token_type_ids": 0}


def append_starts(batch: Mapping[str, Tensor], starts: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """A processor's batch with token ids behind each prompt; all rows padded on the left anew. It must not hold positions yet."""
    prompts = batch["attention_mask"].sum(1).tolist()
    longest = max(length + len(start) for length, start in zip(prompts, starts, strict=True))

    def widened(rows_PL: Tensor, ends: Sequence[Sequence[int]], fill: int) -> Tensor:
        rows = []
        for row, length, end in zip(rows_PL.tolist(), prompts, ends, strict=True):
            own = [*row[len(row) - length :], *end]
            rows.append([*[fill] * (longest - len(own)), *own])
        return torch.tensor(rows, dtype=rows_PL.dtype)

    wider = dict(batch) | {"input_ids": widened(batch["input_ids"], starts, pad)}
    for name, value in FILL.items():
        if name in batch:
            wider[name] = widened(batch[name], [[value] * len(start) for start in starts], 0)
    return wider
