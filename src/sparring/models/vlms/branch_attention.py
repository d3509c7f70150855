"""Attention of branches that share a row: in sampling, many to one cache; in training on a GPU, all tokens of
the row to each other.

In groups: several heads share their keys and values (grouped-query attention, arXiv 2305.13245).

With a mask, transformers copies keys and values for every head before it attends, unless there is a single
query a row. Branches of one row are several, and their prompt is long: in sampling that copy, of the whole
cache in every layer and step, is much of the time. Here the heads of a group are further queries of one head
instead. Without groups nothing is other than in transformers.

In blocks: FlexAttention (arXiv 2412.05496) skips blocks of tokens that do not see each other. Rows of every
micro-batch have another length; transformers' own wrapper compiles for the first that it meets and then
again, here it is compiled for all lengths at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface

IMPLEMENTATION = "sparring_grouped"
IN_BLOCKS = "sparring_blocks"


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
    """softmax(q k^T scaling + mask) v, query head h with the keys and values of head h // (heads / key
    heads).

    query: [P, heads, B, channels]; key, value: [P, key heads, K, channels]; attention_mask: additive, [P, 1,
    heads of a group * B, K], the branches' rows once for every head of a group. Returns ([P, B, heads,
    channels], None).
    """
    rows, heads, branches, channels = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, channels)
    output = functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return output.reshape(rows, heads, branches, channels).transpose(1, 2), None


def attend_in_blocks(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: BlockMask,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """softmax(q k^T scaling + mask) v by FlexAttention, head h with the keys and values of head h // (heads /
    key heads).

    query: [P, heads, K, channels]; key, value: [P, key heads, K, channels]; attention_mask: of
    `branches.flex_mask`, [P, 1, K, K].
    Returns ([P, K, heads, channels], None). Raises ValueError without such a mask: every token would see
    every other.
    """
    if not isinstance(attention_mask, BlockMask):
        raise ValueError("attention in blocks needs a block mask: use it for rows of branches only")
    shared = query.shape[1] // key.shape[1]
    # Kernels of a GPU for short queries share keys among 2, 4, 8, ... heads only.
    if query.is_cuda and shared & (shared - 1):
        key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    grouped = query.shape[1] != key.shape[1]
    output = _flex_attention()(
        query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=grouped
    )
    return output.transpose(1, 2).contiguous(), None


@cache
def _flex_attention() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=True)


AttentionInterface.register(IMPLEMENTATION, attend_in_groups)
AttentionInterface.register(IN_BLOCKS, attend_in_blocks)
