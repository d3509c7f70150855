"""The loop that samples: many replies to every prompt, a token of each at a step.

Letters: P prompts, n replies of each, R rows that are computed, B replies that share a row, T tokens of the
longest reply, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparring.models.private import attention_of
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.branch_attention import IMPLEMENTATION as GROUPED
from sparring.models.vlms.branches import additive, next_positions, step_mask, text_positions
from sparring.models.vlms.cache import roomy_cache
from sparring.models.vlms.sampling import choose, token_logprobs

if TYPE_CHECKING:
    from sparring.models.vlms.local import Completion, LocalVLM

# Matrix products of fewer rows than this are computed otherwise on a CPU, with other last digits: no step is
# made of fewer tokens than this for being rid of replies that have ended.
FEWEST_TOKENS = 4


def sample_replies(
    vlm: LocalVLM, batch: dict[str, Tensor], uniform: Tensor, sampling: Sampling
) -> list[list[Completion]]:
    """Replies to encoded prompts; uniform: [P, n, steps]. The n replies are branches B of one row, or
    rows of their own: R rows in all.

    A row whose replies have all ended is left out of the steps to come.
    """
    prompts, n, steps = uniform.shape
    branches, copies = (n, 1) if vlm.shares_rows else (1, n)
    text = vlm.model.config.get_text_config()
    grouped = branches > 1 and attention_of(text) == "sdpa"
    group = text.num_attention_heads // text.num_key_value_heads if grouped else 1
    cache = roomy_cache()
    known = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    output = vlm.forward(batch, **known, **{vlm.cache_argument: cache}, use_cache=True, logits_to_keep=1)
    mask_RL, position_R = batch["attention_mask"], next_positions(batch["position_ids"])
    logits_RBV = output.logits.expand(-1, branches, -1)
    if copies > 1:
        cache.batch_repeat_interleave(copies)
        mask_RL, position_R, logits_RBV = (
            part.repeat_interleave(copies, dim=0) for part in (mask_RL, position_R, logits_RBV)
        )
    uniform = uniform.reshape(prompts * copies, branches, steps)
    ends = torch.tensor(vlm.end_tokens, device=vlm.device)
    finished_RB = torch.zeros(uniform.shape[:2], dtype=torch.bool, device=vlm.device)
    rows_R = torch.arange(len(uniform), device=vlm.device)  # those that are still computed, among all
    fewest = -(-FEWEST_TOKENS // branches)
    written_RBT = torch.full(uniform.shape, vlm.end_tokens[0], dtype=torch.long, device=vlm.device)
    recorded_RBT = torch.zeros(uniform.shape, dtype=torch.float32, device=vlm.device)
    for step in range(steps):
        logprobs_RBV = token_logprobs(logits_RBV, sampling.temperature, vlm.forbidden)
        tokens_RB = choose(
            logprobs_RBV,
            uniform[..., step],
            greedy=sampling.temperature == 0,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        )
        written_RBT[rows_R, :, step] = tokens_RB
        recorded_RBT[rows_R, :, step] = logprobs_RBV.gather(-1, tokens_RB.unsqueeze(-1)).squeeze(-1)
        finished_RB |= torch.isin(tokens_RB, ends)
        ended_R = finished_RB.all(dim=1)
        going_on = len(ended_R) - int(ended_R.sum())
        if step + 1 == steps or not going_on:
            break
        if max(going_on, fewest) < len(rows_R):
            kept = ended_R.long().argsort(stable=True)[: max(going_on, fewest)]
            cache.batch_select_indices(kept)
            rows_R, tokens_RB, finished_RB, uniform, mask_RL, position_R = (
                values[kept] for values in (rows_R, tokens_RB, finished_RB, uniform, mask_RL, position_R)
            )
        if branches > 1:
            mask = additive(step_mask(mask_RL, branches, step + 1).repeat(1, 1, group, 1), vlm.model.dtype)
        else:
            mask = torch.cat([mask_RL, mask_RL.new_ones(len(mask_RL), step + 1)], dim=1)
        positions = text_positions(
            batch["position_ids"], (position_R + step).unsqueeze(1).expand(-1, branches)
        )
        step_inputs = {
            "input_ids": tokens_RB,
            "attention_mask": mask,
            "position_ids": positions,
            vlm.cache_argument: cache,
        }
        with vlm.attending(GROUPED if group > 1 else None):
            logits_RBV = vlm.model(**step_inputs, use_cache=True).logits
    written = [values.view(prompts * n, steps).tolist() for values in (written_RBT, recorded_RBT)]
    replies = [vlm.completion(*reply) for reply in zip(*written, strict=True)]
    return [replies[i : i + n] for i in range(0, len(replies), n)]
