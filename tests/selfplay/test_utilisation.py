"""Model-flops utilisation, against operations counted by hand on players of a few weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sparring.config import Recipe
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion
from sparring.engine.device import peak_tflops
from sparring.plan.shapes import Blocks, EditorShape, VlmShape
from sparring.recipes import load_recipe
from sparring.selfplay.utilisation import Utilisation, utilisation_of

# A block of 128 weights; a picture of 16 x 16 is 4 tokens, an edit 4 + 4 + 4 of an instruction. A denoising
# step: 2 blocks x 12 tokens x (2 x 128 + 4 x 4 x 12).
EDITOR = EditorShape((Blocks("flux2", 2, 4, 4, 4, 8, 1, gated=False),), side=8, text=4, channels=1)
STEP = 10752
# Blocks of 144 and of 32 weights; the picture is 16 patches, then 4 tokens before 128 of a prompt.
VLM = VlmShape(Blocks("text", 1, 4, 4, 2, 8, 1), Blocks("vision", 1, 2, 2, 2, 4, 1, gated=False), 10, side=8)
SEEN = 16 * (2 * 32 + 4 * 2 * 16)
READ = 132 * (2 * 144 + 4 * 4 * 66)
REPLY = 10 * (2 * 144 + 4 * 4 * 137 + 2 * 4 * 10)  # of 10 tokens, each before 137 others in the mean


def used(*changes: str) -> Utilisation:
    """At a peak of 1e9 FLOP/s."""
    recipe = load_recipe("arena", ["attacker.group_size=4", "attacker.rollout_steps=4", *changes])
    return Utilisation(recipe, EDITOR, VLM, 256, 1e9)


FLOW = ["attacker.algorithm.type=flow_grpo", "attacker.algorithm.window.size=2", "attacker.lora.rank=2"]
FLOW += ["attacker.guidance_scale=1", "attacker.kl_weight=0", "engine.attacker.workers=3"]


@pytest.mark.parametrize("again", ["true", "false"])
def test_an_attackers_update_by_hand(again: str) -> None:
    """8 edits of 4 steps; half of the groups are learned from, in 2 steps forward and back through a LoRA.
    What checkpointing computes again is no use.
    """
    metrics = {"dead_groups": 0.5}
    own = used(*FLOW, f"attacker.gradient_checkpointing={again}")
    assert own.of_attacker(8, metrics, 2.0) == pytest.approx(STEP * (8 * 4 + 4 * 2 * 2) / (2.0 * 1e9 * 3))


def test_edits_that_nobody_judged_are_made_and_not_learned_from() -> None:
    own = used(*FLOW)
    one_left_out = own.of_attacker(8, {"dead_groups": 0.0, "left_out": 1.0}, 1.0)
    assert one_left_out == pytest.approx(STEP * (8 * 4 + 4 * 2 * 2) / 3e9)
    assert own.of_attacker(8, {"left_out": 2.0}, 1.0) == pytest.approx(STEP * 8 * 4 / 3e9)


def test_old_policy_and_reference_are_passes_forward() -> None:
    own = used(
        "attacker.algorithm.type=awm", "attacker.algorithm.forward_timesteps=2", "attacker.lora.rank=2"
    )
    changes = {"guidance_scale": 2.0, "kl_weight": 0.1}
    settings = own.recipe.attacker.model_copy(update=changes)
    own = replace(own, recipe=own.recipe.model_copy(update={"attacker": settings}))
    by_hand = 2 * STEP * (8 * 4 + 8 * 2 * (1 + 1 + 2))
    assert own.of_attacker(8, {"dead_groups": 0.0}, 1.0) == pytest.approx(by_hand / 1e9)


GROUPS = ["defender.prompts_per_step=3", "defender.group_size=2", "defender.lora=null"]


def test_a_defenders_update_by_hand() -> None:
    """Two batches of 3 prompts, 12 replies; 3 groups are kept, forward and twice that back."""
    metrics = {"batches": 2.0, "rollouts": 12.0, "kept_groups": 3.0, "length_mean": 10.0}
    sampled, learned = 6 * (SEEN + READ) + 12 * REPLY, 3 * (SEEN + READ) + 6 * REPLY
    assert used(*GROUPS).of_defender(metrics, 4.0) == pytest.approx((sampled + 3 * learned) / 4e9)
    frozen_tower = used(*GROUPS, "defender.train_vision=false").of_defender(metrics, 4.0)
    assert frozen_tower == pytest.approx((sampled + 3 * learned - 2 * 3 * SEEN) / 4e9)
    reference = used(*GROUPS, "defender.kl_weight=0.1").of_defender(metrics, 4.0)
    assert reference == pytest.approx((sampled + 4 * learned) / 4e9)
    metrics["kept_groups"] = 0.0
    assert used(*GROUPS).of_defender(metrics, 4.0) == pytest.approx(sampled / 4e9)


def test_imitation_samples_nothing() -> None:
    own = used(*GROUPS, "defender.algorithm.type=sft")
    by_hand = 3 * 3 * (SEEN + READ + REPLY)
    assert own.of_defender({"trained_tokens": 30.0}, 1.0) == pytest.approx(by_hand / 1e9)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA H200 NVL", 835.0),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA L40", None),
        ("Tesla T4", None),
    ],
)
def test_peaks_by_name(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


@pytest.mark.parametrize("peak", ["0", "-1", ".inf", ".nan"])
def test_a_peak_is_positive_and_finite(peak: str) -> None:
    with pytest.raises(RecipeError, match=r"engine\.peak_tflops"):
        load_recipe("arena", [f"engine.peak_tflops={peak}"])


def questions(folder: Path) -> list[VisualQuestion]:
    """Two pictures, 256 pixels in the mean, one of them asked about twice."""
    found = []
    for name, size in (("a", (16, 8)), ("b", (24, 16)), ("a", (16, 8))):
        Image.new("RGB", size).save(folder / f"{name}.png")
        told = {"id": f"{len(found)}", "image": folder / f"{name}.png", "question": "Which?"}
        found.append(VisualQuestion(**told, options=("x", "y"), answer="A", targets=()))
    return found


def test_the_peak_is_the_setting_or_that_of_a_known_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = questions(tmp_path)
    cpu, stated = (load_recipe("arena", ["device=cpu", *own]) for own in ([], ["engine.peak_tflops=0.5"]))
    assert utilisation_of(cpu, asked) is None
    found = utilisation_of(stated, asked)
    assert found is not None
    assert (found.peak, found.pixels) == (0.5e12, 256)
    assert found.editor is not None
    assert found.vlm is not None
    assert utilisation_of(stated, []) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    gpu: Recipe = load_recipe("arena", ["device=cuda"])
    found = utilisation_of(gpu, asked)
    assert found is not None
    assert found.peak == 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Unheard-of")
    assert utilisation_of(gpu, asked) is None


def test_of_a_player_of_unknown_shape_it_is_not_known() -> None:
    own = replace(used(*FLOW), editor=None, vlm=None)
    assert own.of_attacker(8, {"dead_groups": 0.5}, 1.0) is None
    assert own.of_defender({}, 1.0) is None
