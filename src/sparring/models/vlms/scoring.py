"""What a model says of given replies: the log-probabilities of their tokens.

Letters as in `local`; S tokens of a row's replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparring.data.errors import DataError, RefusedError
from sparring.models.vlms.base import Pictures
from sparring.models.vlms.branches import (
    PADDING,
    additive,
    branch_mask,
    flex_mask,
    lay_out,
    next_positions,
    one_row_each,
    text_positions,
)
from sparring.models.vlms.generating import token_logprobs
from sparring.models.vlms.processors import refused_error

if TYPE_CHECKING:
    from sparring.models.vlms.local import Batch, LocalVLM


def completion_logprobs(
    vlm: LocalVLM,
    batch: Batch,
    completions: Sequence[Sequence[Sequence[int]]],
    *,
    temperature: float = 1.0,
    forbid: bool = True,
) -> tuple[Tensor, Tensor]:
    """logprobs_NT (float32, differentiable; 0 in padding) and mask_NT (bool) of the token ids of given
    replies to encoded prompts.

    completions: for every prompt any number of replies; the N rows are those of prompt 0, then of prompt
    1, ... Every prompt and picture is computed once, where the model's family allows it. `forbid`: as
    sampled, without the placeholders of pictures; else over all tokens.
    """
    if len(completions) != len(batch["input_ids"]):
        raise DataError(
            f"{len(completions)} lists of replies for {len(batch['input_ids'])} prompts: give one list a "
            f"prompt"
        )
    if not vlm.shares_rows:
        batch = one_row_each(batch, [len(own) for own in completions])
        completions = [[one] for own in completions for one in own]
    laid = lay_out(completions, pad=vlm.processor.tokenizer.pad_token_id)
    inputs_PS, branch_PS, depth_PS, tokens_NT, mask_NT, place_NT = (
        part.to(vlm.device)
        for part in (
            laid.inputs_PS,
            laid.branch_PS,
            laid.depth_PS,
            laid.tokens_NT,
            laid.mask_NT,
            laid.place_NT,
        )
    )
    mask: Any
    if vlm.flex:
        mask = flex_mask(batch["attention_mask"], branch_PS)
    elif vlm.shares_rows:
        mask = additive(branch_mask(batch["attention_mask"], branch_PS), vlm.model.dtype)
    else:
        mask = torch.cat([batch["attention_mask"], (branch_PS != PADDING).long()], dim=1)
    behind = next_positions(batch["position_ids"]).unsqueeze(1) + depth_PS
    length = batch["input_ids"].shape[1]
    output = vlm.forward(
        batch,
        input_ids=torch.cat([batch["input_ids"], inputs_PS], dim=1),
        attention_mask=mask,
        position_ids=torch.cat(
            [batch["position_ids"], text_positions(batch["position_ids"], behind)], dim=-1
        ),
        use_cache=False,
        logits_to_keep=torch.arange(length - 1, length + inputs_PS.shape[1], device=vlm.device),
    )
    logprobs = token_logprobs(output.logits, temperature, vlm.forbidden if forbid else ()).flatten(0, 1)
    return logprobs[place_NT, tokens_NT].masked_fill(~mask_NT, 0.0), mask_NT


@torch.inference_mode()
def option_probabilities(
    vlm: LocalVLM,
    images: Sequence[Pictures],
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    batch: int = 128,
) -> Tensor:
    """probability_P (float32, CPU) of each given text as the reply to its prompt, length-normalised:
    exp(mean log-probability of its tokens).
    """
    tokens = [vlm.processor.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    empty = [i for i, own in enumerate(tokens) if not own]
    if empty or len(answers) != len(prompts):
        raise DataError(
            f"one text that is not empty is needed for each of {len(prompts)} prompts; got "
            f"{len(answers)}, empty ones at {empty}"
        )
    found = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        try:
            encoded = vlm.encode(images[part], prompts[part])
        except RefusedError as error:
            raise refused_error(
                vlm.name, {start + place: said for place, said in error.places.items()}
            ) from error
        logprobs_NT, mask_NT = completion_logprobs(vlm, encoded, [[own] for own in tokens[part]])
        found.append((logprobs_NT.sum(1) / mask_NT.sum(1)).exp().cpu())
    return torch.cat(found) if found else torch.zeros(0)
