"""The loop that samples: many replies to every prompt, a token of each at a step.

Letters: P prompts, n replies of each, R rows that are computed, B replies that share a row, T tokens of the
longest reply, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache, DynamicLayer

from sparring.models.private import attention_of
from sparring.models.vlms.attention import GROUPED
from sparring.models.vlms.base import Completion, Sampling
from sparring.models.vlms.branches import additive, next_positions, step_mask, text_positions

if TYPE_CHECKING:
    from sparring.models.vlms.local import LocalVLM


# Matrix products of fewer rows than this are computed otherwise on a CPU, with other last digits: no step is
# made of fewer tokens than this for being rid of replies that have ended.
FEWEST_TOKENS = 4


def token_logprobs(logits: Tensor, temperature: float, forbidden: Sequence[int]) -> Tensor:
    """log-softmax(logits / temperature) in float32 over the last dimension, [..., V]. Temperature 0 (greedy)
    counts as 1 here.

    `forbidden` tokens have probability 0: placeholders of pictures, which no model can read back from a
    text.
    """
    scaled = logits.float() / (temperature or 1.0)
    if forbidden:
        scaled.index_fill_(-1, torch.tensor(list(forbidden), device=scaled.device), -torch.inf)
    return torch.log_softmax(scaled, dim=-1)


def choose(logprobs: Tensor, uniform: Tensor, *, greedy: bool, top_p: float = 1.0, top_k: int = 0) -> Tensor:
    """One token for every row: tokens [...] from logprobs [..., V] and uniform [...] float64 in [0, 1), by
    inverting the distribution.

    With top_k > 0 it is drawn from the top_k likeliest tokens, with top_p < 1 from the fewest likeliest of
    these whose probabilities, of all that is left, reach top_p.
    """
    if greedy:
        return logprobs.argmax(dim=-1)
    probabilities = logprobs.double().exp()
    if 0 < top_k < logprobs.shape[-1]:
        likeliest = probabilities.topk(top_k, dim=-1)
        probabilities = torch.zeros_like(probabilities).scatter(-1, likeliest.indices, likeliest.values)
        probabilities /= probabilities.sum(-1, keepdim=True)
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    cumulative = probabilities.cumsum(dim=-1)
    drawn = torch.searchsorted(cumulative, (uniform * cumulative[..., -1]).unsqueeze(-1), right=True).squeeze(
        -1
    )
    return drawn.clamp(max=logprobs.shape[-1] - 1)


def uniforms(seed: int, prompts: Sequence[int], n: int, steps: int) -> Tensor:
    """float64 numbers [P, n, steps] in [0, 1), on the CPU. Those of a prompt follow from the seed and its
    number, whatever else is asked for.
    """
    rows = []
    for number in prompts:
        # The golden ratio's multiples keep the seeds of neighbours apart.
        generator = torch.Generator().manual_seed((seed + (number + 1) * 0x9E3779B97F4A7C15) % 2**63)
        rows.append(torch.rand(n, steps, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


STEPS_AHEAD = 8


class RoomyLayer(DynamicLayer):
    """Keys and values [rows, heads, tokens, channels] of one layer, with room kept free behind them that the
    tokens of a step are put into; transformers' own are copied as a whole in every step. `keys` and `values`
    are views of the longer tensors that they lie in.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.held: dict[str, tuple[Tensor, Tensor]] = {}
        """By name, the view that was handed out last, and the tensor that it is the beginning of."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Put the tokens of a step, [rows, heads, step's tokens, channels], behind the others. Returns all
        keys and all values.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._appended("keys", key_states), self._appended("values", value_states)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep those rows alone, and the room behind them."""
        if not self.get_seq_length():
            return
        for name in ("keys", "values"):
            present = getattr(self, name)
            seen, whole = self.held.get(name, (None, present))
            whole = (whole if present is seen else present)[indices]
            view = whole[..., : present.shape[-2], :]
            self.held[name] = (view, whole)
            setattr(self, name, view)

    def _appended(self, name: str, new: Tensor) -> Tensor:
        before = getattr(self, name)
        length = before.shape[-2] if before.numel() else 0
        needed = length + new.shape[-2]
        seen, whole = self.held.get(name, (None, new))
        # Whatever else changes the cache (copies of rows, for instance) puts other tensors into it, behind
        # which there is no room.
        if before is not seen or whole.shape[-2] < needed:
            room = needed // 4 + STEPS_AHEAD * new.shape[-2] if length else 0
            whole = new.new_empty(*new.shape[:-2], needed + room, new.shape[-1])
            if length:
                whole[..., :length, :] = before
        whole[..., length:needed, :] = new
        view = whole[..., :needed, :]
        self.held[name] = (view, whole)
        return view


def roomy_cache() -> Cache:
    """An empty cache for every layer of a model with full attention."""
    return Cache(layer_class_to_replicate=RoomyLayer)


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
