"""The policy-gradient loss of token models.

Letters: N completions, T tokens (padded to the longest).
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(
    logprobs_NT: Tensor,
    old_logprobs_NT: Tensor,
    advantages_N: Tensor,
    mask_NT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    denominator: float | Tensor | None = None,
    reference_logprobs_NT: Tensor | None = None,
    kl_weight: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """DAPO's token-mean clipped objective (arXiv 2503.14476, eq. 8), negated: lower is better.

    -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A), ratio = exp(logprobs - old_logprobs), summed over the tokens that mask_NT selects
    and divided by `denominator`: the number of those tokens, unless given. With the token count of a whole batch as denominator, the losses, the
    gradients and the metrics of its micro-batches add up to those of the batch.

    With `kl_weight`, the k3 estimate exp(d) - d - 1, d = reference_logprobs - logprobs, of the divergence to a reference is added
    (Schulman, "Approximating KL divergence"; arXiv 2402.03300, eq. 4).

    Returns (loss, metrics): `ratio_mean`; `clip_fraction`, tokens that clipping robs of their gradient; `approx_kl`, the k3 estimate of the
    divergence from the old policy; `reference_kl` where there is a reference. All are detached scalars.
    """
    mask_NT = mask_NT.bool()
    total = mask_NT.sum().clamp(min=1) if denominator is None else denominator

    def token_mean(values_NT: Tensor) -> Tensor:
        return values_NT.masked_fill(~mask_NT, 0.0).sum() / total

    # Padding may hold anything: it must not reach exp().
    log_ratio_NT = (logprobs_NT.float() - old_logprobs_NT.float()).masked_fill(~mask_NT, 0.0)
    ratio_NT = log_ratio_NT.exp()
    advantages_N1 = advantages_N.float().unsqueeze(1)
    clipped_NT = ratio_NT.clamp(1 - clip_low, 1 + clip_high)
    loss = token_mean(-torch.minimum(ratio_NT * advantages_N1, clipped_NT * advantages_N1))
    with torch.no_grad():
        too_low = (ratio_NT < 1 - clip_low) & (advantages_N1 < 0)
        too_high = (ratio_NT > 1 + clip_high) & (advantages_N1 > 0)
        metrics = {
            "ratio_mean": token_mean(ratio_NT),
            "clip_fraction": token_mean((too_low | too_high).float()),
            "approx_kl": token_mean(ratio_NT - log_ratio_NT - 1),
        }
    if kl_weight:
        if reference_logprobs_NT is None:
            raise ValueError("a KL term needs the reference policy's log-probabilities")
        gap_NT = (reference_logprobs_NT.float() - logprobs_NT.float()).masked_fill(~mask_NT, 0.0)
        kl = token_mean(gap_NT.exp() - gap_NT - 1)
        loss = loss + kl_weight * kl
        metrics["reference_kl"] = kl.detach()
    return loss, metrics
