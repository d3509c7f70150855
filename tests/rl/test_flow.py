"""The flow's stochastic steps against float64 references, closed-form marginals, and the clipped loss by
hand.
"""

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


def reference_constant(
    x: Tensor, v: Tensor, sigma: float, after: float, level: float
) -> tuple[Tensor, float]:
    """DanceGRPO's form: the Euler step, and half the diffusion squared along the score of the noised
    picture.
    """
    x, v, dt = x.double(), v.double(), after - sigma
    score = -(x - (1 - sigma) * (x - sigma * v)) / sigma**2
    return x + v * dt - level**2 / 2 * score * dt, level * math.sqrt(-dt)


def reference_cps(x: Tensor, v: Tensor, sigma: float, after: float, level: float) -> tuple[Tensor, float]:
    x, v = x.double(), v.double()
    s = after * math.sin(level * math.pi / 2)
    return (1 - after) * (x - sigma * v) + math.sqrt(after**2 - s**2) * (x + (1 - sigma) * v), s


REFERENCES = {"sde": reference_sde, "constant": reference_constant, "cps": reference_cps}
SAMPLERS = sorted(REFERENCES)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("sigma", "after"), [(1.0, 0.9), (0.999, 0.9), (0.95, 0.8), (0.8, 0.55), (0.3, 0.1)])
@pytest.mark.parametrize("level", [0.3, 0.7, 1.0])
def test_step_and_log_probability_equal_a_float64_reference(
    sampler: flow.Sampler, sigma: float, after: float, level: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    x, v, eps = (torch.randn(3, 16, 8, generator=generator) for _ in range(3))
    mean, std = flow.step_moments(sampler, x, v, sigma, after, level)
    reached = mean + std * eps
    expected, expected_std = REFERENCES[sampler](x, v, sigma, after, level)
    torch.testing.assert_close(mean.double(), expected, atol=1e-6, rtol=1e-6)
    assert std == pytest.approx(expected_std, abs=1e-12)
    got = flow.log_probability(sampler, reached, mean, std)
    if sampler != "cps":
        wanted = torch.distributions.Normal(mean.double(), std).log_prob(reached.double()).mean((1, 2))
    else:
        wanted = -((reached.double() - mean.double()) ** 2).mean((1, 2))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
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


CENTRE, SPREAD = 1.5, 0.5


def marginals(
    sampler: flow.Sampler | None, steps: int, level: float = 0.0, spread: float = SPREAD
) -> tuple[list[float], list[float]]:
    """(mean, standard deviation) of x after every step of a roll-out towards a Gaussian; sampler None: the
    ODE.

    Exact, without a sample: the velocity is affine in x, and so is every step, so a step takes N(m, s^2) to
    N(A m + b, A^2 s^2 + std^2).
    """
    centre, deviation, means, deviations = 0.0, 1.0, [], []
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for index, (sigma, after) in enumerate(
        pairwise(torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist())
    ):
        v = gaussian_velocity(ends, sigma, CENTRE, spread)
        moved, std = flow.ode_step(ends, v, sigma, after), 0.0
        if sampler is not None and index < steps - 1:
            moved, std = flow.step_moments(sampler, ends, v, sigma, after, level)
        b, a = moved[0].item(), (moved[1] - moved[0]).item()
        centre, deviation = a * centre + b, math.hypot(a * deviation, std)
        means.append(centre)
        deviations.append(deviation)
    return means, deviations


def furthest(first: list[float], second: list[float]) -> float:
    """The largest difference over the second half of the steps: the SDE's first step, at sigma 1, is a rough
    one.
    """
    pairs = list(zip(first, second, strict=True))
    return max(abs(a - b) for a, b in pairs[len(pairs) // 2 :])


@pytest.mark.parametrize(
    ("sampler", "level"),
    [("sde", 0.7), ("sde", 1.0), ("constant", 0.3), ("constant", 0.7), ("constant", 1.0)],
)
def test_stochastic_steps_and_the_ode_have_the_same_marginals_on_a_gaussian(
    sampler: flow.Sampler, level: float
) -> None:
    gaps = []
    for steps in (100, 400):
        (means, deviations), (ode_means, ode_deviations) = (
            marginals(sampler, steps, level),
            marginals(None, steps),
        )
        gaps.append(max(furthest(means, ode_means), furthest(deviations, ode_deviations)))
    assert gaps[1] < 0.008
    assert gaps[1] < 0.5 * gaps[0]  # what is left is the size of the steps
    assert ode_means[-1] == pytest.approx(CENTRE, abs=0.01)
    assert ode_deviations[-1] == pytest.approx(SPREAD, abs=0.01)


def test_cps_has_the_marginals_of_the_ode_on_a_point_and_is_narrower_on_a_gaussian() -> None:
    """On a point x tells x0 and the noise apart, and any number of steps is exact. On a Gaussian it does not,
    and more steps do not help.
    """
    for steps in (4, 50):
        point, ode = marginals("cps", steps, 0.7, spread=0.0), marginals(None, steps, spread=0.0)
        assert furthest(point[0], ode[0]) < 1e-5
        assert furthest(point[1], ode[1]) < 1e-5
    for steps in (100, 400):
        (means, deviations), (ode_means, ode_deviations) = (
            marginals("cps", steps, 0.7),
            marginals(None, steps),
        )
        assert furthest(means, ode_means) < 1e-5
        assert deviations[-1] < 0.9 * ode_deviations[-1]


def test_cps_keeps_the_coefficients_of_signal_and_noise() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50000, 1, generator=generator)
    for sigma, after in [(1.0, 0.7), (0.7, 0.4)]:
        v = (x - 2.0) / sigma  # every picture is the number 2, so x = 2 (1 - sigma) + sigma eps
        mean, std = flow.cps_moments(x, v, sigma, after, 0.7)
        x = mean + std * torch.randn(x.shape, generator=generator)
        assert x.mean().item() == pytest.approx((1 - after) * 2, abs=0.01)
        assert x.std().item() == pytest.approx(after, abs=0.01)


@pytest.mark.parametrize("sampler", ["sde", "constant"])
def test_the_guarded_ratio_is_the_published_one_and_one_on_average(sampler: flow.Sampler) -> None:
    generator = torch.Generator().manual_seed(5)
    x, v, eps = (torch.randn(4000, 12, 8, generator=generator) for _ in range(3))
    drift = 0.2 * torch.randn(1, 12, 8, generator=generator)
    spreads = []
    for sigma, after in [(0.9, 0.8), (0.3, 0.2)]:
        old_mean, std = flow.step_moments(sampler, x, v, sigma, after, 0.7)
        mean, _ = flow.step_moments(sampler, x, v + drift, sigma, after, 0.7)
        reached = old_mean + std * eps
        log_ratio = flow.guarded_log_ratio(reached, mean, old_mean, std)
        plain = [
            torch.distributions.Normal(m.double(), std).log_prob(reached.double()).mean((1, 2))
            for m in (mean, old_mean)
        ]
        bias = ((mean.double() - old_mean.double()) ** 2).mean((1, 2)) / (2 * std**2)
        torch.testing.assert_close(log_ratio.double(), (plain[0] - plain[1] + bias) * std, atol=1e-6, rtol=0)
        error = log_ratio.std().item() / math.sqrt(len(log_ratio))
        assert abs(log_ratio.mean().item()) < 4 * error
        # what clipping on the plain ratio suffers from
        assert (plain[0] - plain[1]).mean().item() < -4 * error / std
        spreads.append(log_ratio.std().item() / ((mean - old_mean) ** 2).mean().sqrt().item())
        assert torch.equal(flow.guarded_log_ratio(reached, old_mean, old_mean, std), torch.zeros(4000))
    assert spreads[0] == pytest.approx(spreads[1], rel=0.05)  # the same at every noise level


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
    halves = [
        flow.clipped_loss(logp[half] - old[half], advantages[half], 0.2, denominator=4)[0]
        for half in (slice(0, 2), slice(2, 4))
    ]
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
    for sampler in SAMPLERS:
        mean, std = flow.step_moments(sampler, x, v, 0.8, 0.6, 0.7)
        reached = (mean + std * eps).detach()
        old = flow.log_probability(sampler, reached, mean, std).detach()
        loss, _ = flow.clipped_loss(
            flow.log_probability(sampler, reached, mean, std) - old, torch.tensor([1.0, -1.0]), 0.2
        )
        (gradient,) = torch.autograd.grad(loss, v)
        moved, std = flow.step_moments(sampler, x, v - 0.01 * gradient, 0.8, 0.6, 0.7)
        change = flow.log_probability(sampler, reached, moved, std) - old
        assert change[0] > 0 > change[1]
