"""Advantage Weighted Matching on tensors (AWM, arXiv 2509.25050): the forward process' matching error as a log-probability.

DDPO's and Flow-GRPO's log-probability is that of a step of the sampler, which is matching with a noisy target. AWM takes the error that the
editor was trained with, on a freshly noised final sample: how well v matches u = eps - x0. Letters: B rows; the dots are a row's own dimensions.
"""

from __future__ import annotations

from torch import Tensor

from sparring.rl.flow import clipped_loss

TINY = 1e-10


def matching_logp(v: Tensor, u: Tensor, sigma_B: Tensor, power: float) -> Tensor:
    """logp_B = -sigma / power (error^power - tiny^power), error = mean over dims of |v - u|^2 (+ tiny 1e-10).

    The generalised Huber weight of the published code, whose power is 0.25: the smaller the power, the less a sample counts that is far from its
    target anyway. power 1 is sigma times the plain error. v, u: [B, ...]; sigma_B: [B].
    """
    tiny: float = TINY**power
    error_B: Tensor = ((v.float() - u.float()) ** 2).flatten(1).mean(1) + TINY
    return -sigma_B / power * (error_B.pow(power) - tiny)


def awm_loss(
    v: Tensor,
    v_old: Tensor,
    u: Tensor,
    sigma_B: Tensor,
    advantages_B: Tensor,
    *,
    power: float,
    clip_range: float,
    old_weight: float,
    denominator: float | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """PPO's clipped loss on the ratio exp(logp(v) - logp(v_old)), and old_weight |v - v_old|^2 (mean over dims), which holds v near v_old.

    Where v = v_old the gradient is that of -A logp: matching, weighted by the advantage. v_old: the velocity of the policy that made the
    samples. denominator: rows by which the sums are divided; B when not given. Returns (loss, metrics), metrics as `clipped_loss`.
    """
    v_old = v_old.detach()
    log_ratio_B = matching_logp(v, u, sigma_B, power) - matching_logp(v_old, u, sigma_B, power)
    loss, metrics = clipped_loss(log_ratio_B, advantages_B, clip_range, denominator)
    if old_weight:
        distance_B = ((v.float() - v_old.float()) ** 2).flatten(1).mean(1)
        loss = loss + old_weight * distance_B.sum() / (denominator or len(distance_B))
    return loss, metrics
