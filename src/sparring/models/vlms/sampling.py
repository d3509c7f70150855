"""Drawing tokens: temperature, nucleus, and random numbers that depend on the seed and on the prompt's place
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
