"""DiffusionNFT on tensors (arXiv 2509.16117): a policy gradient on the forward process, without likelihoods.

Two implicit policies lie on both sides of the old velocity: v+ = (1 - b) v_old + b v and v- = (1 + b) v_old - b v. On a freshly noised
final sample with flow target u = eps - x0, v+ is fitted with weight r and v- with weight 1 - r, r in [0, 1] being how good the sample was.
Letters: B rows; the dots are a row's own dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def goodness(advantages_B: Tensor, advantage_clip: float) -> Tensor:
    """r_B = 1/2 + A / (2 clip), clamped to [0, 1]: 1/2 for a sample that is as good as its group."""
    return (0.5 + advantages_B / (2 * advantage_clip)).clamp(0, 1)


def noised(x0: Tensor, noise: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
    """(x_sigma, u): the forward process (1 - sigma) x0 + sigma eps and its velocity eps - x0, both [B, ...]."""
    sigma = sigma_B.view(-1, *[1] * (x0.dim() - 1))
    return (1 - sigma) * x0 + sigma * noise, noise - x0


def nft_loss(
    v: Tensor, v_old: Tensor, u: Tensor, sigma_B: Tensor, r_B: Tensor, beta: float, denominator: float | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The loss of DiffusionNFT with the adaptive weight of its published code.

    The squared error of each implicit policy's picture x0 = x_sigma - sigma v, divided by its mean absolute error (which is held
    constant), so that all noise levels count alike; divided by beta, so that the size of the gradient does not depend on it. Where v = v_old
    and r = 1/2 the two sides cancel; where v has left v_old, r = 1/2 pulls it back.
    v, v_old, u: [B, ...]; sigma_B, r_B: [B]. denominator: rows by which the sum is divided; B when not given.
    Returns (loss, metrics): positive and negative, the mean absolute picture errors of v+ and v-.
    """
    v, v_old, u = v.float(), v_old.float().detach(), u.float()
    positive_B, positive_error = _picture_loss((1 - beta) * v_old + beta * v, u, sigma_B)
    negative_B, negative_error = _picture_loss((1 + beta) * v_old - beta * v, u, sigma_B)
    loss = ((r_B * positive_B + (1 - r_B) * negative_B) / beta).sum() / (denominator or len(r_B))
    return loss, {"positive": positive_error, "negative": negative_error}


def _picture_loss(v: Tensor, u: Tensor, sigma_B: Tensor) -> tuple[Tensor, float]:
    """loss_B of one implicit policy, and its mean absolute picture error. The picture's error is sigma (u - v), since both share x_sigma."""
    error = sigma_B.view(-1, 1) * (v - u).flatten(1)
    weight_B = error.detach().abs().mean(1).clamp(min=1e-5)
    return (error**2).mean(1) / weight_B, weight_B.mean().item()


@torch.no_grad()
def blend(old: dict[str, Tensor], new: dict[str, Tensor], decay: float) -> None:
    """old = decay old + (1 - decay) new, in place, for every name."""
    for name, tensor in old.items():
        tensor.mul_(decay).add_(new[name].detach().to(tensor), alpha=1 - decay)


def old_decay(step: int, slope: float, highest: float) -> float:
    """How much of the old policy is kept at a step: min(slope step, highest). 0 at the start, so that it follows at once."""
    return min(slope * step, highest)
