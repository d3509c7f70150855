"""Attention of many branches to one cache, where several heads share their keys and values (grouped-query attention, arXiv 2305.13245).

With a mask, transformers copies keys and values for every head before it attends, unless there is a single query a row. Branches of one row are
several, and their prompt is long: in sampling that copy, of the whole cache in every layer and step, is much of the time. Here the heads of a group
are further queries of one head instead. Without groups nothing is other than in transformers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

IMPLEMENTATION = "sparring_grouped"


def attend_in_groups(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """softmax(q k^T scaling + mask) v, query head h with the keys and values of head h // (heads / key heads).

    query: [P, heads, B, channels]; key, value: [P, key heads, K, channels]; attention_mask: additive, [P, 1, heads of a group * B, K], the branches' rows
    once for every head of a group. Returns ([P, B, heads, channels], None).
    """
    rows, heads, branches, channels = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, channels)
    output = functional.scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling)
    return output.reshape(rows, heads, branches, channels).transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, attend_in_groups)
