"""Fast attention inside the vision towers of the Qwen-VL family, for many small pictures at once.

These towers put the patches of all pictures into one long row and attend within chunks of it (a picture, or
a window of one). The implementations that ship with transformers loop over the chunks in Python; on a CPU
with many small pictures that loop is most of the time. Here all chunks of one length go through one batched
call. The result is the same, whatever the lengths.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from sparring.models.private import attention_of, choose_attention

# A tower hands its chunk borders only to implementations that have "flash" in their name.
IMPLEMENTATION = "sparring_flash_by_length"


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
            AttentionInterface.register(IMPLEMENTATION, attend_by_length)
            choose_attention(tower.config, IMPLEMENTATION)
    return bool(towers)


def _attends_in_chunks(module: PreTrainedModel) -> bool:
    """Towers of the Qwen-VL kind: patches in one row, and blocks that are told where a chunk ends."""
    blocks = getattr(module, "blocks", None)
    return (
        hasattr(module, "patch_embed")
        and isinstance(blocks, nn.ModuleList)
        and "Qwen" in type(module).__name__
    )
