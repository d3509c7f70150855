"""Flow-GRPO on tensors: stochastic steps of a rectified flow, their log-probabilities and ratios, and the
clipped loss.

Conventions: x_sigma = (1 - sigma) x0 + sigma eps, velocity v = eps - x0; a step goes from sigma down to
sigma_next, dt = sigma_next - sigma < 0. Letters: B rows; the dots are a row's own dimensions, over which
log-probabilities are averaged. Everything is computed in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparring.seeds import derive_seed

Sampler = Literal["sde", "constant", "cps"]


def ode_step(x: Tensor, v: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """The deterministic Euler step, [B, ...]: what diffusers' FlowMatchEulerDiscreteScheduler does."""
    return x.float() + (sigma_next - sigma) * v.float()


def sde_moments(
    x: Tensor, v: Tensor, sigma: float, sigma_next: float, noise_level: float
) -> tuple[Tensor, float]:
    """Mean [B, ...] and standard deviation of Flow-GRPO's SDE step (arXiv 2505.05470, eq. 9), which keeps the
    ODE's marginals.

    At sigma = 1 the diffusion sqrt(sigma / (1 - sigma)) is infinite; there the next sigma stands in the
    denominator.
    """
    return _moments(
        x,
        v,
        sigma,
        sigma_next,
        noise_level * math.sqrt(sigma / (1 - (sigma_next if sigma > 1 - 1e-6 else sigma))),
    )


def constant_moments(
    x: Tensor, v: Tensor, sigma: float, sigma_next: float, noise_level: float
) -> tuple[Tensor, float]:
    """The same step with a diffusion that is `noise_level` everywhere (DanceGRPO, arXiv 2505.07818); the
    ODE's marginals too.
    """
    return _moments(x, v, sigma, sigma_next, noise_level)


def _moments(x: Tensor, v: Tensor, sigma: float, sigma_next: float, diffusion: float) -> tuple[Tensor, float]:
    """Euler-Maruyama step of the SDE with this diffusion whose marginals are the ODE's; the score is -(x + (1
    - sigma) v) / sigma.
    """
    dt = sigma_next - sigma
    drift = diffusion**2 / (2 * sigma)
    mean = x.float() * (1 + drift * dt) + v.float() * ((1 + drift * (1 - sigma)) * dt)
    return mean, diffusion * math.sqrt(-dt)


def cps_moments(
    x: Tensor, v: Tensor, sigma: float, sigma_next: float, noise_level: float
) -> tuple[Tensor, float]:
    """Mean [B, ...] and standard deviation of the coefficient-preserving step (Flow-CPS): signal and noise
    keep 1 - sigma' and sigma'.

    A share sin(noise_level pi / 2) of the next noise is fresh, the rest is the noise that the model sees in
    x. The marginals are the ODE's where x leaves no doubt about x0; where it does, what the model sees is a
    mean, and the samples gather closer than the ODE's.
    """
    clean, noise = x.float() - sigma * v.float(), x.float() + (1 - sigma) * v.float()
    std = sigma_next * math.sin(noise_level * math.pi / 2)
    kept = math.sqrt(max(sigma_next**2 - std**2, 0.0))
    return (1 - sigma_next) * clean + kept * noise, std


def step_moments(
    sampler: Sampler, x: Tensor, v: Tensor, sigma: float, sigma_next: float, noise_level: float
) -> tuple[Tensor, float]:
    """Mean [B, ...] and standard deviation of the next state under the named sampler."""
    moments = {"sde": sde_moments, "constant": constant_moments, "cps": cps_moments}[sampler]
    return moments(x, v, sigma, sigma_next, noise_level)


def log_probability(sampler: Sampler, x_next: Tensor, mean: Tensor, std: float) -> Tensor:
    """logp_B of the state that was reached, averaged over a row's dimensions.

    "sde", "constant": the Gaussian log-density. "cps": -|x' - mean|^2, the density without its constants, as
    Flow-CPS has it.
    """
    square = (x_next.float() - mean.float()) ** 2
    if sampler == "cps":
        return -square.flatten(1).mean(1)
    return (-square / (2 * std**2) - math.log(std) - math.log(math.sqrt(2 * math.pi))).flatten(1).mean(1)


def reference_divergence(
    sampler: Sampler, mean: Tensor, reference: Tensor, std: float, length: float
) -> Tensor:
    """kl_B between the steps of a policy and of a reference, averaged over a row's dimensions, as Flow-GRPO's
    published code weighs it.

    "sde", "constant": |mean - reference|^2 / (2 diffusion^2), diffusion = std / sqrt(length): the KL of the
    two Gaussians times the step's length, so that published weights mean here what they mean there. "cps":
    |mean - reference|^2, without its constants, as its log-probability. std, length: standard deviation and
    sigma - sigma_next of the step.
    """
    distance_B = ((mean - reference) ** 2).flatten(1).mean(1)
    return distance_B if sampler == "cps" else distance_B * length / (2 * std**2)


def guarded_log_ratio(x_next: Tensor, mean: Tensor, old_mean: Tensor, std: float) -> Tensor:
    """GRPO-Guard's normalised log-ratio_B (RatioNorm, arXiv 2510.22319, eq. 8): std (logp - old_logp + |mean
    - old_mean|^2 / (2 std^2)).

    The averaged Gaussian log-ratio is (mean - old_mean) eps / std - |mean - old_mean|^2 / (2 std^2): below 0
    on average, and wider where std is small. What is left here is its first part without 1 / std, which has
    mean 0 and the same spread at every noise level; it is computed as such, so that no rounding error of two
    large log-probabilities stands in it.
    """
    fresh = (x_next.float() - old_mean.float()) / std
    return ((mean.float() - old_mean.float()) * fresh).flatten(1).mean(1)


def clipped_loss(
    log_ratio_B: Tensor, advantages_B: Tensor, clip_range: float, denominator: float | None = None
) -> tuple[Tensor, dict[str, float]]:
    """PPO's clipped objective with symmetric clip, negated: mean over rows of -min(ratio A, clip(ratio) A),
    ratio = exp(log_ratio).

    denominator: number of rows by which the sum is divided, where micro-batches are to add up; B when not
    given. Returns (loss, metrics): ratio_mean, ratio_worst (the ratio farthest from 1) and clip_fraction
    (rows whose gradient the clip cuts off).
    """
    ratio_B = torch.exp(log_ratio_B)
    clipped_B = ratio_B.clamp(1 - clip_range, 1 + clip_range)
    gain_B, clipped_gain_B = ratio_B * advantages_B, clipped_B * advantages_B
    loss = -torch.minimum(gain_B, clipped_gain_B).sum() / (denominator or len(log_ratio_B))
    with torch.no_grad():
        metrics = {
            "ratio_mean": ratio_B.mean().item(),
            "ratio_worst": ratio_B[(ratio_B - 1).abs().argmax()].item(),
            "clip_fraction": (clipped_gain_B < gain_B).float().mean().item(),
        }
    return loss, metrics


@dataclass(frozen=True, slots=True)
class Window:
    """Which steps of a roll-out are stochastic: `size` in a row (None: all), from `first` on, ending before
    step `last`.

    move: "random": anywhere, drawn anew for every update. "fixed": at `first`. "slide" (MixGRPO, arXiv
    2507.21802, section 3.2): at `first`, and `stride` steps further after every `every` updates, until it
    has come to the end, where it stays; with `wrap` it begins again.
    """

    size: int | None = None
    first: int = 0
    last: int | None = None
    move: Literal["random", "fixed", "slide"] = "random"
    every: int = 1
    stride: int = 1
    wrap: bool = False


def choose_window(seed: int, update: int, steps: int, window: Window) -> range:
    """The steps of one update, out of `steps`: never the very last one (steps - 1), whose Gaussian collapses
    at sigma 0.

    A pure function of its arguments: no generator is shared, so every process of a run and a resumed run see
    the same windows. Raises ValueError when no window fits.
    """
    size, first = window.size, window.first
    end = steps - 1 if window.last is None else min(window.last, steps - 1)
    length = end - first if size is None else size
    if length < 1 or first + length > end:
        raise ValueError(
            f"a window of {size or 'all'} steps between step {first} and step {end} does not fit: {steps} "
            f"roll-out steps leave {steps - 1} that can be stochastic (the last cannot). Use more roll-out "
            f"steps or a smaller window."
        )
    places = end - length - first + 1
    if window.move == "random":
        start = first + derive_seed(seed, "window", update) % places
    elif window.move == "slide":
        moved = update // window.every * window.stride
        start = first + (moved % places if window.wrap else min(moved, places - 1))
    else:
        start = first
    return range(start, start + length)
