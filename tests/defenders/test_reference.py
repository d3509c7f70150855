"""The reference policy is the Defender at the start, with a LoRA and without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_vlms import noise_pictures, tiny_qwen2_5_vl
from sparring.config import (
    CISPOSettings,
    DAPOSettings,
    DefenderSettings,
    DrGRPOSettings,
    GRPOSettings,
    GSPOSettings,
    RewardedAlgorithm,
)
from sparring.defenders.objectives import Reference, objective_of, spread_of
from sparring.models.vlms.local import LocalVLM

REPLIES = [[[65, 66, 67], [68]], [[70, 71]]]


@pytest.mark.parametrize("rank", [2, None])
def test_the_reference_stays_while_the_defender_changes(tmp_path: Path, rank: int | None) -> None:
    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path))
    batch = vlm.encode(noise_pictures(2), ["Is it?", "Why?"])
    with torch.no_grad():
        before = vlm.completion_logprobs(batch, REPLIES, temperature=0.8)[0]
    reference = Reference(vlm, adapted=rank is not None)
    assert (reference.vlm is vlm) is (rank is not None)
    vlm.prepare_training(train_vision=True, lora_rank=rank, lora_alpha=4)
    with torch.no_grad():
        for parameter in vlm.trainable_parameters().values():
            parameter.add_(0.05)
    assert torch.equal(reference.logprobs(batch, REPLIES, 0.8), before)
    # What is trained is trained as before.
    assert not torch.allclose(vlm.completion_logprobs(batch, REPLIES, temperature=0.8)[0], before, atol=1e-3)
    vlm.completion_logprobs(batch, REPLIES)[0].sum().backward()
    assert all(
        parameter.grad is not None
        for name, parameter in vlm.trainable_parameters().items()
        if "lora_B" in name
    )
    assert len(vlm.trainable_parameters()) > 10


@pytest.mark.parametrize(
    ("algorithm", "clips", "epsilon"),
    [
        (DAPOSettings(), (0.2, 0.28, None), 1e-4),
        (GRPOSettings(dual_clip=3.0), (0.2, 0.2, 3.0), 1e-4),
        (DrGRPOSettings(), (0.2, 0.2, None), 0.0),  # nothing is divided by
        (GSPOSettings(clip_high=0.1, advantage_epsilon=1e-6), (3e-4, 0.1, None), 1e-6),
        (CISPOSettings(), (0.0, 4.0, None), 1e-4),  # its lower bound is not used
    ],
    ids=lambda case: getattr(case, "type", None),
)
def test_an_objective_has_the_numbers_of_its_algorithm(
    algorithm: RewardedAlgorithm, clips: tuple[float, float, float | None], epsilon: float
) -> None:
    settings = DefenderSettings(model="unused", algorithm=algorithm, kl_weight=0.5, max_new_tokens=77)
    objective, spread = objective_of(settings), spread_of(settings)
    assert (objective.clip_low, objective.clip_high, objective.dual_clip) == clips
    assert (objective.kl_weight, objective.longest) == (0.5, 77)
    assert spread["eps"] == epsilon
    assert (spread["std_over"] == "none") == (algorithm.type == "dr_grpo")
    assert (objective.ratio_over == "sequence") == (algorithm.type == "gspo")
    assert (objective.surrogate == "detached") == (algorithm.type == "cispo")
    means = {"grpo": "sequence", "gspo": "sequence", "dr_grpo": "constant"}
    assert objective.mean_over == means.get(algorithm.type, "token")
