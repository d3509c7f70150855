"""The optimiser of an editor's weights."""

from __future__ import annotations

import pytest
import torch

from sparring.attackers.learner import Learner
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings
from two_pixels import TwoPixels


@pytest.mark.parametrize(("longest", "kept"), [(1.0, [0.6, 0.8]), (10.0, [6.0, 8.0]), (100.0, [30.0, 40.0])])
def test_a_gradient_is_cut_to_its_longest_length(longest: float, kept: list[float]) -> None:
    """AdamW hides the length of a first gradient from the weights; its moments show it."""
    weight = torch.nn.Parameter(torch.zeros(2))
    learner = Learner({"w": weight}, learning_rate=0.1, weight_decay=0.0, max_grad_norm=longest)
    weight.grad = torch.tensor([30.0, 40.0])
    assert learner.step("here") == (pytest.approx(50.0), True)
    torch.testing.assert_close(learner.optimizer.state[weight]["exp_avg"], 0.1 * torch.tensor(kept))


def test_the_length_is_the_settings_own() -> None:
    settings = AttackerSettings(model="m", lora=None, max_grad_norm=0.25)
    assert AttackerTrainer(TwoPixels(), settings, seed=0).learner.max_grad_norm == 0.25  # type: ignore[arg-type]
