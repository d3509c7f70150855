"""Group advantages and dynamic sampling, by hand."""

from __future__ import annotations

import pytest
import torch

from sparring.rl.advantages import group_advantages
from sparring.rl.policy import keep_groups, overlong_penalty

REWARDS_PG = torch.tensor([[0.0, 1.0, 1.0, 0.0], [3.0, 3.0, 3.0, 7.0]])


def test_group_std_by_hand() -> None:
    # Deviations -+1/2, sample std sqrt(1/3); then -1 and 3 around a mean of 4, sample std 2.
    small, large = 0.5 / (3**-0.5 + 1e-4), 1 / 2.0001
    expected = torch.tensor([[-small, small, small, -small], [-large, -large, -large, 3 * large]])
    torch.testing.assert_close(group_advantages(REWARDS_PG), expected)


def test_epsilon_is_added_to_the_std() -> None:
    # Recorded from compute_grpo_outcome_advantage of EasyR1, whose epsilon is 1e-6.
    rewards_PG = torch.tensor([[0.0, 0.8, 1.0, 1.0, 0.0]])
    expected = torch.tensor([[-1.0817323, 0.4635996, 0.8499325, 0.8499325, -1.0817323]])
    torch.testing.assert_close(group_advantages(rewards_PG, eps=1e-6), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(group_advantages(rewards_PG), expected, atol=1e-5)


def test_batch_std_divides_all_groups_alike() -> None:
    expected = (REWARDS_PG - REWARDS_PG.mean(1, keepdim=True)) / (REWARDS_PG.flatten().std() + 1e-4)
    torch.testing.assert_close(group_advantages(REWARDS_PG, std_over="batch"), expected)
    assert not torch.allclose(expected, group_advantages(REWARDS_PG))


def test_without_a_std_only_the_mean_is_taken_away() -> None:
    expected = torch.tensor([[-0.5, 0.5, 0.5, -0.5], [-1.0, -1.0, -1.0, 3.0]])
    torch.testing.assert_close(group_advantages(REWARDS_PG, std_over="none"), expected)


def test_a_group_without_signal_gets_nothing() -> None:
    rewards_PG = torch.tensor([[0.1] * 7, [0.8] * 7, [0.0] * 6 + [1.0]])
    assert (group_advantages(rewards_PG)[:2] == 0).all()
    assert (group_advantages(rewards_PG, std_over="batch")[:2] == 0).all()
    assert (group_advantages(rewards_PG, std_over="none")[:2] == 0).all()


def test_clip_bounds_both_sides() -> None:
    advantages = group_advantages(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), clip=0.5)
    assert advantages.tolist() == [[-0.5, 0.5], [0.5, -0.5]]


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_group_needs_two(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least two"):
        group_advantages(torch.zeros(shape))


def test_keeps_exactly_the_groups_with_signal() -> None:
    rewards_PG = torch.tensor([[0.0, 0.0], [0.0, 0.02], [0.0, 0.1], [1.0, 0.97], [1.0, 0.98], [1.0, 1.0]])
    # Means 0, 0.01, 0.05, 0.985, 0.99, 1: the bounds themselves are out.
    assert keep_groups(rewards_PG.double().round(decimals=3), 0.0101, 0.9899).tolist() == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert keep_groups(torch.tensor([[0.25, 0.25], [0.75, 0.75], [0.5, 0.5]]), 0.25, 0.75).tolist() == [
        False,
        False,
        True,
    ]


def test_overlong_penalty_by_hand() -> None:
    lengths = torch.tensor([1, 12, 14, 15, 16, 20])
    torch.testing.assert_close(
        overlong_penalty(lengths, limit=16, cache=4), torch.tensor([0.0, 0.0, -0.5, -0.75, -1.0, -1.0])
    )
    assert (overlong_penalty(lengths, limit=16, cache=0) == 0).all()
