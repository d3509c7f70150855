"""Several optimizer steps on one roll-out: by hand with a policy of one number, and with small real
models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from small_vlms import noise_pictures, tiny_qwen2_5_vl
from sparring.config import DefenderSettings
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout, trainer
from sparring.defenders.rollout import Item, mini_batches, of_all_steps
from sparring.defenders.trainer import DefenderTrainer
from sparring.models.vlms.base import Completion, Sampling
from sparring.models.vlms.local import LocalVLM

ITEMS: list[Item] = [
    (picture, VisualQuestion(f"q{i}", Path("q.png"), text, ("yes", "no"), "AB"[i % 2]))
    for i, (picture, text) in enumerate(
        zip(noise_pictures(4), ("Is it?", "Or is it not so?", "Cup?", "Why"), strict=True)
    )
]


def settings(**fields: Any) -> DefenderSettings:
    few = {
        "prompts_per_step": 4,
        "group_size": 6,
        "max_new_tokens": 3,
        "micro_batch": 24,
        "max_refills": 1,
        "prompt": "{question}",
    }
    return DefenderSettings(
        model="none", **(few | {"keep_reward_above": -1.0, "keep_reward_below": 2.0} | fields)
    )


class Coin(nn.Module):
    """A policy of one number: the log-odds of token 0 against token 1 are twice it."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(()))

    def logprobs(self) -> Tensor:
        return torch.stack([self.theta, -self.theta]).log_softmax(0)


class CoinPlayer:
    """Replies of one token; each group holds both. Which one of them is right, the question's answer says."""

    name, device = "coin", torch.device("cpu")

    def __init__(self) -> None:
        self.model = Coin()

    def prepare_training(self, **_: Any) -> None: ...

    def checkpoint_gradients(self, enabled: bool) -> None: ...

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {"theta": self.model.theta}

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling, **_: Any
    ) -> list[list[Completion]]:
        logprobs = self.model.logprobs().tolist()
        both = [
            Completion(f"\\boxed{{{'AB'[token]}}}", (token,), (logprobs[token],), True) for token in (0, 1)
        ]
        return [both for _ in prompts]

    def encode(
        self, images: Sequence[Image.Image], prompts: Sequence[str], starts: Sequence[str]
    ) -> dict[str, Tensor]:
        return {}

    def completion_logprobs(
        self, batch: dict[str, Tensor], replies: Sequence[Sequence[Sequence[int]]], **_: Any
    ) -> tuple[Tensor, Tensor]:
        tokens_N1 = torch.tensor([list(reply) for own in replies for reply in own])
        return self.model.logprobs()[tokens_N1], torch.ones_like(tokens_N1, dtype=torch.bool)


@pytest.mark.parametrize("second", ["A", "B"])
def test_the_second_step_by_hand(second: str) -> None:
    """AdamW's first step is the learning rate, whatever the gradient: theta goes from 0 to 1, and with it the
    ratio of token 0 from 1 to r.

    Then p(0) = e / (e + 1/e) = 0.8808: r = 1.7616 for token 0 and 0.2384 for token 1, outside of 0.8 to 1.28
    on both sides.
    """
    chosen = settings(
        group_size=2,
        prompts_per_step=2,
        max_new_tokens=1,
        optimizer_steps=2,
        learning_rate=1.0,
        weight_decay=0.0,
        reward_format=0.0,
    )
    player = CoinPlayer()
    learner = DefenderTrainer(player, chosen, seed=0)  # type: ignore[arg-type]
    items = [
        (ITEMS[0][0], VisualQuestion(f"q{i}", Path("q.png"), "?", ("x", "y"), answer))
        for i, answer in enumerate("A" + second)
    ]
    theta: list[float] = []
    learner.optimizer.adamw.register_step_post_hook(lambda *_: theta.append(player.model.theta.item()))
    metrics = learner.update(lambda _: items, 0)
    # of 0.8 and 0: half their difference over their standard deviation (n - 1)
    advantage = 0.4 / (0.4 * math.sqrt(2) + 1e-4)
    high, low = 2 * math.e / (math.e + 1 / math.e), 2 / math.e / (math.e + 1 / math.e)
    if second == "A":
        # What was made likelier was right, what was made less likely was wrong: both are clipped, nothing
        # more is learned from them.
        expected, clipped = -(1.28 - 0.8) * advantage / 2, 1.0
    else:
        expected, clipped = -(-high + low) * advantage / 2, 0.0
    # In the first step the ratios are 1 and the advantages cancel; both steps have as many tokens.
    assert metrics["loss"] == pytest.approx(expected / 2, abs=1e-6)
    assert metrics["clip_fraction"] == clipped / 2
    assert metrics["ratio_mean"] == pytest.approx((1 + (high + low) / 2) / 2, abs=1e-6)
    assert metrics["ratio_first"] < 1e-6
    assert metrics["trained_tokens"] == 4
    # Gradients of theta: d log p(0) is 2 p(1), d log p(1) is -2 p(0). In the second step the other token was
    # right, so it points back.
    first, then = -advantage, (0.0 if second == "A" else advantage * high * low)
    assert metrics["grad_norm"] == pytest.approx((abs(first) + abs(then)) / 2, abs=1e-5)
    momentum = (0.9 * 0.1 * first + 0.1 * then) / (1 - 0.9**2)
    variance = (0.999 * 0.001 * first**2 + 0.001 * then**2) / (1 - 0.999**2)
    assert theta == pytest.approx([1.0, 1.0 - momentum / math.sqrt(variance)], abs=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture
def toy_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model boxes nothing. Here the reply to every other question should begin low in the alphabet,
    to the others high.
    """

    def toy(text: str, question: VisualQuestion, *_: Any, **__: Any) -> dict[str, float]:
        return {"accuracy": float((text[:1] < "Z") is (question.answer == "A"))}

    monkeypatch.setattr(rollout, "answer_reward", toy)


def weights(vlm: LocalVLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


@pytest.mark.usefixtures("toy_reward")
def test_ratios_are_clipped_only_after_a_large_first_step(folder: Path) -> None:
    def update(**fields: Any) -> dict[str, float]:
        return DefenderTrainer(LocalVLM.load(folder), settings(**fields), seed=0).update(lambda _: ITEMS, 0)

    one, small, large = (
        update(optimizer_steps=1, learning_rate=3e-2),
        update(optimizer_steps=2, learning_rate=1e-7),
        update(optimizer_steps=4, learning_rate=3e-2),
    )
    assert one["clip_fraction"] == small["clip_fraction"] == 0
    assert large["clip_fraction"] > 0.05
    assert large["approx_kl"] > 1e-2 > 1e-6 > small["approx_kl"]
    assert all(metrics["ratio_first"] < 1e-4 for metrics in (one, small, large))
    assert one["trained_tokens"] == small["trained_tokens"] == large["trained_tokens"]


@pytest.mark.usefixtures("toy_reward")
def test_the_old_policy_of_every_step_is_the_one_that_answered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step's loss, over all its answers and no others, from the replies' recorded log-probabilities and
    the weights of that moment.
    """
    player = DefenderTrainer(
        LocalVLM.load(folder), settings(optimizer_steps=3, learning_rate=1e-2, micro_batch=6), seed=0
    )
    before = LocalVLM.load(folder)
    surrogate, seen = trainer.policy_loss, []

    def watched(objective: Any, logprobs_NT: Tensor, old_NT: Tensor, *rest: Any, **fields: Any) -> Any:
        seen.append((logprobs_NT.detach().clone(), old_NT.clone(), fields["whole"][0]))
        return surrogate(objective, logprobs_NT, old_NT, *rest, **fields)

    monkeypatch.setattr(trainer, "policy_loss", watched)
    player.update(lambda _: ITEMS, 0)
    # Four groups in three steps: 0 and 3, 1, 2; a pass for each group. The denominator is that of the step.
    lengths = [sum(s.answer.tokens for s in player.sampled[i : i + 6]) for i in range(0, 24, 6)]
    assert [denominator for _, _, denominator in seen] == [lengths[0] + lengths[3]] * 2 + [
        lengths[1],
        lengths[2],
    ]
    texts = [[s.answer for s in player.sampled[i : i + 6]] for i in range(0, 24, 6)]
    sampled = before.generate(
        [image for image, _ in ITEMS],
        [question.question for _, question in ITEMS],
        Sampling(3, n=6, temperature=1.0, seed=rollout.derive_seed(0, "answers", 0, 0)),
    )
    assert [[answer.text for answer in own] for own in texts] == [
        [reply.text for reply in own] for own in sampled
    ]
    for (logprobs, old, _), group, moved in zip(seen, (0, 3, 1, 2), (False, False, True, True), strict=True):
        for row, reply in zip(old, sampled[group], strict=True):
            assert row[: len(reply.logprobs)].tolist() == pytest.approx(reply.logprobs)
        assert bool((logprobs - old).abs().max() > 1e-3) is moved


@pytest.mark.usefixtures("toy_reward")
def test_memory_that_runs_out_in_a_later_step_repeats_that_step_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(optimizer_steps=2, learning_rate=1e-3, micro_batch=12)
    undisturbed, player = (DefenderTrainer(LocalVLM.load(folder), chosen, seed=0) for _ in range(2))
    expected = undisturbed.update(lambda _: ITEMS, 0)
    compute, calls = player.vlm.completion_logprobs, []

    def computed(batch: Any, completions: Any, **how: Any) -> Any:
        calls.append(sum(len(own) for own in completions))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(batch, completions, **how)

    monkeypatch.setattr(player.vlm, "completion_logprobs", computed)
    with pytest.warns(UserWarning, match="micro-batches of 6"):
        found = player.update(lambda _: ITEMS, 0)
    assert calls == [12, 12, 6, 6]
    assert found["micro_batch_halved"] == 1
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    for name, tensor in weights(player.vlm).items():
        torch.testing.assert_close(tensor, weights(undisturbed.vlm)[name], atol=1e-4, rtol=1e-3)


@pytest.mark.usefixtures("toy_reward")
def test_a_broken_step_leaves_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = DefenderTrainer(LocalVLM.load(folder), settings(optimizer_steps=4, learning_rate=1e-3), seed=0)
    surrogate, calls = trainer.policy_loss, []

    def spoilt(*arguments: Any, **fields: Any) -> Any:
        loss, metrics = surrogate(*arguments, **fields)
        calls.append(1)
        return loss * (float("nan") if len(calls) == 1 else 1.0), metrics

    steps: list[int] = []
    player.optimizer.adamw.register_step_pre_hook(lambda *_: steps.append(1))
    monkeypatch.setattr(trainer, "policy_loss", spoilt)
    metrics = player.update(lambda _: ITEMS, 0)
    assert (metrics["broken"], len(steps), player.optimizer.skipped_in_a_row) == (0.25, 3, 0)
    assert metrics["ratio_first"] < 1e-4
    assert math.isfinite(metrics["loss"])


def test_shares_and_sums() -> None:
    groups: list[Any] = list("abcdefg")
    assert ["".join(own) for own in mini_batches(groups, 3)] == ["adg", "be", "cf"]  # type: ignore[arg-type]
    assert mini_batches(groups, 1) == [groups]
    assert len(mini_batches(groups[:2], 5)) == 2
    common = {"micro_batch_halved": 0.0}
    first = {"loss": 1.0, "ratio_first": 1e-6, "grad_norm": 3.0, "trained_tokens": 30.0} | common
    second = {"loss": 5.0, "ratio_first": 0.5, "grad_norm": 5.0, "trained_tokens": 10.0} | common
    assert of_all_steps([first]) == {"broken": 0.0} | first
    assert of_all_steps([first, None, second, None]) == {
        "broken": 0.5,
        "loss": 2.0,
        "ratio_first": 1e-6,
        "grad_norm": 4.0,
        "trained_tokens": 40.0,
        **common,
    }
    assert of_all_steps([None]) == {"broken": 1.0}
