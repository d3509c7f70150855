"""Attention faster than that of transformers, to the same result.

Attention of branches that share a row: in sampling, many to one cache; in training on a GPU, all tokens of
the row to each other.

In groups: several heads share their keys and values (grouped-query attention, arXiv 2305.13245).

With a mask, transformers copies keys and values for every head before it attends, unless there is a single
query a row. Branches of one row are several, and their prompt is long: in sampling that copy, of the whole
cache in every layer and step, is much of the time. Here the heads of a group are further queries of one head
instead. Without groups nothing is other than in transformers.

In blocks: FlexAttention (arXiv 2412.05496) skips blocks of tokens that do not see each other. Rows of every
micro-batch have another length; transformers' own wrapper compiles for the first that it meets and then
again, here it is compiled for all lengths at once.

Fast attention inside the vision towers of the Qwen-VL family, for many small pictures at once.

These towers put the patches of all pictures into one long row and attend within chunks of it (a picture, or
a window of one). The implementations that ship with transformers loop over the chunks in Python; on a CPU
with many small pictures that loop is most of the time. Here all chunks of one length go through one batched
call. The result is the same, whatever the lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, PreTrainedModel

from sparring.models.private import attention_of, choose_attention

GROUPED = "sparring_grouped"
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


AttentionInterface.register(GROUPED, attend_in_groups)
AttentionInterface.register(IN_BLOCKS, attend_in_blocks)


# A tower hands its chunk borders only to implementations that have "flash" in their name.
BY_LENGTH = "sparring_flash_by_length"


def attend_by_length(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within chunks, without causality: softmax(q k^T scaling) v in each of them.

    query, key, value: [1, heads, tokens, channels]; cu_seq_lens_q: [chunks + 1] borders of the chunks.
    Returns ([1, tokens, heads, channels], None).
    """
    if cu_seq_lens_q is None or attention_mask is not None:
        raise ValueError(
            "attention by length needs the borders of the chunks (cu_seq_lens_q) and no mask: use it for "
            "vision towers only"
        )
    borders = cu_seq_lens_q.tolist()
    lengths = [end - start for start, end in pairwise(borders)]
    options = {"dropout_p": dropout, "scale": scaling}
    if len(set(lengths)) == 1:
        return _batched(query, key, value, lengths[0], options).flatten(0, 1).unsqueeze(0), None
    owner = torch.repeat_interleave(torch.tensor(lengths), torch.tensor(lengths)).to(query.device)
    output = query.new_zeros(query.shape[2], query.shape[1], value.shape[3])
    for length in sorted(set(lengths) - {0}):
        rows = (owner == length).nonzero().squeeze(1)
        part = _batched(query[:, :, rows], key[:, :, rows], value[:, :, rows], length, options)
        output = output.index_copy(0, rows, part.flatten(0, 1))
    return output.unsqueeze(0), None


def _batched(query: Tensor, key: Tensor, value: Tensor, length: int, options: dict[str, Any]) -> Tensor:
    """[chunks, length, heads, channels] of attention within chunks that all have one length."""
    q, k, v = (
        part[0].reshape(part.shape[1], -1, length, part.shape[3]).transpose(0, 1)
        for part in (query, key, value)
    )
    return functional.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2)


def use_fast_vision_attention(model: PreTrainedModel) -> bool:
    """Let the model's vision tower attend by length. True where it has such a tower; any other model is left
    as it is.

    Nothing of it is saved with the checkpoint. A tower that runs a real flash attention already keeps it.
    """
    towers = [
        module
        for module in model.modules()
        if isinstance(module, PreTrainedModel) and _attends_in_chunks(module)
    ]
    for tower in towers:
        if "flash" not in str(attention_of(tower.config)):
            AttentionInterface.register(BY_LENGTH, attend_by_length)
            choose_attention(tower.config, BY_LENGTH)
    return bool(towers)


def _attends_in_chunks(module: PreTrainedModel) -> bool:
    """Towers of the Qwen-VL kind: patches in one row, and blocks that are told where a chunk ends."""
    blocks = getattr(module, "blocks", None)
    return (
        hasattr(module, "patch_embed")
        and isinstance(blocks, nn.ModuleList)
        and "Qwen" in type(module).__name__
    )
