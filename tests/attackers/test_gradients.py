"""What the algorithms' gradients are made of, where the ratio is 1 and every term can be written down."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sparring.attackers import objectives
from sparring.attackers.rollout import Rollout, roll_out
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings
from two_pixels import TwoPixels, pictures

STEPS, ROWS = 6, 8


def trainer_of(**changes: object) -> AttackerTrainer:
    start = {"model": "m", "lora": None, "rollout_steps": STEPS}
    return AttackerTrainer(TwoPixels(), AttackerSettings.model_validate({**start, **changes}), seed=0)  # type: ignore[arg-type]


def everywhere(**own: object) -> dict[str, object]:
    """Flow-GRPO with every step but the last in the window."""
    return {"type": "flow_grpo", "window": {"size": None}, **own}


def rolled_out(trainer: AttackerTrainer, groups: int = 1) -> Rollout:
    conditions = trainer.editor.encode(pictures(groups, (2, 1)), ["x"] * groups)
    rows = torch.arange(ROWS) * groups // ROWS
    return roll_out(
        trainer.editor, conditions, rows, list(range(ROWS)), steps=STEPS, chance=trainer.algorithm.chance(0)
    )


def learned(
    trainer: AttackerTrainer, rollout: Rollout, advantages_B: Tensor
) -> tuple[dict[str, float], Tensor]:
    """The metrics of all rows, and the gradient of the weights."""
    trainer.editor.centre.grad = None  # type: ignore[attr-defined]
    metrics = trainer.algorithm.learn(rollout, torch.arange(ROWS), advantages_B, ROWS)
    return metrics, trainer.editor.centre.grad  # type: ignore[attr-defined]


@pytest.mark.parametrize("sampler", ["sde", "constant", "cps"])
def test_grpo_guard_weighs_a_step_by_one_over_its_length(sampler: str) -> None:
    trainer = trainer_of(algorithm=everywhere(grpo_guard=True, sampler=sampler))
    rollout = rolled_out(trainer)
    rollout.sigmas = [1.0, 0.9, 0.7, 0.6, 0.3, 0.2, 0.0]
    lengths = [before - after for before, after in pairwise(rollout.sigmas[:STEPS])]
    rollout.means = [torch.zeros_like(mean) for mean in rollout.means]
    for place, before in enumerate(rollout.states[:-1]):  # so that the means of now are those of the roll-out
        sigma, after = rollout.sigmas[place], rollout.sigmas[place + 1]
        v = trainer.editor.velocity(before, sigma, rollout.conditions.select(rollout.rows_B))
        rollout.means[place] = forward_mean(sampler, before, v.detach(), sigma, after)
    metrics, _ = learned(trainer, rollout, torch.ones(ROWS))
    assert metrics["ratio_mean"] == pytest.approx(1.0)
    assert metrics["loss"] == pytest.approx(-sum(1 / length for length in lengths) / len(lengths), rel=1e-5)


def forward_mean(sampler: str, x: Tensor, v: Tensor, sigma: float, after: float) -> Tensor:
    from sparring.rl.flow import step_moments

    return step_moments(sampler, x, v, sigma, after, 0.7)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", ["sde", "constant", "cps"])
def test_the_kl_term_of_flow_grpo_is_the_published_one(sampler: str) -> None:
    """Without advantages the loss is the weight times the divergence, written down here from the velocities
    of the two policies.
    """
    trainer = trainer_of(algorithm=everywhere(sampler=sampler), kl_weight=0.3)
    trainer.policies.reference = {"centre": torch.tensor([0.4, -0.3])}
    rollout = rolled_out(trainer)
    expected = []
    for place, before in enumerate(rollout.states[:-1]):
        sigma, after = rollout.sigmas[place], rollout.sigmas[place + 1]
        means = []
        for centre in (trainer.editor.centre.detach(), trainer.policies.reference["centre"]):  # type: ignore[attr-defined]
            with trainer.policies.ranks.using(trainer.optimizer.parameters, {"centre": centre}):
                v = trainer.editor.velocity(before, sigma, rollout.conditions.select(rollout.rows_B)).detach()
            means.append(forward_mean(sampler, before, v, sigma, after))
        diffusion = {
            "sde": 0.7 * (sigma / (1 - (after if sigma == 1 else sigma))) ** 0.5,
            "constant": 0.7,
            "cps": 0.5**0.5,
        }[sampler]
        expected.append(((means[0] - means[1]) ** 2).mean().item() / (2 * diffusion**2))
    metrics, gradient = learned(trainer, rollout, torch.zeros(ROWS))
    assert metrics["kl"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert metrics["loss"] == pytest.approx(0.3 * metrics["kl"], rel=1e-5)
    assert (gradient * torch.tensor([0.4, -0.3]) < 0).all()  # descent goes towards the reference


@pytest.mark.parametrize("algorithm", ["diffusion_nft", "awm"])
def test_the_kl_term_of_the_forward_process_is_the_distance_of_the_velocities(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances: list[float] = []
    velocity = TwoPixels.velocity

    def spying(editor: TwoPixels, x: Tensor, sigma: Tensor, conditions: object) -> Tensor:
        v = velocity(editor, x, sigma, conditions)  # type: ignore[arg-type]
        if v.requires_grad:
            with torch.no_grad():
                present, editor.centre.data = editor.centre.data, torch.tensor([0.4, -0.3])
                distances.append(((v - velocity(editor, x, sigma, conditions)) ** 2).mean().item())  # type: ignore[arg-type]
                editor.centre.data = present
        return v

    advantages_B, losses = torch.linspace(-1, 1, ROWS), {}
    for weight in (0.0, 0.3):
        trainer = trainer_of(algorithm=algorithm, kl_weight=weight)
        trainer.policies.reference = {"centre": torch.tensor([0.4, -0.3])}
        rollout = rolled_out(trainer)
        monkeypatch.setattr(TwoPixels, "velocity", spying if weight else velocity)
        losses[weight], _ = learned(trainer, rollout, advantages_B)
    assert losses[0.3]["kl"] == pytest.approx(sum(distances) / len(distances), rel=1e-5)
    assert losses[0.3]["loss"] - losses[0.0]["loss"] == pytest.approx(0.3 * losses[0.3]["kl"], rel=1e-3)


def test_the_advantages_clip_does_not_set_the_size_of_nfts_gradient() -> None:
    gradients = []
    for clip in (2.0, 5.0, 20.0):
        trainer = trainer_of(algorithm="diffusion_nft", advantage_clip=clip)
        gradients.append(learned(trainer, rolled_out(trainer), torch.linspace(-1.5, 1.5, ROWS))[1])
    assert gradients[0].norm() > 0.01
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-4, atol=1e-6)


def test_only_at_level_one_is_a_group_one_row() -> None:
    """Below it something is left of each edit, so that no two rows are the same."""
    owners, levels = torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([1.0, 1.0, 1.0, 0.5, 0.5, 0.5])
    first, back = objectives._different(owners, levels)
    assert first.tolist() == [0, 2, 3, 4, 5]
    assert back.tolist() == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("algorithm", ["diffusion_nft", "awm"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_group_is_noised_to_levels_of_its_own(
    algorithm: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[Tensor] = []
    noised = objectives.noised
    monkeypatch.setattr(
        objectives, "noised", lambda x0, noise, sigma_B: levels.append(sigma_B) or noised(x0, noise, sigma_B)
    )
    trainer = trainer_of(algorithm={"type": algorithm, "forward_timesteps": count})
    rollout = rolled_out(trainer, groups=4)
    learned(trainer, rollout, torch.linspace(-1, 1, ROWS))
    drawn_KB = torch.stack(levels)
    assert drawn_KB.shape == (count, ROWS)
    assert all(len(set(row)) > 1 for row in drawn_KB.tolist())  # groups differ in their levels
    for group in rollout.rows_B.unique():
        own_KB = drawn_KB[:, rollout.rows_B == group]
        assert bool((own_KB == own_KB[:, :1]).all())
    # and nothing is noised to a level twice
    assert all(len(set(column)) == count for column in drawn_KB.T.tolist())
    assert set(drawn_KB.flatten().tolist()) <= set(rollout.sigmas[:-1])
