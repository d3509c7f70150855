"""The Attacker's trainer: exact replay, resume, grouping, and that every algorithm learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from small_checkpoints import tiny_flux2_klein
from sparring.attackers import objectives
from sparring.attackers import trainer as trainer_module
from sparring.attackers.rollout import Rollout, roll_out
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings, EditorLoraSettings
from sparring.data.errors import RunError, TrainingError
from sparring.models.editors import FlowEditor, load_editor
from two_pixels import TwoPixels, pictures, questions


def settings(**changes: object) -> AttackerSettings:
    start: dict[str, object] = {
        "model": "tiny",
        "group_size": 4,
        "rollout_steps": 3,
        "micro_batch": 3,
        "learning_rate": 1e-2,
        "lora": EditorLoraSettings(rank=4, alpha=8),
    }
    return AttackerSettings.model_validate({**start, **changes})


def redness(edits: list[list[Image.Image]]) -> Tensor:
    return torch.tensor(
        [
            [np.asarray(edit)[..., 0].mean() / 255 - np.asarray(edit)[..., 2].mean() / 255 for edit in group]
            for group in edits
        ]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_flux2_klein(tmp_path_factory.mktemp("flux"), text_tokens=24)


@pytest.fixture
def editor(folder: Path) -> FlowEditor:
    return load_editor(folder)


GOAL = np.array([0.9, 0.2])


def nearness(edits: list[list[Image.Image]]) -> Tensor:
    return torch.tensor(
        [[-float(((np.asarray(edit)[0, :, 0] / 255 - GOAL) ** 2).sum()) for edit in group] for group in edits]
    )


def reward_of_ode_edits(editor: TwoPixels) -> float:
    """The mean reward of deterministic edits: what was learned, without the noise that taught it."""
    conditions = editor.encode(pictures(1), ["x"])
    made = roll_out(editor, conditions, torch.zeros(128, dtype=torch.long), list(range(128)), steps=6)  # type: ignore[arg-type]
    return nearness([made.edits]).mean().item()


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"window": {"size": None}}},
        {"algorithm": {"window": {"size": 2}}},
        {"algorithm": {"window": {"size": 2, "shared_start": True}}},
        {"algorithm": {"window": {"size": 1, "move": "slide", "every": 5, "wrap": True}}},
        {"algorithm": {"sampler": "constant"}},
        {"algorithm": {"sampler": "cps"}},
        {"algorithm": {"sampler": "sde", "grpo_guard": True, "clip_range": 1e-3}},
        {"algorithm": {"sampler": "cps", "grpo_guard": True, "clip_range": 1e-3}},
        {"algorithm": {"clip_range": 0.1}, "optimizer_steps": 2, "std_over": "batch", "learning_rate": 0.03},
        {"algorithm": "diffusion_nft"},
        {"algorithm": {"type": "diffusion_nft", "old_ema_slope": 0.05}, "optimizer_steps": 2},
        {"algorithm": "awm"},
        {
            "algorithm": {"type": "awm", "old_ema_slope": 0.01, "old_weight": 1.0, "power": 1.0},
            "optimizer_steps": 2,
        },
    ],
    ids=str,
)
def test_each_algorithm_comes_within_two_percent_of_the_optimum_of_a_two_pixel_world(
    changes: dict[str, object],
) -> None:
    """Of what there is to gain over the start, with the reward of the best centre as the optimum."""
    editor, best = TwoPixels(), TwoPixels()
    best.centre.data = torch.tensor(2 * GOAL - 1, dtype=torch.float32)
    start, optimum = reward_of_ode_edits(editor), reward_of_ode_edits(best)
    fixed = {
        "lora": None,
        "group_size": 16,
        "rollout_steps": 6,
        "micro_batch": 256,
        "learning_rate": 0.05,
        "learning_rate_end": 0.1,
    }
    trainer = AttackerTrainer(editor, settings(**{**fixed, "steps": 60, **changes}), seed=0)  # type: ignore[arg-type]
    asked, images = questions(4), pictures(4, (2, 1))
    for step in range(60):
        trainer.update(asked, images, nearness, step)
    assert optimum - start > 0.2
    assert (reward_of_ode_edits(editor) - start) / (optimum - start) > 0.98, editor.centre


@pytest.mark.parametrize(
    ("weights_in", "changes"),
    [
        ("float32", {"sampler": "sde"}),
        ("float32", {"sampler": "constant", "state_dtype": "bfloat16"}),
        (
            "float32",
            {"sampler": "cps", "state_dtype": "bfloat16", "window": {"size": 2, "shared_start": True}},
        ),
        ("float32", {"sampler": "sde", "state_dtype": "bfloat16", "grpo_guard": True}),
        ("bfloat16", {"sampler": "sde"}),
        ("bfloat16", {"sampler": "cps", "state_dtype": "bfloat16", "grpo_guard": True}),
    ],
    ids=str,
)
def test_the_ratio_is_one_before_the_first_update(
    folder: Path, weights_in: str, changes: dict[str, object]
) -> None:
    editor = load_editor(folder, dtype=weights_in)
    trainer = AttackerTrainer(
        editor, settings(micro_batch=5, algorithm={"clip_range": 1e-4, **changes}), seed=1
    )
    asked, images = questions(3), pictures(3)
    for step in range(2):  # the second time with weights that have moved
        metrics = trainer.update(asked, images, redness, step)
        assert abs(metrics["ratio_first"] - 1) < 1e-4
        assert metrics["clip_fraction"] == 0
        assert metrics["grad_norm"] > 0


def test_what_a_group_shares_is_computed_once_with_the_same_gradient(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window's first velocity once a group, or once an edit: the weights come to the same."""
    ends, whole = [], objectives.replay

    def apart(editor: FlowEditor, rollout: Rollout, *rest: object) -> object:
        return whole(editor, replace(rollout, chance=replace(rollout.chance, shared_start=False)), *rest)  # type: ignore[arg-type]

    for once in (True, False):
        chosen = settings(algorithm={"window": {"size": 2, "shared_start": True}}, micro_batch=8)
        trainer = AttackerTrainer(load_editor(folder), chosen, seed=1)
        if not once:
            monkeypatch.setattr(objectives, "replay", apart)
        trainer.update(questions(2), pictures(2), redness, 0)
        ends.append(weights(trainer))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], atol=1e-5, rtol=0)


def test_after_the_first_optimiser_step_the_ratio_moves_and_the_clip_bites(editor: FlowEditor) -> None:
    trainer = AttackerTrainer(
        editor, settings(optimizer_steps=3, algorithm={"clip_range": 1e-5}, learning_rate=0.05), seed=1
    )
    metrics = trainer.update(questions(3), pictures(3), redness, 0)
    assert abs(metrics["ratio_first"] - 1) < 1e-4
    assert metrics["clip_fraction"] > 0.05


def weights(trainer: AttackerTrainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.optimizer.parameters.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"window": {"size": 1, "move": "slide"}}},
        {"algorithm": {"type": "awm", "old_ema_slope": 0.2}},
        {"lora": None, "kl_weight": 0.1},
        {"lora": None, "dtype": "bfloat16", "learning_rate": 1e-4},
    ],
    ids=str,
)
def test_a_resumed_training_ends_with_the_same_bits(
    folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    asked, images, dtype = questions(2), pictures(2), settings(**changes).dtype

    def fresh() -> AttackerTrainer:
        return AttackerTrainer(load_editor(folder, dtype=dtype), settings(**changes), seed=5)

    whole = fresh()
    expected = [whole.update(asked, images, redness, step) for step in range(3)]

    first = fresh()
    first.update(asked, images, redness, 0)
    first.save(tmp_path)
    first.update(asked, images, redness, 1)  # work that the kill will cost
    torch.manual_seed(1234)
    second = fresh()
    second.load(tmp_path)
    got = [second.update(asked, images, redness, step) for step in (1, 2)]
    assert got == expected[1:]
    assert weights(whole).keys() == weights(second).keys()
    assert all(torch.equal(tensor, weights(second)[name]) for name, tensor in weights(whole).items())
    assert all(
        torch.equal(tensor, second.optimizer.master[name]) for name, tensor in whole.optimizer.master.items()
    )
    assert {tensor.dtype for tensor in second.optimizer.master.values()} == {torch.float32}
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("algorithm", ["flow_grpo", {"type": "diffusion_nft", "old_ema_slope": 0.2}], ids=str)
@pytest.mark.parametrize("killed_after", [None, 2, 4])
def test_the_attacker_goes_back_to_the_mean_of_the_weights_that_made_the_best_edits(
    folder: Path, tmp_path: Path, algorithm: object, killed_after: int | None
) -> None:
    asked, images, changes = questions(2), pictures(2), {"algorithm": algorithm, "keep_best": 2, "lora": None}
    levels = [0.0, 2.0, 3.0, -1.0, 4.0, 0.0]  # the best two in a row are updates 1 and 2
    samplers: list[dict[str, Tensor]] = []
    trainer = AttackerTrainer(load_editor(folder), settings(**changes), seed=4)
    assert trainer.settle() is None
    for step, level in enumerate(levels):
        if step == killed_after:
            trainer.save(tmp_path)
            trainer = AttackerTrainer(load_editor(folder), settings(**changes), seed=4)
            trainer.load(tmp_path)
        samplers.append({name: tensor.clone() for name, tensor in trainer.policies.sampler().items()})
        trainer.update(asked, images, lambda edits, level=level: redness(edits) + level, step)
    assert any(not torch.equal(samplers[2][name], samplers[1][name]) for name in samplers[2])
    assert trainer.settle() == 2
    assert all(
        torch.allclose(tensor, (samplers[1][name] + samplers[2][name]) / 2, atol=1e-7)
        for name, tensor in weights(trainer).items()
    )


@pytest.mark.parametrize("window", [0, 4])
def test_without_a_stretch_to_keep_the_last_weights_stay(folder: Path, window: int) -> None:
    trainer = AttackerTrainer(load_editor(folder), settings(keep_best=window), seed=4)
    for step in range(3):
        trainer.update(questions(2), pictures(2), redness, step)
    last = weights(trainer)
    assert trainer.settle() is None
    assert all(torch.equal(tensor, last[name]) for name, tensor in weights(trainer).items())


def test_a_state_of_other_weights_or_a_damaged_one_is_an_error(folder: Path, tmp_path: Path) -> None:
    trainer = AttackerTrainer(load_editor(folder), settings(), seed=0)
    with pytest.raises(RunError, match="no readable training state"):
        trainer.load(tmp_path)
    trainer.save(tmp_path)
    other = AttackerTrainer(load_editor(folder), settings(lora=EditorLoraSettings(rank=2, alpha=2)), seed=0)
    with pytest.raises(RunError, match="other trainable weights"):
        other.load(tmp_path)
    (tmp_path / trainer_module.STATE).write_bytes(b"half a file")
    with pytest.raises(RunError, match="no readable training state"):
        trainer.load(tmp_path)


def test_edits_come_to_the_reward_function_by_question_whatever_the_sizes(
    editor: FlowEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, seen = settings(algorithm="diffusion_nft", group_size=3), []
    trainer = AttackerTrainer(editor, chosen, seed=2)
    images = [*pictures(1), *pictures(1, (72, 64)), *pictures(1)]

    def reward(edits: list[list[Image.Image]]) -> Tensor:
        seen.extend(edits)
        return redness(edits)

    rows: list[list[int]] = []
    original = trainer_module.roll_out

    def spying(*args: object, **kwargs: object) -> object:
        made = original(*args, **kwargs)  # type: ignore[arg-type]
        rows.append(made.rows_B.tolist())
        return made

    monkeypatch.setattr(trainer_module, "roll_out", spying)
    trainer.update(questions(3), images, reward, 0)
    # a group is edits of the same picture with the same instruction
    assert rows == [[0, 0, 0, 1, 1, 1], [0, 0, 0]]
    assert [[edit.size for edit in group] for group in seen] == [
        [(64, 64)] * 3,
        [(72, 64)] * 3,
        [(64, 64)] * 3,
    ]
    alone, single = (
        [],
        AttackerTrainer(load_editor(Path(editor.pipeline.config._name_or_path)), chosen, seed=2),
    )
    single.update(questions(3)[2:], images[2:], lambda edits: alone.extend(edits) or redness(edits), 0)
    difference = np.abs(np.asarray(alone[0][1], dtype=int) - np.asarray(seen[2][1], dtype=int))
    assert difference.max() <= 1  # the third question's edits do not depend on its neighbours


@pytest.mark.parametrize("algorithm", ["flow_grpo", "diffusion_nft", "awm"])
def test_groups_without_signal_are_counted_and_change_nothing(editor: FlowEditor, algorithm: str) -> None:
    trainer = AttackerTrainer(editor, settings(algorithm=algorithm), seed=3)
    before = weights(trainer)
    metrics = trainer.update(questions(2), pictures(2), lambda edits: torch.full((2, 4), 0.1), 0)
    assert metrics["dead_groups"] == 1
    assert metrics["grad_norm"] == 0
    assert metrics["loss"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer).items())
    half = trainer.update(
        questions(2), pictures(2), lambda edits: torch.tensor([[0.1] * 4, [0.0, 1.0, 0.0, 1.0]]), 1
    )
    assert half["dead_groups"] == 0.5
    assert half["grad_norm"] > 0
    assert half["reward_mean"] == pytest.approx(0.3)


@pytest.mark.parametrize("algorithm", ["flow_grpo", "diffusion_nft", "awm"])
def test_a_question_without_rewards_is_left_out_of_the_update(folder: Path, algorithm: str) -> None:
    changed = []
    for count in (1, 2):
        trainer = AttackerTrainer(
            load_editor(folder), settings(algorithm=algorithm, std_over="batch"), seed=3
        )
        metrics = trainer.update(
            questions(count), pictures(count), lambda edits: [[0.0, 1.0, 0.5, 0.0], []][: len(edits)], 0
        )
        assert metrics["reward_mean"] == pytest.approx(0.375)
        assert metrics["dead_groups"] == 0
        assert metrics.get("left_out") == (1 if count == 2 else None)
        changed.append((metrics["loss"], metrics["grad_norm"]))
    assert changed[1] == pytest.approx(changed[0], rel=1e-3, abs=1e-5)


def test_an_update_without_any_reward_changes_nothing_and_invents_none(editor: FlowEditor) -> None:
    trainer = AttackerTrainer(editor, settings(keep_best=1), seed=3)
    before = weights(trainer)
    assert trainer.update(questions(2), pictures(2), lambda edits: [[], []], 0) == {"left_out": 2}
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer).items())
    for wrong in ([[0.1] * 4], [[0.1] * 4, [0.1] * 3], [[0.1] * 4, [math.nan] * 4], [[], [], []]):
        with pytest.raises(TrainingError, match="2 x 4 finite numbers"):
            trainer.update(questions(2), pictures(2), lambda edits, wrong=wrong: wrong, 1)


def test_the_kl_term_holds_the_editor_back(folder: Path) -> None:
    def drift(algorithm: str, weight: float) -> tuple[float, float]:
        trainer = AttackerTrainer(
            load_editor(folder),
            settings(algorithm=algorithm, kl_weight=weight, learning_rate=3e-3, max_grad_norm=1e9),
            seed=4,
        )
        for step in range(4):
            metrics = trainer.update(questions(2), pictures(2), redness, step)
        editor = trainer.editor
        conditions = editor.encode(pictures(1), ["x"])
        latents = editor.noise(conditions, [0])
        with torch.no_grad():
            v = editor.velocity(latents, 0.8, conditions)
            with editor.lora_disabled():
                return (v - editor.velocity(latents, 0.8, conditions)).abs().mean().item(), metrics.get(
                    "kl", math.nan
                )

    for algorithm, weight in (("flow_grpo", 10_000.0), ("diffusion_nft", 1000.0)):
        free, none = drift(algorithm, 0.0)
        held, kl = drift(algorithm, weight)
        assert math.isnan(none)
        assert kl > 0
        assert held < 0.7 * free


FOLLOWING = {"type": "diffusion_nft", "old_ema_slope": 1.0, "old_ema_max": 0.5}


def test_the_old_policy_makes_the_samples_of_nft(editor: FlowEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = AttackerTrainer(editor, settings(algorithm=FOLLOWING), seed=6)
    used: list[dict[str, Tensor]] = []

    def spying(*args: object, **kwargs: object) -> object:
        used.append(weights(trainer))
        return roll_out(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer_module, "roll_out", spying)
    start = weights(trainer)
    for step in range(3):
        trainer.update(questions(2), pictures(2), redness, step)
        if step == 0:
            first = weights(trainer)
        if step == 1:
            second = weights(trainer)
    for name in start:
        assert torch.equal(used[0][name], start[name])
        assert torch.equal(used[1][name], first[name])  # decay 0 at step 0: the old policy follows at once
        torch.testing.assert_close(used[2][name], 0.5 * first[name] + 0.5 * second[name])


def test_the_loss_of_nft_compares_with_the_old_policy(
    editor: FlowEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = AttackerTrainer(editor, settings(algorithm=FOLLOWING, micro_batch=8), seed=6)
    gaps: list[float] = []
    original = objectives.nft_loss

    def spying(v: Tensor, v_old: Tensor, *rest: Tensor) -> object:
        assert v.requires_grad
        assert not v_old.requires_grad
        gaps.append((v - v_old).abs().max().item())
        return original(v, v_old, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(objectives, "nft_loss", spying)
    # after step 0 the old policy is the present one, after step 1 it lies half-way behind
    for step in range(3):
        trainer.update(questions(2), pictures(2), redness, step)
    assert max(gaps[:4]) < 1e-5
    assert min(gaps[4:]) > 1e-4


@pytest.mark.parametrize("algorithm", ["diffusion_nft", "awm"])
def test_the_edits_of_a_group_meet_the_same_noise_which_is_seen_once(
    editor: FlowEditor, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """At level 1 nothing is left of an edit: one row a group, with the gradient of all of them."""
    trainer = AttackerTrainer(
        editor,
        settings(
            algorithm={"type": algorithm, "forward_timesteps": 1},
            rollout_steps=1,
            group_size=3,
            micro_batch=6,
        ),
        seed=1,
    )
    seen: list[Tensor] = []
    velocity = editor.velocity

    def watched(x: Tensor, sigma: object, conditions: object) -> Tensor:
        if isinstance(sigma, Tensor):
            assert bool((sigma == 1).all())
            seen.append(x.detach().clone())
        return velocity(x, sigma, conditions)  # type: ignore[arg-type]

    def gradients() -> list[Tensor]:
        (edited,) = trainer._edit(questions(2), pictures(2), range(2), 0, lambda *_: None)
        advantages = torch.tensor([1.0, -0.5, -0.5, 0.2, -1.2, 1.0])
        editor.transformer.zero_grad()
        trainer.algorithm.learn(edited.made, torch.arange(6), advantages, 6)
        return [p.grad.clone() for p in editor.trainable_parameters().values() if p.grad is not None]

    monkeypatch.setattr(editor, "velocity", watched)
    once = gradients()
    assert [len(x) for x in seen] == [2, 2]
    assert not torch.equal(seen[0][0], seen[0][1])
    monkeypatch.setattr(objectives, "_different", lambda owners, _: (torch.arange(len(owners)),) * 2)
    each = gradients()
    assert [len(x) for x in seen[2:]] == [6, 6]
    assert torch.equal(seen[2].unflatten(0, (2, 3))[:, 0], seen[0])
    assert torch.equal(seen[2].unflatten(0, (2, 3))[:, 2], seen[0])
    assert len(once) == len(each) > 0
    for own, other in zip(once, each, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def not_finite(edits: list[list[Image.Image]]) -> Tensor:
    return torch.full((2, 4), math.nan)


@pytest.mark.parametrize("reward", [not_finite, lambda edits: torch.zeros(2, 3)])
def test_bad_rewards_are_an_error_with_the_questions_names(
    editor: FlowEditor, reward: Callable[[list[list[Image.Image]]], Tensor]
) -> None:
    trainer = AttackerTrainer(editor, settings(), seed=0)
    with pytest.raises(TrainingError, match="update 7 on questions q0, q1"):
        trainer.update(questions(2), pictures(2), reward, 7)


@contextmanager
def broken_velocity(editor: FlowEditor, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    original = editor.velocity
    with monkeypatch.context() as patch:
        patch.setattr(
            editor, "velocity", lambda *args: original(*args) * (math.nan if torch.is_grad_enabled() else 1.0)
        )
        yield


def test_a_loss_that_is_not_finite_is_left_out_and_five_in_a_row_end_the_training(
    editor: FlowEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = AttackerTrainer(editor, settings(), seed=0)
    before = weights(trainer)
    with broken_velocity(editor, monkeypatch):
        for step in range(4):
            metrics = trainer.update(questions(1), pictures(1), redness, step)
            assert metrics["skipped"] == 1
            assert all(math.isfinite(value) for value in metrics.values())
        assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer).items())
        with pytest.raises(TrainingError, match="q0"):
            trainer.update(questions(1), pictures(1), redness, 4)


def test_settings_that_cannot_train_fail_at_once(editor: FlowEditor) -> None:
    with pytest.raises(TrainingError, match="noise_level"):
        AttackerTrainer(editor, settings(algorithm={"noise_level": 0}), seed=0)
    with pytest.raises(TrainingError, match="window"):
        AttackerTrainer(editor, settings(algorithm={"window": {"size": 3}}), seed=0)
    with pytest.raises(TrainingError, match="lora is null"):
        AttackerTrainer(editor, settings(lora=None), seed=0)


@pytest.mark.parametrize("algorithm", ["flow_grpo", "diffusion_nft", "awm"])
def test_the_rate_falls_to_its_end(editor: FlowEditor, algorithm: str) -> None:
    """With nothing left of the rate, the last update changes no weight; the one before does."""
    trainer = AttackerTrainer(editor, settings(algorithm=algorithm, steps=3, learning_rate_end=0.0), seed=1)
    before = weights(trainer)
    assert trainer.update(questions(2), pictures(2), redness, 1)["grad_norm"] > 0
    between = weights(trainer)
    assert any(not torch.equal(between[name], before[name]) for name in before)
    assert trainer.update(questions(2), pictures(2), redness, 2)["grad_norm"] > 0
    assert all(torch.equal(weights(trainer)[name], between[name]) for name in between)


def test_the_gradients_longest_length_is_the_settings_own(editor: FlowEditor) -> None:
    assert AttackerTrainer(editor, settings(max_grad_norm=0.25), seed=0).optimizer.max_grad_norm == 0.25
