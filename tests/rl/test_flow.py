"""The flow's stochastic steps against float64 references, closed-form marginals, and the clipped loss by hand."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sparring.rl import flow


def reference_sde(x: Tensor, v: Tensor, sigma: float, after: float, level: float) -> tuple[Tensor, float]:
    """METHOD's formulas, literally, in float64."""
    x, v, dt = x.double(), v.double(), after - sigma
    std = level * math.sqrt(sigma / (1 - (after if sigma == 1 else sigma)))
    mean = x * (1 + std**2 / (2 * sigma) * dt) + v * (1 + std**2 * (1 - sigma) / (2 * sigma)) * dt
    return mean, std * math.sqrt(-dt)


def reference_cps(x: Tensor, v: Tensor, sigma: float, after: float, level: float) -> tuple[Tensor, float]:
    x, v = x.double(), v.double()
    s = after * math.sin(level * math.pi / 2)
    return (1 - after) * (x - sigma * v) + math.sqrt(after**2 - s**2) * (x + (1 - sigma) * v), s


@pytest.mark.parametrize("sampler", ["sde", "cps"])
@pytest.mark.parametrize(("sigma", "after"), [(1.0, 0.9), (0.8, 0.55), (0.3, 0.1)])
@pytest.mark.parametrize("level", [0.3, 0.7, 1.0])
def test_step_and_log_probability_equal_a_float64_reference(sampler: flow.Sampler, sigma: float, after: float, level: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, v, eps = (torch.randn(3, 16, 8, generator=generator) for _ in range(3))
    mean, std = flow.step_moments(sampler, x, v, sigma, after, level)
    reached = mean + std * eps
    expected, expected_std = (reference_sde if sampler == "sde" else reference_cps)(x, v, sigma, after, level)
    torch.testing.assert_close(mean.double(), expected, atol=1e-6, rtol=1e-6)
    assert std == pytest.approx(expected_std, abs=1e-12)
    got = flow.log_probability(sampler, reached, mean, std)
    if sampler == "sde":
        wanted = torch.distributions.Normal(mean.double(), std).log_prob(reached.double()).mean((1, 2))
    else:
        wanted = -((reached.double() - mean.double()) ** 2).mean((1, 2))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", ["sde", "cps"])
def test_without_noise_a_stochastic_step_is_the_ode_step(sampler: flow.Sampler) -> None:
    x, v = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.ones(2, 4, 3)
    mean, std = flow.step_moments(sampler, x, v, 0.6, 0.4, 0.0)
    assert std == 0
    torch.testing.assert_close(mean, flow.ode_step(x, v, 0.6, 0.4))
    torch.testing.assert_close(flow.ode_step(x, v, 0.6, 0.4), x - 0.2)


def gaussian_velocity(x: Tensor, sigma: float, centre: float, spread: float) -> Tensor:
    """The exact velocity E[eps - x0 | x] when x0 is Gaussian."""
    variance = (1 - sigma) ** 2 * spread**2 + sigma**2
    residual = x - (1 - sigma) * centre
    return sigma / variance * residual - (centre + (1 - sigma) * spread**2 / variance * residual)


@pytest.mark.parametrize("level", [0.0, 0.7, 1.0])
def test_sde_and_ode_have_the_same_marginals_on_a_gaussian(level: float) -> None:
    generator = torch.Generator().manual_seed(2)
    steps, centre, spread = 200, 1.5, 0.5
    sigmas = torch.linspace(1, 0, steps + 1).tolist()
    x = torch.randn(20000, 1, generator=generator)
    for index, (sigma, after) in enumerate(pairwise(sigmas)):
        v = gaussian_velocity(x, sigma, centre, spread)
        if index == steps - 1:
            x = flow.ode_step(x, v, sigma, after)
            continue
        mean, std = flow.sde_moments(x, v, sigma, after, level)
        x = mean + std * torch.randn(x.shape, generator=generator)
        if index == steps // 2 - 1:  # halfway, sigma = 0.5
            assert x.mean().item() == pytest.approx(0.5 * centre, abs=0.02)
            assert x.std().item() == pytest.approx(math.hypot(0.5 * spread, 0.5), abs=0.02)
    assert x.mean().item() == pytest.approx(centre, abs=0.02)
    assert x.std().item() == pytest.approx(spread, abs=0.02)


def test_cps_keeps_the_coefficients_of_signal_and_noise() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50000, 1, generator=generator)
    for sigma, after in [(1.0, 0.7), (0.7, 0.4)]:
        v = (x - 2.0) / sigma  # every picture is the number 2, so x = 2 (1 - sigma) + sigma eps
        mean, std = flow.cps_moments(x, v, sigma, after, 0.7)
        x = mean + std * torch.randn(x.shape, generator=generator)
        assert x.mean().item() == pytest.approx((1 - after) * 2, abs=0.01)
        assert x.std().item() == pytest.approx(after, abs=0.01)


def test_loss_equals_hand_computed_values() -> None:
    old = torch.zeros(4)
    logp = torch.log(torch.tensor([1.5, 0.5, 1.5, 0.5]))
    advantages = torch.tensor([2.0, 2.0, -1.0, -1.0])
    loss, metrics = flow.clipped_loss(logp - old, advantages, 0.2)
    # gains: min(3, 2.4), min(1, 1.6), min(-1.5, -1.2), min(-0.5, -0.8)
    assert loss.item() == pytest.approx(-(2.4 + 1.0 - 1.5 - 0.8) / 4)
    assert metrics["clip_fraction"] == pytest.approx(0.5)
    assert metrics["ratio_mean"] == pytest.approx(1.0)
    assert metrics["ratio_worst"] == pytest.approx(1.5)
    halves = [flow.clipped_loss(logp[half] - old[half], advantages[half], 0.2, denominator=4)[0] for half in (slice(0, 2), slice(2, 4))]
    assert (halves[0] + halves[1]).item() == pytest.approx(loss.item())


def test_gradient_raises_good_samples_and_the_clip_stops_only_what_went_far_enough() -> None:
    logp = torch.log(torch.tensor([1.0, 1.0, 1.5, 0.5, 0.5, 1.5])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    loss, _ = flow.clipped_loss(logp, advantages, 0.2)
    (gradient,) = torch.autograd.grad(loss, logp)
    assert gradient[0] < 0 < gradient[1]  # descent raises the good one's log-probability
    assert gradient[2] == 0
    assert gradient[3] == 0
    assert gradient[4] < 0 < gradient[5]  # on the wrong side: never clipped


def test_a_step_on_the_velocity_raises_the_log_probability_of_a_good_sample() -> None:
    generator = torch.Generator().manual_seed(4)
    x, eps = torch.randn(2, 3, 2, generator=generator), torch.randn(2, 3, 2, generator=generator)
    v = torch.zeros(2, 3, 2, requires_grad=True)
    for sampler in ("sde", "cps"):
        mean, std = flow.step_moments(sampler, x, v, 0.8, 0.6, 0.7)
        reached = (mean + std * eps).detach()
        old = flow.log_probability(sampler, reached, mean, std).detach()
        loss, _ = flow.clipped_loss(flow.log_probability(sampler, reached, mean, std) - old, torch.tensor([1.0, -1.0]), 0.2)
        (gradient,) = torch.autograd.grad(loss, v)
        moved, std = flow.step_moments(sampler, x, v - 0.01 * gradient, 0.8, 0.6, 0.7)
        change = flow.log_probability(sampler, reached, moved, std) - old
        assert change[0] > 0 > change[1]
