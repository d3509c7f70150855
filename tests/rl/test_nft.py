"""DiffusionNFT's loss: directions, neutral cases, the published formula, and the old policy."""

import pytest
import torch
from torch import Tensor

from sparring.rl import nft


def example(rows: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(rows, 5, 3, generator=generator) for _ in range(2))
    sigma_B = torch.rand(rows, generator=generator) * 0.8 + 0.1
    x, u = nft.noised(x0, noise, sigma_B)
    torch.testing.assert_close(x - sigma_B.view(-1, 1, 1) * u, x0)
    return x0, x, u, sigma_B


def published_loss(
    v: Tensor, v_old: Tensor, x0: Tensor, x: Tensor, sigma_B: Tensor, r_B: Tensor, beta: float
) -> Tensor:
    """As the authors' training script has it, on pictures instead of velocities."""
    t = sigma_B.view(-1, 1, 1)
    total = torch.zeros(())
    for implicit, weight in (((1 - beta) * v_old + beta * v, r_B), ((1 + beta) * v_old - beta * v, 1 - r_B)):
        picture = x - t * implicit
        factor = (picture - x0).abs().mean((1, 2), keepdim=True).clip(min=1e-5).detach()
        total = total + (weight * ((picture - x0) ** 2 / factor).mean((1, 2)) / beta).mean()
    return total


def test_loss_and_gradient_equal_the_published_formula() -> None:
    x0, x, u, sigma_B = example()
    generator = torch.Generator().manual_seed(1)
    v_old, r_B = torch.randn(u.shape, generator=generator), torch.tensor([0.0, 0.3, 0.5, 1.0])
    v = (v_old + 0.3 * torch.randn(u.shape, generator=generator)).requires_grad_()
    loss, _ = nft.nft_loss(v, v_old, u, sigma_B, r_B, 0.2)
    expected = published_loss(v, v_old, x0, x, sigma_B, r_B, 0.2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, v)[0], torch.autograd.grad(expected, v)[0])
    parts = [
        nft.nft_loss(
            v[i : i + 2], v_old[i : i + 2], u[i : i + 2], sigma_B[i : i + 2], r_B[i : i + 2], 0.2, 4
        )[0]
        for i in (0, 2)
    ]
    torch.testing.assert_close(parts[0] + parts[1], loss)


def test_equal_rewards_give_no_gradient_at_the_old_policy() -> None:
    _, _, u, sigma_B = example()
    v_old = torch.randn(u.shape, generator=torch.Generator().manual_seed(2))
    v = v_old.clone().requires_grad_()
    r_B = nft.goodness(torch.zeros(4), 5.0)
    assert r_B.tolist() == [0.5] * 4
    (gradient,) = torch.autograd.grad(nft.nft_loss(v, v_old, u, sigma_B, r_B, 0.1)[0], v)
    (scale,) = torch.autograd.grad(nft.nft_loss(v, v_old, u, sigma_B, torch.ones(4), 0.1)[0], v)
    assert gradient.abs().max() < 1e-5 * scale.abs().max()


def test_equal_rewards_pull_back_to_the_old_policy() -> None:
    _, _, u, sigma_B = example()
    v_old = torch.randn(u.shape, generator=torch.Generator().manual_seed(2))
    v = (v_old + 1.0).requires_grad_()
    (gradient,) = torch.autograd.grad(nft.nft_loss(v, v_old, u, sigma_B, torch.full((4,), 0.5), 0.1)[0], v)
    assert ((v - 1e-3 * gradient - v_old) ** 2).sum() < ((v - v_old) ** 2).sum()


def test_good_samples_pull_the_velocity_to_their_target_and_bad_ones_push_it_away() -> None:
    _, _, u, sigma_B = example()
    v = torch.zeros_like(u).requires_grad_()
    r_B = nft.goodness(torch.tensor([2.0, 2.0, -2.0, -2.0]), 5.0)
    torch.testing.assert_close(r_B, torch.tensor([0.7, 0.7, 0.3, 0.3]))
    (gradient,) = torch.autograd.grad(nft.nft_loss(v, torch.zeros_like(u), u, sigma_B, r_B, 0.1)[0], v)
    before, after = ((v - u) ** 2).mean((1, 2)), ((v - 0.01 * gradient - u) ** 2).mean((1, 2))
    assert (after[:2] < before[:2]).all()
    assert (after[2:] > before[2:]).all()


def test_goodness_is_clamped() -> None:
    assert nft.goodness(torch.tensor([-9.0, -5.0, 5.0, 9.0]), 5.0).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_the_old_policy_is_a_moving_average() -> None:
    assert [nft.old_decay(step, 0.001, 0.5) for step in (0, 100, 500, 9000)] == pytest.approx(
        [0.0, 0.1, 0.5, 0.5]
    )
    old, new = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, -2.0])}
    nft.blend(old, new, 0.75)
    torch.testing.assert_close(old["w"], torch.tensor([1.5, 1.0]))
    nft.blend(old, new, 0.0)
    assert torch.equal(old["w"], new["w"])
    assert old["w"] is not new["w"]


def test_learning_by_nft_finds_the_rewarded_half_of_a_two_pixel_world() -> None:
    """The policy is a constant velocity field's target; samples near (1, -1) are rewarded."""
    goal, generator = torch.tensor([1.0, -1.0]), torch.Generator().manual_seed(3)
    centre = torch.zeros(2, requires_grad=True)
    old = {"centre": torch.zeros(2)}
    optimizer = torch.optim.Adam([centre], lr=0.05)
    for step in range(150):
        # x0 ~ N(centre, 0.3^2) is what the flow towards a Gaussian samples; its exact velocity is affine in
        # the centre.
        x0 = old["centre"] + 0.3 * torch.randn(64, 2, generator=generator)
        rewards = -((x0 - goal) ** 2).sum(1)
        advantages = (rewards - rewards.mean()) / rewards.std()
        sigma_B, noise = (
            torch.rand(64, generator=generator) * 0.9 + 0.05,
            torch.randn(64, 2, generator=generator),
        )
        x, u = nft.noised(x0, noise, sigma_B)
        s = sigma_B[:, None]
        variance = (1 - s) ** 2 * 0.09 + s**2

        def velocity(c: Tensor, x: Tensor = x, s: Tensor = s, variance: Tensor = variance) -> Tensor:
            residual = x - (1 - s) * c
            return s / variance * residual - c - (1 - s) * 0.09 / variance * residual

        loss, _ = nft.nft_loss(
            velocity(centre), velocity(old["centre"]), u, sigma_B, nft.goodness(advantages, 5.0), 0.1
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        nft.blend(old, {"centre": centre.detach()}, nft.old_decay(step, 0.001, 0.5))
    assert (centre.detach() - goal).norm() < 0.25
