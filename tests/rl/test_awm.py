"""AWM's loss: the published formula in float64, directions, neutral cases, and that it is a policy
gradient.
"""

import pytest
import torch
from torch import Tensor

from sparring.rl import nft


def example(rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """(v_old, u, sigma_B)."""
    generator = torch.Generator().manual_seed(0)
    x0, noise, v_old = (torch.randn(rows, 5, 3, generator=generator) for _ in range(3))
    sigma_B = torch.rand(rows, generator=generator) * 0.8 + 0.1
    return v_old, nft.noised(x0, noise, sigma_B)[1], sigma_B


def loss_of(
    v: Tensor, v_old: Tensor, u: Tensor, sigma_B: Tensor, advantages_B: Tensor, **changes: float
) -> Tensor:
    arguments = {"power": 0.25, "clip_range": 1.0, **changes}
    return nft.awm_loss(v, v_old, u, sigma_B, advantages_B, **arguments)[0]  # type: ignore[arg-type]


def published_loss(
    v: Tensor, v_old: Tensor, u: Tensor, sigma_B: Tensor, advantages_B: Tensor, power: float, clip: float
) -> Tensor:
    """As the authors' script computes it: log-probabilities in float64, PPO's larger of two negated gains."""
    logps = []
    for each in (v, v_old):
        error = ((each.double() - u.double()) ** 2).mean((1, 2))
        logps.append(-((error + 1e-10).pow(power) - 1e-10**power) * sigma_B.double() / power)
    ratio = (logps[0] - logps[1]).exp()
    return torch.maximum(-advantages_B * ratio, -advantages_B * ratio.clamp(1 - clip, 1 + clip)).mean()


@pytest.mark.parametrize("power", [0.25, 1.0])
@pytest.mark.parametrize("clip", [1.0, 0.02])
def test_loss_and_gradient_equal_the_published_formula_in_float64(power: float, clip: float) -> None:
    v_old, u, sigma_B = example()
    advantages_B = torch.tensor([1.5, -0.5, -2.0, 1.0])
    v = (v_old + 0.2 * torch.randn(u.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    loss, metrics = nft.awm_loss(v, v_old, u, sigma_B, advantages_B, power=power, clip_range=clip)
    expected = published_loss(v, v_old, u, sigma_B, advantages_B, power, clip)
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)
    got, wanted = (torch.autograd.grad(each, v)[0] for each in (loss, expected))
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
    assert (metrics["clip_fraction"] > 0) == (clip < 1)
    parts = [
        loss_of(
            v[i : i + 2],
            v_old[i : i + 2],
            u[i : i + 2],
            sigma_B[i : i + 2],
            advantages_B[i : i + 2],
            power=power,
            clip_range=clip,
            denominator=4,
        )
        for i in (0, 2)
    ]
    torch.testing.assert_close(parts[0] + parts[1], loss)


def test_equal_rewards_give_no_gradient_at_the_old_policy() -> None:
    v_old, u, sigma_B = example()
    v = v_old.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(v, v_old, u, sigma_B, torch.zeros(4)), v)
    assert gradient.abs().max() == 0


def test_the_trust_region_pulls_back_to_the_old_policy() -> None:
    v_old, _, _ = example()
    v = (v_old + 1.0).requires_grad_()
    (gradient,) = torch.autograd.grad(5.0 * nft.distance(v, v_old).mean(), v)
    torch.testing.assert_close(gradient, torch.full_like(v, 2 * 5.0 / v.numel()))
    (none,) = torch.autograd.grad(nft.distance(v, v.detach()).sum(), v)
    assert none.abs().max() == 0


def test_at_the_old_policy_it_is_matching_weighted_by_the_advantage() -> None:
    v_old, u, sigma_B = example()
    advantages_B = torch.tensor([2.0, 1.0, -1.0, -2.0])
    v = v_old.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(v, v_old, u, sigma_B, advantages_B, power=1.0), v)
    torch.testing.assert_close(
        gradient, (advantages_B * sigma_B).view(-1, 1, 1) * 2 * (v_old - u) / v.numel()
    )
    before, after = ((v - u) ** 2).mean((1, 2)), ((v - 0.1 * gradient - u) ** 2).mean((1, 2))
    assert (after[:2] < before[:2]).all()
    assert (after[2:] > before[2:]).all()
