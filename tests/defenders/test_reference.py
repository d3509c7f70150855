"""The reference policy is the Defender at the start, with a LoRA and without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_vlms import noise_pictures, tiny_qwen2_5_vl
from sparring.config import DefenderSettings
from sparring.defenders.trainer import OBJECTIVES, Reference, objective_of
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
    assert all(parameter.grad is not None for name, parameter in vlm.trainable_parameters().items() if "lora_B" in name)
    assert len(vlm.trainable_parameters()) > 10


def test_a_clip_range_is_the_algorithms_own_unless_given() -> None:
    for name, objective in OBJECTIVES.items():
        assert objective_of(DefenderSettings(model="m", algorithm=name)) == objective  # type: ignore[arg-type]
    own = objective_of(DefenderSettings(model="m", algorithm="gspo", clip_high=0.1))
    assert (own.clip_low, own.clip_high, own.ratio_over) == (3e-4, 0.1, "sequence")
