"""Many continuations of one prompt in one row of a batch.

A row is [prompt, continuation 1, continuation 2, ...]: the prompt, with its picture, is computed once. A
mask lets every continuation see the prompt and itself alone, and positions start again after the prompt for
each, so the numbers are those of separate rows.

Letters: P prompts, L prompt tokens (padded on the left), S tokens behind the prompt, N continuations in all
(those of prompt 0 first), T tokens of the longest continuation, K = L + S.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from sparring.data.errors import ModelError

PER_PICTURE = ("pixel_values", "image_grid_thw")
PADDING = -1  # as a branch number: a token of no continuation
PROMPT = -2  # ... and one that all continuations see


@dataclass(frozen=True, slots=True)
class Branches:
    """Continuations laid out behind their prompts.

    inputs_PS: every continuation but its last token, which predicts nothing. branch_PS: which continuation
    of its prompt a token belongs to; depth_PS: how many tokens of it come before. tokens_NT and mask_NT: the
    continuations themselves. place_NT: which of the 1 + S last outputs of row n // P predicts the token
    (output 0 is the prompt's last), as an index into P * (1 + S) of them.
    """

    inputs_PS: Tensor
    branch_PS: Tensor
    depth_PS: Tensor
    tokens_NT: Tensor
    mask_NT: Tensor
    place_NT: Tensor


def lay_out(continuations: Sequence[Sequence[Sequence[int]]], pad: int) -> Branches:
    """Lay out the token ids of every continuation of every prompt."""
    inputs = [[token for one in own for token in one[:-1]] for own in continuations]
    branch = [[b for b, one in enumerate(own) for _ in one[:-1]] for own in continuations]
    depth = [[d for one in own for d in range(len(one) - 1)] for own in continuations]
    width = 1 + max((len(row) for row in inputs), default=0)
    places: list[list[int]] = []
    for p, own in enumerate(continuations):
        offset = 1
        for one in own:
            places.append(
                [p * width, *range(p * width + offset, p * width + offset + len(one) - 1)][: len(one)]
            )
            offset += max(len(one) - 1, 0)
    flat = [list(one) for own in continuations for one in own]
    longest = max((len(one) for one in flat), default=0)
    mask_NT = torch.arange(longest) < torch.tensor([len(one) for one in flat]).unsqueeze(1)
    return Branches(
        _rows(inputs, width - 1, pad),
        _rows(branch, width - 1, PADDING),
        _rows(depth, width - 1, 0),
        _rows(flat, longest, pad),
        mask_NT,
        _rows(places, longest, 0),
    )


def _rows(rows: Sequence[Sequence[int]], width: int, fill: int) -> Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.long).view(
        len(rows), width
    )


def branch_mask(prompt_mask_PL: Tensor, branch_PS: Tensor) -> Tensor:
    """visible_P1KK (bool): which token (column) each token (row) sees. Causal; prompts see no padding;
    continuations see prompt and themselves.
    """
    branch_PK = _branches(prompt_mask_PL, branch_PS)
    query, key = branch_PK.unsqueeze(2), branch_PK.unsqueeze(1)
    length = branch_PK.shape[1]
    order = torch.arange(length, device=branch_PK.device)
    causal = order.unsqueeze(1) >= order
    related = (key == PROMPT) | ((query == key) & (query != PADDING))
    # A row without any key has no softmax: padding sees itself.
    itself = torch.eye(length, dtype=torch.bool, device=branch_PK.device)
    return ((causal & related) | itself).unsqueeze(1)


def flex_mask(prompt_mask_PL: Tensor, branch_PS: Tensor) -> BlockMask:
    """`branch_mask` for FlexAttention (arXiv 2412.05496), which skips whole blocks of pairs that do not see
    each other: [P, 1, K, K].
    """
    branch_PK = _branches(prompt_mask_PL, branch_PS)

    def visible(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_query, of_key = branch_PK[row, query], branch_PK[row, key]
        related = (of_key == PROMPT) | ((of_query == of_key) & (of_query != PADDING))
        return ((query >= key) & related) | (query == key)

    rows, length = branch_PK.shape
    return create_block_mask(visible, rows, None, length, length, device=str(branch_PK.device))


def _branches(prompt_mask_PL: Tensor, branch_PS: Tensor) -> Tensor:
    return torch.cat([torch.where(prompt_mask_PL.bool(), PROMPT, PADDING), branch_PS], dim=1)


def step_mask(prompt_mask_PL: Tensor, branches: int, steps: int) -> Tensor:
    """visible_P1BK (bool), K = L + B * steps: what the newest token of each of B branches sees when every
    step wrote one token a branch.
    """
    own_BK = torch.eye(branches, dtype=torch.bool, device=prompt_mask_PL.device).repeat(1, steps)
    prompt = prompt_mask_PL.bool().unsqueeze(1).expand(-1, branches, -1)
    return torch.cat([prompt, own_BK.expand(len(prompt), -1, -1)], dim=2).unsqueeze(1)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to attention scores: 0 where visible, the most negative number elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )


def one_row_each(batch: Mapping[str, Tensor], counts: Sequence[int]) -> dict[str, Tensor]:
    """The batch with prompt i, and its pictures, `counts[i]` times in a row."""
    rows = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).tolist()
    repeated = {}
    for name, tensor in batch.items():
        if name == "position_ids" and tensor.dim() == 3:
            repeated[name] = tensor[:, rows]
        elif name in PER_PICTURE:
            pieces = of_each_prompt(batch, name)
            repeated[name] = torch.cat([pieces[row] for row in rows])
        else:
            repeated[name] = tensor[rows]
    return repeated


def picture_counts(batch: Mapping[str, Tensor], pictures: Sequence[int], image_token: int | None) -> Tensor:
    """[P]: rows of `pixel_values`, or of the grids where there are any, of each prompt; zeros where that
    cannot be told.

    As a rule that is a row a picture. Families that cut pictures into tiles have a row a tile (InternVL),
    each of as many tokens, or a row a prompt (Idefics3). pictures: of each prompt. image_token: what stands
    in `input_ids` for each part of one.
    """
    counts = torch.tensor(pictures)
    parts = next((batch[name] for name in reversed(PER_PICTURE) if name in batch), None)
    if parts is None or len(parts) == counts.sum():
        return counts
    tokens = (batch["input_ids"] == image_token).sum(1).cpu() if image_token is not None else counts
    total = int(tokens.sum())
    # One token a picture says nothing of its tiles.
    if total > counts.sum() and not (tokens * len(parts) % total).any():
        return tokens * len(parts) // total
    return torch.full_like(counts, int(len(parts) == len(pictures)))


def of_each_prompt(batch: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """The part of a tensor about pictures that belongs to each prompt; where there are grids, `pixel_values`
    has a row a patch. Raises ModelError where the batch does not tell which rows are whose.
    """
    sizes = batch["picture_count"].tolist()
    if sum(sizes) != (rows := len(batch.get("image_grid_thw", batch[name]))):
        raise ModelError(
            f"which of {rows} rows of pictures belong to which of {len(sizes)} prompts cannot be told: "
            "models of this family can be asked, but neither trained nor scored here"
        )
    if name == "pixel_values" and "image_grid_thw" in batch:
        sizes = [int(grid.prod(-1).sum()) for grid in torch.split(batch["image_grid_thw"], sizes)]
    return list(torch.split(batch[name], sizes))


def prompt_positions(core: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Positions of the prompts' tokens: counted from the first that is no padding, [P, L], or as the model
    lays pictures out in three axes, [3, P, L].
    """
    if not hasattr(core, "get_rope_index"):
        return (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    # They depend on where pictures stand and how large they are, and the model goes through them row by row:
    # once for every kind of row.
    mask_PL, types_PL = batch["attention_mask"], batch["mm_token_type_ids"]
    length, counts = mask_PL.shape[1], batch["picture_count"].tolist()
    grids_PI3 = mask_PL.new_zeros(len(counts), max(counts), 3)
    for grids_I3, own in zip(
        grids_PI3, torch.split(batch.get("image_grid_thw", mask_PL.new_zeros(0, 3)), counts), strict=True
    ):
        grids_I3[: len(own)] = own
    kinds, kind_of = torch.unique(
        torch.cat([mask_PL, types_PL, grids_PI3.flatten(1)], dim=1), dim=0, return_inverse=True
    )
    mask, types, flat = kinds.split([length, length, 3 * max(counts)], dim=1)
    grids = flat.reshape(-1, 3)
    positions_3KL: Tensor = core.get_rope_index(
        torch.zeros_like(mask),
        mm_token_type_ids=types,
        image_grid_thw=grids[grids.prod(1) > 0],
        attention_mask=mask,
    )[0]
    return positions_3KL[:, kind_of]


def next_positions(position_ids: Tensor) -> Tensor:
    """The position [P] of the first token behind each prompt, from [P, L] or [3, P, L]. Padding holds small
    positions.
    """
    return position_ids.reshape(-1, *position_ids.shape[-2:]).amax(dim=(0, 2)) + 1


def text_positions(position_ids: Tensor, positions_PQ: Tensor) -> Tensor:
    """Positions of text: [P, Q], or the same along all three axes where the model has three."""
    return positions_PQ if position_ids.dim() == 2 else positions_PQ.expand(3, -1, -1)


FILL = {"attention_mask": 1, "mm_token_type_ids": 0}


def append_starts(
    batch: Mapping[str, Tensor], starts: Sequence[Sequence[int]], pad: int
) -> dict[str, Tensor]:
    """A processor's batch with token ids behind each prompt; all rows padded on the left anew. It must not
    hold positions yet.
    """
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
