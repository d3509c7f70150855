"""Flow-GRPO on tensors: stochastic steps of a rectified flow, their log-probabilities, the clipped loss, and which steps are stochastic.

Conventions: x_sigma = (1 - sigma) x0 + sigma eps, velocity v = eps - x0; a step goes from sigma down to sigma_next, dt = sigma_next - sigma < 0.
Letters: B rows; the dots are a row's own dimensions, over which log-probabilities are averaged. Everything is computed in float32.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from sparring.rl.seeds import derive_seed

Sampler = Literal["sde", "cps"]


def ode_step(x: Tensor, v: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """The deterministic Euler step, [B, ...]: what diffusers' FlowMatchEulerDiscreteScheduler does."""
    return x.float() + (sigma_next - sigma) * v.float()


def sde_moments(x: Tensor, v: Tensor, sigma: float, sigma_next: float, noise_level: float) -> tuple[Tensor, float]:
    """Mean [B, ...] and standard deviation of Flow-GRPO's SDE step (arXiv 2505.05470, eq. 9), which keeps the ODE's marginals.

    At sigma = 1 the diffusion sqrt(sigma / (1 - sigma)) is infinite; there the next sigma stands in the denominator.
    """
    dt = sigma_next - sigma
    diffusion = noise_level * math.sqrt(sigma / (1 - (sigma_next if sigma > 1 - 1e-6 else sigma)))
    drift = diffusion**2 / (2 * sigma)
    mean = x.float() * (1 + drift * dt) + v.float() * ((1 + drift * (1 - sigma)) * dt)
    return mean, diffusion * math.sqrt(-dt)


def cps_moments(x: Tensor, v: Tensor, sigma: float, sigma_next: float, noise_level: float) -> tuple[Tensor, float]:
    """Mean [B, ...] and standard deviation of the coefficient-preserving step (Flow-CPS): signal and noise keep 1 - sigma' and sigma'.

    A share sin(noise_level pi / 2) of the next noise is fresh, the rest is the noise that the model sees in x.
    """
    clean, noise = x.float() - sigma * v.float(), x.float() + (1 - sigma) * v.float()
    std = sigma_next * math.sin(noise_level * math.pi / 2)
    kept = math.sqrt(max(sigma_next**2 - std**2, 0.0))
    return (1 - sigma_next) * clean + kept * noise, std


def step_moments(sampler: Sampler, x: Tensor, v: Tensor, sigma: float, sigma_next: float, noise_level: float) -> tuple[Tensor, float]:
    """Mean [B, ...] and standard deviation of the next state under the named sampler."""
    moments = sde_moments if sampler == "sde" else cps_moments
    return moments(x, v, sigma, sigma_next, noise_level)


def log_probability(sampler: Sampler, x_next: Tensor, mean: Tensor, std: float) -> Tensor:
    """logp_B of the state that was reached, averaged over a row's dimensions.

    "sde": the Gaussian log-density. "cps": -|x' - mean|^2, the density without its constants, as Flow-CPS has it.
    """
    square = (x_next.float() - mean.float()) ** 2
    if sampler == "cps":
        return -square.flatten(1).mean(1)
    return (-square / (2 * std**2) - math.log(std) - math.log(math.sqrt(2 * math.pi))).flatten(1).mean(1)


def flow_grpo_loss(
    logp_B: Tensor, old_logp_B: Tensor, advantages_B: Tensor, clip_range: float, denominator: float | None = None
) -> tuple[Tensor, dict[str, float]]:
    """PPO's clipped objective with symmetric clip, negated: mean over rows of -min(ratio A, clip(ratio) A).

    denominator: number of rows by which the sum is divided, where micro-batches are to add up; B when not given.
    Returns (loss, metrics): ratio_mean, ratio_worst (the ratio farthest from 1) and clip_fraction (rows whose gradient the clip cuts off).
    """
    ratio_B = torch.exp(logp_B - old_logp_B)
    clipped_B = ratio_B.clamp(1 - clip_range, 1 + clip_range)
    gain_B, clipped_gain_B = ratio_B * advantages_B, clipped_B * advantages_B
    loss = -torch.minimum(gain_B, clipped_gain_B).sum() / (denominator or len(logp_B))
    with torch.no_grad():
        metrics = {
            "ratio_mean": ratio_B.mean().item(),
            "ratio_worst": ratio_B[(ratio_B - 1).abs().argmax()].item(),
            "clip_fraction": (clipped_gain_B < gain_B).float().mean().item(),
        }
    return loss, metrics


def choose_window(seed: int, update: int, steps: int, *, size: int | None = None, first: int = 0, last: int | None = None) -> range:
    """The denoising steps that are stochastic and trained in one update: `size` steps in a row, beginning anywhere from `first`.

    They end before step `last`, and never hold the very last step (steps - 1), whose Gaussian collapses at sigma 0. size None: all of them.
    A pure function of (seed, update): no generator is shared, so the window moves from update to update and a resumed run sees the same ones.
    Raises ValueError when no window fits.
    """
    end = steps - 1 if last is None else min(last, steps - 1)
    length = end - first if size is None else size
    if length < 1 or first + length > end:
        raise ValueError(
            f"a window of {size or 'all'} steps between step {first} and step {end} does not fit: {steps} roll-out steps leave {steps - 1} that can be "
            "stochastic (the last cannot). Use more roll-out steps or a smaller window."
        )
    start = first + derive_seed(seed, "window", update) % (end - length - first + 1)
    return range(start, start + length)
