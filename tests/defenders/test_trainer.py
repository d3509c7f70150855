"""The Defender's trainer with small real models: it learns, it goes on after a kill as if nothing had been,
it survives broken losses.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from sparring.asking.questions import ask
from sparring.config import DefenderSettings, LoraSettings
from sparring.data.errors import RunError, TrainingError
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout, trainer
from sparring.defenders.objectives import FORMS
from sparring.defenders.rollout import Item
from sparring.defenders.trainer import DefenderTrainer
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM

PICTURES = noise_pictures(4)
QUESTIONS = [
    VisualQuestion(f"q{i}", Path("q.png"), text, ("yes", "no"), "AB"[i % 2])
    for i, text in enumerate(("Is it?", "Or is it not so?", "Cup?", "Why"))
]
ITEMS: list[Item] = list(zip(PICTURES, QUESTIONS, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(autouse=True)
def toy_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model boxes nothing. Here the reply to every other question should begin low in the alphabet,
    to the others high.
    """

    def toy(text: str, question: VisualQuestion, *_: Any, **__: Any) -> dict[str, float]:
        return {"accuracy": float((text[:1] < "Z") is (question.answer == "A"))}

    monkeypatch.setattr(rollout, "answer_reward", toy)


def settings(**fields: Any) -> DefenderSettings:
    few = {
        "prompts_per_step": 4,
        "group_size": 6,
        "max_new_tokens": 3,
        "micro_batch": 24,
        "max_refills": 1,
        "learning_rate": 3e-3,
        "prompt": "{question}",
    }
    return DefenderSettings(model="none", **(few | fields))


def weights(vlm: LocalVLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_reward_rises_on_a_toy_task(folder: Path) -> None:
    # Half the questions want the contrary of the other half, so this only works if every advantage meets its
    # own prompt.
    player = DefenderTrainer(
        LocalVLM.load(folder),
        settings(group_size=32, max_new_tokens=1, micro_batch=128, learning_rate=1e-2),
        seed=0,
    )
    history = [player.update(lambda _: ITEMS, step) for step in range(40)]
    rewards = [metrics["reward_mean"] for metrics in history]
    assert sum(rewards[:4]) / 4 < 0.6
    assert sum(rewards[-4:]) / 4 > 0.9
    for metrics in history:
        if metrics["kept_groups"]:
            assert metrics["ratio_first"] < 1e-4
            assert metrics["ratio_mean"] == pytest.approx(1, abs=1e-4)
            assert metrics["clip_fraction"] == 0
    assert {"rollouts", "length_mean", "grad_norm", "approx_kl", "thrown_low", "thrown_high"} <= history[
        0
    ].keys()
    assert history[0]["rollouts"] == 128 == len(player.sampled)


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_training_computes_at_the_temperature_of_sampling(folder: Path, temperature: float) -> None:
    """Before the first step the ratio to what was recorded is 1, and the divergence from the reference,
    itself, is 0.
    """
    player = DefenderTrainer(LocalVLM.load(folder), settings(temperature=temperature, kl_weight=0.1), seed=0)
    metrics = player.update(lambda _: ITEMS, 0)
    assert metrics["kept_groups"] > 0
    assert metrics["ratio_first"] < 1e-4
    assert metrics["ratio_mean"] == pytest.approx(1, abs=1e-4)
    assert metrics["reference_kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("role", ["off", "constraint"])
def test_epsilon_and_dual_clip_are_the_settings_own(
    folder: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    surrogate = trainer.policy_loss
    monkeypatch.setattr(
        trainer, "policy_loss", lambda *a, **k: given.append(a[0].dual_clip) or surrogate(*a, **k)
    )
    consistency = {"role": role, "weight": 1.0}
    algorithm = {"type": "dapo", "advantage_epsilon": 0.5, "dual_clip": 3.0}
    player = DefenderTrainer(
        LocalVLM.load(folder), settings(algorithm=algorithm, consistency=consistency), seed=0
    )
    answers = [SimpleNamespace(notes={"consistent": value}) for value in (1.0, 0.0)]
    group: Any = SimpleNamespace(rewards=(0.0, 1.0), answers=answers)
    # Deviations of a half over a standard deviation of 0.5^0.5, and 0.5 more; with the constraint both
    # measures cancel.
    expected = 0.5 / (0.5**0.5 + 0.5)
    found = player._advantages([group]).flatten().tolist()
    assert found == pytest.approx([-expected, expected] if role == "off" else [0.0, 0.0], abs=1e-6)
    again = player._advantages([SimpleNamespace(rewards=(0.0, 0.0), answers=answers)]).flatten().tolist()  # type: ignore[list-item]
    assert again == pytest.approx([0.0, 0.0] if role == "off" else [expected, -expected], abs=1e-6)
    player.update(lambda _: ITEMS, 0)
    assert set(given) == {3.0}


VARIANTS = {
    "all_weights": {"family": tiny_qwen2_5_vl},
    "adapter_and_kl": {
        "family": tiny_qwen2_5_vl,
        "lora": LoraSettings(rank=2, alpha=4),
        "kl_weight": 0.1,
        "train_vision": False,
    },
    "constraint": {
        "family": tiny_qwen2_5_vl,
        "consistency": {"role": "constraint", "weight": 0.5},
        "algorithm": "dr_grpo",
    },
    "half_precision": {"family": tiny_llava, "dtype": torch.bfloat16},
    "several_steps": {"family": tiny_qwen2_5_vl, "optimizer_steps": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_equals_undisturbed_bit_for_bit(variant: str, tmp_path: Path) -> None:
    fields = dict(VARIANTS[variant])
    folder, dtype = fields.pop("family")(tmp_path / "model"), fields.pop("dtype", torch.float32)  # type: ignore[operator]

    def fresh() -> DefenderTrainer:
        return DefenderTrainer(
            LocalVLM.load(folder, dtype=dtype), settings(prompts_per_step=2, **fields), seed=5
        )

    undisturbed = fresh()
    before = weights(undisturbed.vlm)
    expected = [undisturbed.update(iter(ITEMS), step) for step in range(3)]
    killed = fresh()
    killed.update(iter(ITEMS), 0)
    killed.save(tmp_path / "state")
    torch.rand(17)
    resumed = fresh()
    resumed.load(tmp_path / "state")
    assert [resumed.update(iter(ITEMS), step) for step in (1, 2)] == expected[1:]
    assert_same(weights(resumed.vlm), weights(undisturbed.vlm))
    assert resumed.updates == 3
    changed = [
        name for name, tensor in weights(undisturbed.vlm).items() if not torch.equal(tensor, before[name])
    ]
    assert changed
    if variant == "constraint":
        assert [metrics["consistency_weight"] for metrics in expected] == pytest.approx([0.5, 0.69, 0.88])
        assert resumed.multiplier == undisturbed.multiplier == pytest.approx(1.07)
    if variant == "adapter_and_kl":
        assert all(".lora_" in name for name in changed)
        assert expected[0]["reference_kl"] == pytest.approx(0, abs=1e-6)
        assert expected[2]["reference_kl"] > 0


def gradient_and_metrics(folder: Path, **fields: Any) -> tuple[list[Tensor], dict[str, float]]:
    """The clipped gradient of one update, as the optimizer sees it."""
    player = DefenderTrainer(LocalVLM.load(folder), settings(**fields), seed=1)
    seen: list[Tensor] = []
    player.optimizer.adamw.register_step_pre_hook(
        lambda *_: seen.extend(
            p.grad.clone() for p in player.optimizer.parameters.values() if p.grad is not None
        )
    )
    return seen, player.update(lambda _: ITEMS, 0)


@pytest.mark.parametrize(("algorithm", "steps"), [*((name, 1) for name in FORMS), ("dapo", 2)])
def test_micro_batches_make_the_same_step(folder: Path, algorithm: str, steps: int) -> None:
    fields = {"algorithm": algorithm, "kl_weight": 0.1, "optimizer_steps": steps, "learning_rate": 1e-4}
    (small, some), (whole, all_of_it) = (
        gradient_and_metrics(folder, micro_batch=size, **fields) for size in (6, 24)
    )
    assert all_of_it["ratio_first"] < 1e-4
    assert all_of_it["clip_fraction"] == 0
    assert len(whole) > 20
    for one, other in zip(small, whole, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-7
    for name, value in some.items():
        assert value == pytest.approx(all_of_it[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("family", [tiny_qwen2_5_vl, tiny_llava])
def test_checkpointed_gradients_are_the_same(family: Any, tmp_path: Path) -> None:
    """And blocks are computed twice, once more in the backward pass, but only then: sampling keeps
    its cache.
    """
    folder = family(tmp_path)
    calls: dict[bool, list[int]] = {}
    gradients = {}
    for checkpointed in (False, True):
        player = DefenderTrainer(LocalVLM.load(folder), settings(gradient_checkpointing=checkpointed), seed=1)
        count = calls.setdefault(checkpointed, [])
        block = player.vlm.model.model.language_model.layers[0].mlp
        block.register_forward_pre_hook(
            lambda *_, count=count: count.append(1) if torch.is_grad_enabled() else None
        )
        seen: list[Tensor] = []
        player.optimizer.adamw.register_step_pre_hook(
            lambda *_, player=player, seen=seen: seen.extend(
                p.grad.clone() for p in player.optimizer.parameters.values() if p.grad is not None
            )
        )
        assert player.update(lambda _: ITEMS, 0)["ratio_first"] < 1e-4
        gradients[checkpointed] = seen
    assert len(gradients[True]) == len(gradients[False]) > 20
    for one, other in zip(gradients[True], gradients[False], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert len(calls[True]) == 2 * len(calls[False]) > 0


def test_half_precision_has_logprobs_in_full(folder: Path) -> None:
    player = DefenderTrainer(LocalVLM.load(folder, dtype=torch.bfloat16), settings(), seed=0)
    batch = player.vlm.encode(PICTURES[:1], ["Why?"])
    logprobs, _ = player.vlm.completion_logprobs(batch, [[[5, 9, 33]]])
    assert (player.vlm.model.dtype, logprobs.dtype) == (torch.bfloat16, torch.float32)
    assert all(master.dtype == torch.float32 for master in player.optimizer.master.values())


def short_of_memory(player: DefenderTrainer, monkeypatch: pytest.MonkeyPatch, limit: int) -> list[int]:
    """From here on, memory runs out in a forward pass over more than so many answers. Returns the sizes of
    all passes tried, as they come.
    """
    sizes: list[int] = []
    compute = player.vlm.completion_logprobs

    def computed(batch: Any, completions: Any, **how: Any) -> Any:
        sizes.append(sum(len(own) for own in completions))
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(batch, completions, **how)

    monkeypatch.setattr(player.vlm, "completion_logprobs", computed)
    return sizes


@pytest.mark.parametrize(("micro_batch", "limit"), [(24, 12), (6, 3)])
def test_out_of_memory_halves_the_micro_batch_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batch: int, limit: int
) -> None:
    """Whole groups as long as they fit, then parts of one; the update is the one that would have been."""
    everything = {
        "keep_reward_above": -1.0,
        "keep_reward_below": 2.0,
        "micro_batch": micro_batch,
        "max_refills": 1,
    }
    undisturbed = DefenderTrainer(LocalVLM.load(folder), settings(**everything), seed=0)
    expected = [undisturbed.update(lambda _: ITEMS, step) for step in range(2)]
    player = DefenderTrainer(LocalVLM.load(folder), settings(**everything), seed=0)
    sizes = short_of_memory(player, monkeypatch, limit)
    with pytest.warns(UserWarning, match=f"update 0: out of memory; micro-batches of {limit}"):
        found = [player.update(lambda _: ITEMS, 0)]
    assert sizes == [micro_batch, *[limit] * (24 // limit)]
    player.save(tmp_path)
    player.load(tmp_path)
    found.append(player.update(lambda _: ITEMS, 1))
    assert [metrics["micro_batch_halved"] for metrics in found] == [1, 1]
    assert [metrics["micro_batch_halved"] for metrics in expected] == [0, 0]
    for one, other in zip(found, expected, strict=True):
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-2, abs=1e-5)
    short_of_memory(player, monkeypatch, limit - 1)
    with pytest.raises(TrainingError, match=f"update 2: out of memory with micro-batches of {limit}"):
        player.update(lambda _: ITEMS, 2)


def test_half_the_micro_batch_may_not_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = DefenderTrainer(
        LocalVLM.load(folder), settings(keep_reward_above=-1.0, keep_reward_below=2.0), seed=0
    )
    short_of_memory(player, monkeypatch, 5)
    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises(TrainingError, match="also with micro-batches of 12"),
    ):
        player.update(lambda _: ITEMS, 0)


def test_frozen_tower_stays(folder: Path) -> None:
    player = DefenderTrainer(LocalVLM.load(folder), settings(train_vision=False), seed=0)
    before = weights(player.vlm)
    player.update(lambda _: ITEMS, 0)
    changed = {name for name, tensor in weights(player.vlm).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith(player.vlm.tower + ".") for name in changed)


def test_groups_without_signal_teach_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "answer_reward", lambda *_, **__: {"accuracy": 1.0})
    player = DefenderTrainer(LocalVLM.load(folder), settings(max_refills=2), seed=0)
    before = weights(player.vlm)
    metrics = player.update((ITEMS[i % 4] for i in count()), 0)
    assert (metrics["kept_groups"], metrics["thrown_high"], metrics["batches"]) == (0, 8, 2)
    assert_same(before, weights(player.vlm))


def test_overlong_filter_leaves_cut_answers_out_of_the_loss(folder: Path) -> None:
    player = DefenderTrainer(LocalVLM.load(folder), settings(overlong_filter=True), seed=0)
    player.vlm.end_tokens = tuple(range(0, 264, 4))
    metrics = player.update(lambda _: ITEMS, 0)
    whole = sum(s.answer.tokens for s in player.sampled if s.kept and s.answer.tokens < 3)
    assert metrics["finished"] < 1
    # With three tokens at most, an answer of fewer has ended by itself.
    assert 0 < whole <= metrics["trained_tokens"] < sum(s.answer.tokens for s in player.sampled if s.kept)
    assert metrics["grad_norm"] > 0
    player.vlm.end_tokens = (-1,)
    metrics = player.update(lambda _: ITEMS, 1)
    assert (metrics["finished"], metrics["grad_norm"]) == (0, 0)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_skipped_counted_and_finally_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    all_kept = settings(prompts_per_step=2, keep_reward_above=-1, keep_reward_below=2)
    player = DefenderTrainer(LocalVLM.load(folder), all_kept, seed=0)
    before = weights(player.vlm)
    broken = [True]
    if where == "loss":
        surrogate = trainer.policy_loss

        def spoilt(*arguments: Any, **fields: Any) -> Any:
            loss, metrics = surrogate(*arguments, **fields)
            return loss * float("nan") if broken[0] else loss, metrics

        monkeypatch.setattr(trainer, "policy_loss", spoilt)
    else:
        next(iter(player.optimizer.parameters.values())).register_hook(
            lambda gradient: gradient * torch.inf if broken[0] else gradient
        )
    for step in range(4):
        assert player.update(iter(ITEMS), step)["broken"] == 1
    assert_same(before, weights(player.vlm))
    broken[0] = False
    assert player.update(iter(ITEMS), 4)["broken"] == 0
    assert player.optimizer.skipped_in_a_row == 0
    broken[0] = True
    for step in range(5, 9):
        player.update(iter(ITEMS), step)
    with pytest.raises(TrainingError, match=r"update 9.*q0, q1"):
        player.update(iter(ITEMS), 9)


def test_a_foreign_state_is_refused(folder: Path, tmp_path: Path) -> None:
    player = DefenderTrainer(LocalVLM.load(folder), settings(), seed=0)
    player.save(tmp_path / "state")
    with pytest.raises(RunError, match="another seed"):
        DefenderTrainer(LocalVLM.load(folder), settings(), seed=1).load(tmp_path / "state")
    with pytest.raises(RunError, match="other trainable weights"):
        DefenderTrainer(LocalVLM.load(folder), settings(train_vision=False), seed=0).load(tmp_path / "state")
    with pytest.raises(RunError, match="no readable training state"):
        player.load(tmp_path / "nothing")


def test_ask_reads_every_reply(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = LocalVLM.load(folder)
    answers = ask(vlm, QUESTIONS, PICTURES, settings())
    greedy = vlm.generate(PICTURES, [question.question for question in QUESTIONS], Sampling(3))
    assert [answer.text for answer in answers] == [own[0].text for own in greedy]
    assert [answer.question_id for answer in answers] == ["q0", "q1", "q2", "q3"]
    sampled = vlm.generate(PICTURES, [question.question for question in QUESTIONS], Sampling(3, 1.0, seed=1))
    drawn = ask(vlm, QUESTIONS, PICTURES, settings(), temperature=1.0, seed=1)
    assert (
        [answer.text for answer in drawn]
        == [own[0].text for own in sampled]
        != [answer.text for answer in answers]
    )
    monkeypatch.setattr(vlm.processor.tokenizer, "decode", lambda *_, **__: r"\boxed{B}")
    answers = ask(vlm, QUESTIONS, PICTURES, settings())
    assert [(answer.choice, answer.rule, answer.right) for answer in answers] == [
        ("B", "boxed", right) for right in (False, True, False, True)
    ]


def test_the_rate_falls_to_its_end(folder: Path) -> None:
    """With nothing left of the rate, the last update changes no weight; the one before does."""
    player = DefenderTrainer(
        LocalVLM.load(folder), settings(steps=3, learning_rate_end=0.0, weight_decay=0.0), seed=0
    )
    before = weights(player.vlm)
    assert player.update(lambda _: ITEMS, 1)["kept_groups"] > 0
    between = weights(player.vlm)
    assert any(not torch.equal(between[name], before[name]) for name in before)
    assert player.update(lambda _: ITEMS, 2)["kept_groups"] > 0
    assert_same(weights(player.vlm), between)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_defender_settles_on_the_way(folder: Path, tmp_path: Path, share: float) -> None:
    """Also when training was cut off: the way begins at the weights before the round, not at those that were
    resumed from.
    """
    chosen = settings(interpolation=share)
    player = DefenderTrainer(LocalVLM.load(folder), chosen, seed=0)
    before = weights(player.vlm)
    player.update(lambda _: ITEMS, 0)
    player.save(tmp_path)
    player = DefenderTrainer(LocalVLM.load(folder), chosen, seed=0)
    player.load(tmp_path)
    player.update(lambda _: ITEMS, 1)
    after = weights(player.vlm)
    player.settle()
    settled = weights(player.vlm)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    for name in before:
        assert torch.allclose(settled[name], before[name] + share * (after[name] - before[name]), atol=1e-6)
