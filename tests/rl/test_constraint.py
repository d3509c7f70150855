"""A constraint inside the advantage: by hand, and what it is for: the target is reached."""

from __future__ import annotations

import pytest
import torch

from sparring.rl.advantages import constrained_advantages, dual_ascent, group_advantages

REWARDS = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
MEASURE = torch.tensor([[1.0, 0.0, 1.0, 0.0]])


def test_advantages_by_hand() -> None:
    # Without a std: -+1/2 of the reward, and 3 x -+1/2 of the measure.
    found = constrained_advantages(REWARDS, MEASURE, 3.0, std_over="none")
    torch.testing.assert_close(found, torch.tensor([[2.0, -1.0, 1.0, -2.0]]))
    torch.testing.assert_close(constrained_advantages(REWARDS, MEASURE, 0.0), group_advantages(REWARDS))


def test_a_measure_is_not_washed_out_by_large_rewards() -> None:
    large = constrained_advantages(100 * REWARDS, MEASURE, 1.0)
    torch.testing.assert_close(large, constrained_advantages(REWARDS, MEASURE, 1.0), atol=1e-3, rtol=0)


def test_the_multiplier_rises_while_the_target_is_missed() -> None:
    steps = {"target": 0.9, "rate": 0.5, "upper": 2.0}
    assert dual_ascent(1.0, 0.5, **steps) == pytest.approx(1.2)
    assert dual_ascent(1.0, 1.0, **steps) == pytest.approx(0.95)
    assert dual_ascent(0.01, 1.0, **steps) == 0.0
    assert dual_ascent(1.99, 0.0, **steps) == 2.0


@pytest.mark.parametrize("weighted", [True, False])
def test_a_policy_that_is_paid_for_inconsistency_becomes_consistent(weighted: bool) -> None:
    """Two choices that are drawn apart: the reward likes the second, the constraint the first."""
    generator = torch.Generator().manual_seed(0)
    logit, multiplier, shares = torch.zeros(1, requires_grad=True), 0.0, []
    optimizer = torch.optim.SGD([logit], lr=0.1)
    for _ in range(400):
        p = torch.sigmoid(logit)
        consistent = (torch.rand(8, 16, generator=generator) < p.detach()).float()
        rewards = 1 - consistent
        advantages = constrained_advantages(rewards, consistent, multiplier, std_over="none")
        logprobs = torch.where(consistent.bool(), p.log(), (1 - p).log())
        optimizer.zero_grad()
        (-(advantages * logprobs).mean()).backward()
        optimizer.step()
        shares.append(consistent.mean().item())
        if weighted:
            multiplier = dual_ascent(multiplier, shares[-1], target=0.8, rate=0.2, upper=5.0)
    reached = sum(shares[-100:]) / 100
    assert reached > 0.7 if weighted else reached < 0.3
