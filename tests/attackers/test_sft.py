"""Fine-tuning an editor on pairs: the loss falls, the target is right, and a stopped run ends with the same
bits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from small_checkpoints import tiny_flux2_klein, tiny_qwen_image_edit
from sparring.attackers import sft
from sparring.config import AttackerSettings, BootstrapSettings
from sparring.data.errors import TrainingError
from sparring.models.editors import FlowEditor, load_editor


def pairs(count: int) -> list[sft.Pair]:
    generator = np.random.default_rng(0)

    def random(width: int) -> Image.Image:
        return Image.fromarray(generator.integers(0, 256, (64, width, 3), dtype=np.uint8))

    widths = [64, 64, 72, 64, 72, 64][:count]
    return [(random(width), f"edit {i * 'x'}", random(width)) for i, width in enumerate(widths)]


ATTACKER = AttackerSettings(model="unused", micro_batch=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_flux2_klein(tmp_path_factory.mktemp("flux"), text_tokens=24)


def run(editor: FlowEditor, folder: Path, steps: int, **changes: float) -> list[float]:
    settings = BootstrapSettings.model_validate(
        {"steps": steps, "batch": 4, "learning_rate": 5e-3, **changes}
    )
    told = sft.finetune(editor, pairs(6), settings, ATTACKER, 0, folder, save_every=2)
    return [metrics["loss"] for _, metrics in told]


def held_loss(editor: FlowEditor) -> float:
    """The loss on all pairs of one size, with fixed noise."""
    chosen = [pair for pair in pairs(6) if pair[0].width == 64]
    conditions = editor.encode([pair[0] for pair in chosen], [pair[1] for pair in chosen])
    x0 = editor.clean_latents([pair[2] for pair in chosen], conditions)
    with torch.no_grad():
        losses = [
            sft.flow_matching_loss(editor, conditions, x0, 6, torch.Generator().manual_seed(seed))
            for seed in range(10)
        ]
    return torch.stack(losses).mean().item()


@pytest.mark.parametrize("lora", [True, False])
def test_fine_tuning_lowers_the_flow_loss(folder: Path, tmp_path: Path, lora: bool) -> None:
    editor = load_editor(folder)
    if lora:
        editor.add_lora(8, 16, seed=0)
    before = held_loss(editor)
    losses = run(editor, tmp_path, 40)
    assert len(losses) == 40
    assert held_loss(editor) < before - 0.1


def test_the_loss_of_the_exact_velocity_is_zero(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = load_editor(folder)
    conditions = editor.encode([pairs(1)[0][0]] * 3, ["x"] * 3)
    x0 = editor.clean_latents([pairs(1)[0][2]] * 3, conditions)
    # the flow's velocity is (x - x0) / sigma wherever x = (1 - sigma) x0 + sigma eps
    monkeypatch.setattr(editor, "velocity", lambda x, sigma, conditions: (x - x0) / sigma.view(-1, 1, 1))
    assert sft.flow_matching_loss(editor, conditions, x0, 4, torch.Generator().manual_seed(0)).item() < 1e-6


def test_noise_levels_are_those_that_the_sampler_steps_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = load_editor(folder)
    conditions = editor.encode([pairs(1)[0][0]] * 400, ["x"] * 400)
    levels: list[torch.Tensor] = []
    monkeypatch.setattr(editor, "velocity", lambda x, sigma, conditions: levels.append(sigma) or x)
    sft.flow_matching_loss(editor, conditions, torch.zeros(400, 4, 16), 4, torch.Generator().manual_seed(0))
    schedule = editor.sigmas(4, conditions).tolist()
    shares = [(levels[0] == level).float().mean().item() for level in schedule[:-1]]
    assert sum(shares) == 1
    assert shares == pytest.approx([0.25] * 4, abs=0.06)


def test_a_stopped_run_ends_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    def fresh() -> FlowEditor:
        editor = load_editor(folder)
        editor.add_lora(4, 8, seed=0)
        return editor

    whole, parts = fresh(), fresh()
    expected = run(whole, tmp_path / "whole", 6)

    settings = BootstrapSettings(steps=6, batch=4, learning_rate=5e-3)
    stopped = sft.finetune(parts, pairs(6), settings, ATTACKER, 0, tmp_path / "parts", save_every=2)
    for step, _ in stopped:
        if step == 4:  # after the state of step 4 was saved, before that of step 6
            break
    stopped.close()
    torch.manual_seed(7)
    again = fresh()
    assert run(again, tmp_path / "parts", 6) == expected[4:]
    for name, tensor in whole.trainable_parameters().items():
        assert torch.equal(tensor, again.trainable_parameters()[name])
    assert run(again, tmp_path / "parts", 6) == []  # nothing left to do


def test_every_pair_is_seen_once_in_an_epoch() -> None:
    seen = [place for step in range(3) for place in sft.batch_of(12, 4, step, seed=1)]
    assert sorted(seen) == list(range(12))
    assert seen != [place for step in range(3, 6) for place in sft.batch_of(12, 4, step, seed=1)]
    assert sft.batch_of(12, 5, 2, seed=1) == sft.batch_of(12, 5, 2, seed=1)


def test_no_pairs_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no pair to fine-tune"):
        list(sft.finetune(load_editor(folder), [], BootstrapSettings(), ATTACKER, 0, tmp_path))


def test_texts_of_unequal_length_share_a_batch_of_the_other_family(tmp_path: Path) -> None:
    editor = load_editor(tiny_qwen_image_edit(tmp_path / "qwen"))
    editor.add_lora(2, 2, seed=0)
    losses = run(editor, tmp_path / "state", 2)
    assert len(losses) == 2
    assert all(np.isfinite(losses))
