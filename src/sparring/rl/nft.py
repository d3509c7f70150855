"""The Attacker's losses on freshly noised pictures: DiffusionNFT and AWM."""

from __future__ import annotations

import torch
from torch import Tensor

from sparring.rl.flow import clipped_loss


def goodness(advantages_B: Tensor, advantage_clip: float) -> Tensor:
    """r_B = 1/2 + A / (2 clip), clamped to [0, 1]: 1/2 for a sample that is as good as its group."""
    return (0.5 + advantages_B / (2 * advantage_clip)).clamp(0, 1)


def noised(x0: Tensor, noise: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
    """(x_sigma, u): the forward process (1 - sigma) x0 + sigma eps and its velocity eps - x0, both
    [B, ...].
    """
    sigma = sigma_B.view(-1, *[1] * (x0.dim() - 1))
    return (1 - sigma) * x0 + sigma * noise, noise - x0


def nft_loss(
    v: Tensor,
    v_old: Tensor,
    u: Tensor,
    sigma_B: Tensor,
    r_B: Tensor,
    beta: float,
    denominator: float | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of DiffusionNFT with the adaptive weight of its published code.

    The squared error of each implicit policy's picture x0 = x_sigma - sigma v, divided by its mean absolute
    error (which is held constant), so that all noise levels count alike; divided by beta, so that the size
    of the gradient does not depend on it. Where v = v_old and r = 1/2 the two sides cancel; where v has left
    v_old, r = 1/2 pulls it back. v, v_old, u: [B, ...]; sigma_B, r_B: [B]. denominator: rows by which the
    sum is divided; B when not given. Returns (loss, metrics): positive and negative, the mean absolute
    picture errors of v+ and v-.
    """
    v, v_old, u = v.float(), v_old.float().detach(), u.float()
    positive_B, positive_error = _picture_loss((1 - beta) * v_old + beta * v, u, sigma_B)
    negative_B, negative_error = _picture_loss((1 + beta) * v_old - beta * v, u, sigma_B)
    loss = ((r_B * positive_B + (1 - r_B) * negative_B) / beta).sum() / (denominator or len(r_B))
    return loss, {"positive": positive_error, "negative": negative_error}


def _picture_loss(v: Tensor, u: Tensor, sigma_B: Tensor) -> tuple[Tensor, float]:
    """loss_B of one implicit policy, and its mean absolute picture error. The picture's error is sigma (u -
    v), since both share x_sigma.
    """
    error = sigma_B.view(-1, 1) * (v - u).flatten(1)
    weight_B = error.detach().abs().mean(1).clamp(min=1e-5)
    return (error**2).mean(1) / weight_B, weight_B.mean().item()


@torch.no_grad()
def blend(old: dict[str, Tensor], new: dict[str, Tensor], decay: float) -> None:
    """old = decay old + (1 - decay) new, in place, for every name."""
    for name, tensor in old.items():
        tensor.mul_(decay).add_(new[name].detach().to(tensor), alpha=1 - decay)


def old_decay(step: int, slope: float, highest: float) -> float:
    """How much of the old policy is kept at a step: min(slope step, highest). 0 at the start, so that it
    follows at once.
    """
    return min(slope * step, highest)


TINY = 1e-10


def matching_logp(v: Tensor, u: Tensor, sigma_B: Tensor, power: float) -> Tensor:
    """logp_B = -sigma / power (error^power - tiny^power), error = mean over dims of |v - u|^2 (+ tiny 1e-10).

    The generalised Huber weight of the published code, whose power is 0.25: the smaller the power, the less
    a sample counts that is far from its target anyway. power 1 is sigma times the plain error. v, u: [B,
    ...]; sigma_B: [B].
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
    denominator: float | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """PPO's clipped loss on the ratio exp(logp(v) - logp(v_old)).

    Where v = v_old the gradient is that of -A logp: matching, weighted by the advantage. v_old: the velocity
    of the policy that made the samples. denominator: rows by which the sum is divided; B when not given.
    Returns (loss, metrics), metrics as `clipped_loss`.
    """
    v_old = v_old.detach()
    log_ratio_B = matching_logp(v, u, sigma_B, power) - matching_logp(v_old, u, sigma_B, power)
    return clipped_loss(log_ratio_B, advantages_B, clip_range, denominator)


def distance(v: Tensor, other: Tensor) -> Tensor:
    """|v - other|^2, the mean over each row's dimensions, [B]. v, other: [B, ...]."""
    return ((v.float() - other.detach().float()) ** 2).flatten(1).mean(1)
