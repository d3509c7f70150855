"""The policy-gradient loss of token models: one formula, of which DAPO, GRPO, Dr. GRPO, GSPO and CISPO are
settings.

Letters: N completions, T tokens (padded to the longest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Surrogate:
    """What is optimised; the defaults but for the clips are DAPO's.

    `ratio_over`: ratio = exp(logprobs - old_logprobs) of every token, or of a whole completion, its log
    being the mean over the completion's tokens (GSPO, arXiv 2507.18071, eq. 7). `surrogate`: "clipped" is
    -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A). "detached" is -min(ratio, 1 + clip_high) A
    logprobs without a gradient through the ratio, so that no token loses its gradient (CISPO, arXiv
    2506.13585, eq. 4, without the lower clip, as used there). `dual_clip`: with it, a token of a negative
    advantage costs at most -dual_clip A, however likely it has become (Dual-clip PPO, arXiv 1912.09729, eq.
    5; verl's and EasyR1's constant is 3): the ratio has no bound there otherwise. Above 1, for the "clipped"
    surrogate alone. `mean_over`: over the tokens that a mask selects (DAPO); over completions of the mean
    over their tokens (GRPO, arXiv 2402.03300, eq. 3); or the sum over tokens divided by completions x
    `longest`, so that long completions weigh as much a token as short ones (Dr. GRPO, arXiv 2503.20783).

    With `kl_weight`, the k3 estimate exp(d) - d - 1, d = reference_logprobs - logprobs, of the divergence to
    a reference is added (Schulman, "Approximating KL divergence"; arXiv 2402.03300, eq. 4).

    Raises ValueError for a constant mean without `longest`, and for a dual clip of at most 1 or of a
    detached ratio.
    """

    clip_low: float
    clip_high: float
    dual_clip: float | None = None
    ratio_over: Literal["token", "sequence"] = "token"
    surrogate: Literal["clipped", "detached"] = "clipped"
    mean_over: Literal["token", "sequence", "constant"] = "token"
    longest: int | None = None
    kl_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.dual_clip is not None and (self.dual_clip <= 1 or self.surrogate == "detached"):
            raise ValueError(
                "a dual clip bounds the clipped surrogate where the ratio is far above 1: it must be above "
                "1, and a detached ratio has none"
            )
        if self.mean_over == "constant" and self.longest is None:
            raise ValueError("a constant mean needs the number of tokens that it divides by")


def policy_loss(
    objective: Surrogate,
    logprobs_NT: Tensor,
    old_logprobs_NT: Tensor,
    advantages_N: Tensor,
    mask_NT: Tensor,
    *,
    weights_NT: Tensor | None = None,
    reference_logprobs_NT: Tensor | None = None,
    whole: tuple[float | Tensor, float | Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped objective of DAPO (arXiv 2503.14476, eq. 8) and its relatives, negated: lower is better.

    `whole`: how many tokens, and how many completions with a token, the whole batch selects; those of
    mask_NT if left out. With them the losses, the gradients and the metrics of the micro-batches of a batch
    add up to those of the batch.

    `weights_NT`: what a token counts for in the surrogate, without a gradient: for importance sampling where
    neither policy made the samples.

    Returns (loss, metrics), the metrics being means over tokens whatever the loss is: `ratio_mean`;
    `clip_fraction`, tokens whose ratio is clipped for their advantage's sign; `approx_kl`, the k3 estimate
    of the divergence from the old policy; `reference_kl` where there is a reference. All are detached
    scalars. Raises ValueError for a KL weight without a reference.
    """
    mask_NT = mask_NT.bool()
    lengths_N1 = mask_NT.sum(dim=1, keepdim=True)
    total, rows = whole or (lengths_N1.sum().clamp(min=1), (lengths_N1 > 0).sum().clamp(min=1))
    clip_low, clip_high, dual_clip = objective.clip_low, objective.clip_high, objective.dual_clip

    def token_mean(values_NT: Tensor) -> Tensor:
        return values_NT.masked_fill(~mask_NT, 0.0).sum() / total

    def mean(values_NT: Tensor) -> Tensor:
        if objective.mean_over == "token":
            return token_mean(values_NT)
        values_NT = values_NT.masked_fill(~mask_NT, 0.0)
        if objective.mean_over == "sequence":
            return (values_NT / lengths_N1.clamp(min=1)).sum() / rows
        assert objective.longest is not None  # looked at where the objective is made
        return values_NT.sum() / (rows * objective.longest)

    # Padding may hold anything: it must not reach exp().
    logprobs_NT = logprobs_NT.float().masked_fill(~mask_NT, 0.0)
    token_log_ratio_NT = (logprobs_NT - old_logprobs_NT.float()).masked_fill(~mask_NT, 0.0)
    log_ratio_NT = token_log_ratio_NT
    if objective.ratio_over == "sequence":
        log_ratio_NT = (token_log_ratio_NT.sum(dim=1, keepdim=True) / lengths_N1.clamp(min=1)).expand_as(
            logprobs_NT
        )
    ratio_NT = log_ratio_NT.exp()
    advantages_N1 = advantages_N.float().unsqueeze(1)
    too_high_NT = ratio_NT > 1 + clip_high
    if objective.surrogate == "clipped":
        clipped_NT = ratio_NT.clamp(1 - clip_low, 1 + clip_high)
        losses_NT = -torch.minimum(ratio_NT * advantages_N1, clipped_NT * advantages_N1)
        lost_NT = (too_high_NT & (advantages_N1 > 0)) | ((ratio_NT < 1 - clip_low) & (advantages_N1 < 0))
        if dual_clip is not None:
            bounded_NT = torch.minimum(losses_NT, -dual_clip * advantages_N1)
            losses_NT = torch.where(advantages_N1 < 0, bounded_NT, losses_NT)
            lost_NT = lost_NT | ((ratio_NT > dual_clip) & (advantages_N1 < 0))
    else:
        losses_NT = -ratio_NT.detach().clamp(max=1 + clip_high) * advantages_N1 * logprobs_NT
        lost_NT = too_high_NT
    loss = mean(losses_NT if weights_NT is None else losses_NT * weights_NT)
    with torch.no_grad():
        metrics = {
            "ratio_mean": token_mean(ratio_NT),
            "clip_fraction": token_mean(lost_NT.float()),
            "approx_kl": token_mean(token_log_ratio_NT.exp() - token_log_ratio_NT - 1),
        }
    if objective.kl_weight:
        if reference_logprobs_NT is None:
            raise ValueError("a KL term needs the reference policy's log-probabilities")
        gap_NT = (reference_logprobs_NT.float() - logprobs_NT).masked_fill(~mask_NT, 0.0)
        kl_NT = gap_NT.exp() - gap_NT - 1
        loss = loss + objective.kl_weight * mean(kl_NT)
        metrics["reference_kl"] = token_mean(kl_NT.detach())
    return loss, metrics


def keep_groups(rewards_PG: Tensor, low: float, high: float) -> Tensor:
    """keep_P (bool): groups whose mean reward lies strictly between low and high, the others being all wrong
    or all right.
    """
    means_P = rewards_PG.float().mean(dim=1)
    return (means_P > low) & (means_P < high)


def overlong_penalty(lengths_N: Tensor, limit: int, cache: int) -> Tensor:
    """DAPO's soft punishment (eq. 13), float32: 0 up to limit - cache tokens, then linear down to -1 at
    limit. cache 0 punishes nothing.
    """
    if cache <= 0:
        return torch.zeros_like(lengths_N, dtype=torch.float32)
    return ((limit - cache - lengths_N.float()) / cache).clamp(-1.0, 0.0)
