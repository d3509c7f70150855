"""The policy loss: by hand, against TRL's own, and everything that a wrong sign, mask, mean or clip side
would break.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparring.rl.policy import Surrogate, policy_loss

CLIP = {"clip_low": 0.2, "clip_high": 0.28}
LONGEST = 16
TENSORS = ("weights_NT", "reference_logprobs_NT", "whole")


def loss_of(*case: Tensor, **fields: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of tensors, by the fields of an objective."""
    tensors = {name: fields.pop(name) for name in (*TENSORS, *NAMES) if name in fields}
    return policy_loss(Surrogate(**fields), *case, **tensors)


NAMES = ("logprobs_NT", "old_logprobs_NT", "advantages_N", "mask_NT")
# Ours, and what TRL calls the same: loss_type, importance_sampling_level, epsilon_high.
OBJECTIVES: dict[str, tuple[dict[str, Any], tuple[str, str, float]]] = {
    "dapo": ({}, ("dapo", "token", 0.28)),
    "grpo": ({"mean_over": "sequence"}, ("grpo", "token", 0.28)),
    "dr_grpo": ({"mean_over": "constant", "longest": LONGEST}, ("dr_grpo", "token", 0.28)),
    "gspo": ({"ratio_over": "sequence", "mean_over": "sequence"}, ("grpo", "sequence", 0.28)),
    "gspo_token_mean": ({"ratio_over": "sequence"}, ("dapo", "sequence", 0.28)),
    "cispo": ({"surrogate": "detached"}, ("cispo", "token", 1.28)),
}


def example(seed: int = 0, n: int = 6, t: int = 9, spread: float = 0.4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(n, t, generator=generator) * 3
    return {
        "logprobs_NT": (old + spread * torch.randn(n, t, generator=generator)).requires_grad_(),
        "old_logprobs_NT": old,
        "advantages_N": torch.randn(n, generator=generator),
        "mask_NT": torch.arange(t) < torch.randint(1, t + 1, (n, 1), generator=generator),
    }


def trl_loss(
    example: dict[str, Tensor],
    *,
    loss_type: str = "dapo",
    level: str = "token",
    epsilon_high: float = 0.28,
    beta: float = 0.0,
    reference: Tensor | None = None,
) -> Tensor:
    """TRL's GRPOTrainer._compute_loss, its model call answered by the given log-probabilities."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    class Stub(GRPOTrainer):
        def __init__(self) -> None:
            self.top_entropy_quantile, self.off_policy_mask_threshold, self.importance_sampling_level = (
                1.0,
                None,
                level,
            )
            self.beta, self.loss_type, self.epsilon_low, self.epsilon_high = (
                beta,
                loss_type,
                CLIP["clip_low"],
                epsilon_high,
            )
            self.max_completion_length = LONGEST
            self.use_vllm, self.aux_loss_enabled, self._entropy_bonus_enabled = False, False, False
            self.args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
            self.current_gradient_accumulation_steps = 1
            self.model = SimpleNamespace(training=True)
            self.accelerator = SimpleNamespace(
                num_processes=1,
                gather=lambda x: x,
                reduce=lambda x, reduction: x,
                gather_for_metrics=lambda x: x,
            )
            self._metrics = {"train": _Lists()}

        def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
            return example["logprobs_NT"], torch.zeros_like(example["logprobs_NT"]), None

    mask = example["mask_NT"].long()
    inputs = {
        "prompt_ids": torch.ones(len(mask), 2, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 2, dtype=torch.long),
        "completion_ids": torch.ones_like(mask),
        "completion_mask": mask,
        "advantages": example["advantages_N"],
        "old_per_token_logps": example["old_logprobs_NT"],
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    return Stub()._compute_loss(None, inputs)


class _Lists(dict[str, list[float]]):
    def __missing__(self, key: str) -> list[float]:
        return self.setdefault(key, [])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_equals_trl(name: str, seed: int, beta: float) -> None:
    case, (fields, (loss_type, level, epsilon_high)) = example(seed), OBJECTIVES[name]
    reference = case["old_logprobs_NT"] - 0.1
    ours, _ = loss_of(**case, **CLIP, **fields, reference_logprobs_NT=reference, kl_weight=beta)
    theirs = trl_loss(
        case, loss_type=loss_type, level=level, epsilon_high=epsilon_high, beta=beta, reference=reference
    )
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    (our_gradient,) = torch.autograd.grad(ours, case["logprobs_NT"])
    (their_gradient,) = torch.autograd.grad(theirs, case["logprobs_NT"])
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-6, rtol=0)


def test_by_hand() -> None:
    # Ratios 2 (clipped to 1.28 for A > 0), 1/2 (kept for A > 0); 2 (kept for A < 0), 1/2 (clipped to 0.8 for
    # A < 0); the last token is masked.
    half = math.log(2)
    logprobs = torch.tensor([[half, -half, 5.0], [half, -half, 0.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    loss, metrics = loss_of(logprobs, torch.zeros(2, 3), torch.tensor([1.0, -3.0]), mask, **CLIP)
    expected = -(1.28 + 0.5 - 3 * (2.0 + 0.8 + 1.0)) / 5
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert metrics["clip_fraction"].item() == pytest.approx(2 / 5)
    assert metrics["ratio_mean"].item() == pytest.approx((2 + 0.5 + 2 + 0.5 + 1) / 5)
    assert metrics["approx_kl"].item() == pytest.approx((2 - half - 1 + 0.5 + half - 1) * 2 / 5)


def test_a_dual_clip_bounds_what_a_bad_token_costs() -> None:
    # Of A = -2 the first token costs 2 x 2.2 = 4.5, the second 2 x 5.5, bounded at 2 x 3; of A = 1/2 the last
    # is bounded by the upper clip alone.
    old = torch.tensor([[-1.0, -2.0, -0.5], [-1.5, -0.2, -3.0]])
    logprobs = torch.tensor([[-0.2, -0.3, -0.6], [-1.6, -2.2, -0.4]], requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    case = (logprobs, old, torch.tensor([-2.0, 0.5]), mask)
    loss, metrics = loss_of(*case, **CLIP, dual_clip=3.0)
    # Recorded from the compute_policy_loss of EasyR1, which is the one of the AOT authors' training, with its
    # clip_ratio_dual of 3.
    assert loss.item() == pytest.approx(2.3481340, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    expected = torch.tensor([[0.8902, 0.0, 0.3619], [-0.0905, -0.0135, 0.0]])
    torch.testing.assert_close(gradient, expected, atol=5e-5, rtol=0)
    assert metrics["clip_fraction"].item() == pytest.approx(1 / 5)
    without, _ = loss_of(*case, **CLIP)
    assert without.item() == pytest.approx(2.3481340 + 2 * (math.exp(1.7) - 3) / 5, abs=1e-6)


def test_a_dual_clip_must_lie_above_the_ratios_of_ratio_one() -> None:
    case = (torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1), torch.ones(1, 1))
    for fields in ({"dual_clip": 1.0}, {"dual_clip": 3.0, "surrogate": "detached"}):
        with pytest.raises(ValueError, match="dual clip"):
            loss_of(*case, **CLIP, **fields)


def test_a_whole_completion_has_one_ratio() -> None:
    # Token log-ratios ln 4 and 0: the ratio is their geometric mean, 2. It is clipped for both tokens of the
    # first, for neither of the second.
    logprobs = torch.tensor([[math.log(4), 0.0], [math.log(4), 0.0]])
    loss, metrics = loss_of(
        logprobs,
        torch.zeros(2, 2),
        torch.tensor([1.0, -1.0]),
        torch.ones(2, 2),
        **CLIP,
        ratio_over="sequence",
        mean_over="sequence",
    )
    assert loss.item() == pytest.approx(-(1.28 - 2.0) / 2, abs=1e-6)
    assert metrics["ratio_mean"].item() == pytest.approx(2)
    assert metrics["clip_fraction"].item() == pytest.approx(1 / 2)


def test_means_weigh_lengths_as_they_say() -> None:
    # One answer of one token with advantage 1, one of three with advantage -1, ratio 1 everywhere.
    case = (
        torch.zeros(2, 3),
        torch.zeros(2, 3),
        torch.tensor([1.0, -1.0]),
        torch.tensor([[True, False, False], [True] * 3]),
    )
    losses = {
        name: loss_of(*case, **CLIP, mean_over=name, longest=10)[0].item()
        for name in ("token", "sequence", "constant")
    }
    assert losses == pytest.approx(
        {"token": (3 - 1) / 4, "sequence": 0.0, "constant": (3 - 1) / 20}, abs=1e-6
    )
    with pytest.raises(ValueError, match="divides by"):
        loss_of(*case, **CLIP, mean_over="constant")


def test_a_detached_ratio_is_a_bounded_weight_and_no_token_loses_its_gradient() -> None:
    logprobs = torch.tensor([[math.log(3), math.log(0.1), 0.0]], requires_grad=True)
    loss, metrics = loss_of(
        logprobs,
        torch.zeros(1, 3),
        torch.tensor([2.0]),
        torch.ones(1, 3),
        clip_low=0.2,
        clip_high=1.0,
        surrogate="detached",
    )
    loss.backward()
    torch.testing.assert_close(logprobs.grad, -2.0 * torch.tensor([[2.0, 0.1, 1.0]]) / 3)
    assert metrics["clip_fraction"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_descent_makes_good_tokens_likelier_and_bad_ones_less_likely(name: str) -> None:
    """At ratio 1 every objective has the same gradient but for its mean."""
    logprobs = torch.full((2, 3), -1.0, requires_grad=True)
    loss, metrics = loss_of(
        logprobs,
        logprobs.detach(),
        torch.tensor([1.0, -1.0]),
        torch.ones(2, 3),
        **CLIP,
        **OBJECTIVES[name][0],
    )
    loss.backward()
    total = 2 * LONGEST if name == "dr_grpo" else 6
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-1.0] * 3, [1.0] * 3]) / total)
    assert (metrics["ratio_mean"], metrics["clip_fraction"], metrics["approx_kl"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("advantage", "shift", "moves"),
    [
        (1.0, math.log(1.27), True),
        (1.0, math.log(1.29), False),
        (1.0, math.log(0.5), True),
        (-1.0, math.log(0.81), True),
        (-1.0, math.log(0.79), False),
        (-1.0, math.log(2.0), True),
    ],
)
def test_each_side_is_clipped_for_its_own_sign(advantage: float, shift: float, moves: bool) -> None:
    logprobs = torch.full((1, 1), -1.0 + shift, requires_grad=True)
    loss, metrics = loss_of(
        logprobs, torch.full((1, 1), -1.0), torch.tensor([advantage]), torch.ones(1, 1), **CLIP
    )
    loss.backward()
    assert bool(logprobs.grad.abs().sum() > 0) is moves
    assert bool(metrics["clip_fraction"] == 0) is moves


@pytest.mark.parametrize("name", OBJECTIVES)
def test_masked_tokens_do_nothing_whatever_they_hold(name: str) -> None:
    case, fields = example(), {**CLIP, **OBJECTIVES[name][0]}
    case["mask_NT"][2] = False
    loss, metrics = loss_of(**case, **fields)
    (gradient,) = torch.autograd.grad(loss, case["logprobs_NT"])
    assert (gradient[~case["mask_NT"]] == 0).all()
    assert (gradient[case["mask_NT"]] != 0).any()
    for junk in (float("inf"), float("nan"), -1e9):
        spoilt = case | {
            "logprobs_NT": case["logprobs_NT"].detach().masked_fill(~case["mask_NT"], junk).requires_grad_()
        }
        again, same = loss_of(**spoilt, **fields)
        torch.testing.assert_close(again, loss)
        torch.testing.assert_close(same, metrics)
        assert torch.autograd.grad(again, spoilt["logprobs_NT"])[0].isfinite().all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_add_up(name: str) -> None:
    case, fields = example(3, n=8), {**CLIP, **OBJECTIVES[name][0]}
    case["mask_NT"][5] = False
    whole, metrics = loss_of(**case, **fields)
    (gradient,) = torch.autograd.grad(whole, case["logprobs_NT"])
    total = case["mask_NT"].sum()
    parts = [
        loss_of(**{k: v[rows] for k, v in case.items()}, **fields, whole=(total, 7))
        for rows in (slice(0, 3), slice(3, 4), slice(4, 8))
    ]
    summed = torch.stack([loss for loss, _ in parts]).sum()
    torch.testing.assert_close(summed, whole)
    torch.testing.assert_close(torch.autograd.grad(summed, case["logprobs_NT"])[0], gradient)
    for name, value in metrics.items():
        torch.testing.assert_close(torch.stack([part[name] for _, part in parts]).sum(), value)


def test_kl_pulls_towards_the_reference() -> None:
    logprobs = torch.full((1, 2), -1.0, requires_grad=True)
    reference = torch.tensor([[-0.5, -2.0]])
    loss, metrics = loss_of(
        logprobs,
        logprobs.detach(),
        torch.zeros(1),
        torch.ones(1, 2),
        **CLIP,
        reference_logprobs_NT=reference,
        kl_weight=2.0,
    )
    loss.backward()
    assert logprobs.grad[0, 0] < 0 < logprobs.grad[0, 1]
    expected = (math.exp(0.5) - 0.5 - 1 + math.exp(-1.0) + 1.0 - 1) / 2
    assert metrics["reference_kl"].item() == pytest.approx(expected)
    assert loss.item() == pytest.approx(2 * expected)
    with pytest.raises(ValueError, match="reference"):
        loss_of(logprobs, logprobs, torch.zeros(1), torch.ones(1, 2), **CLIP, kl_weight=1.0)
