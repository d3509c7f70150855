"""The memory of an update: what lies outside the window leaves no trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from allocator import peak
from small_checkpoints import tiny_flux2_klein
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings
from sparring.data.records import VisualQuestion
from sparring.models.editors import load_editor

PICTURES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)) for i in range(2)
]
QUESTIONS = [
    VisualQuestion(f"q{i}", Path("none.png"), f"Where is thing {i}?", ("left", "right"), "A")
    for i in range(2)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_flux2_klein(tmp_path_factory.mktemp("flux"), text_tokens=24)


def brightness(edits: list[list[Image.Image]]) -> Tensor:
    return torch.tensor([[float(np.asarray(edit).mean()) for edit in group] for group in edits])


FIXED = {"type": "flow_grpo", "window": {"size": 2, "move": "fixed", "first": 1}}


def peak_of_an_update(folder: Path, steps: int, **changes: object) -> int:
    settings = AttackerSettings.model_validate(
        {
            "model": "tiny",
            "group_size": 4,
            "rollout_steps": steps,
            "micro_batch": 8,
            "lora": {"rank": 4, "alpha": 8},
            "algorithm": FIXED,
            **changes,
        }
    )
    trainer = AttackerTrainer(load_editor(folder), settings, seed=0)
    # the optimiser's moments and the position tables are there to stay
    trainer.update(QUESTIONS, PICTURES, brightness, 0)
    return peak(lambda: trainer.update(QUESTIONS, PICTURES, brightness, 1))


def test_the_peak_counts_what_is_alive_together() -> None:
    def one_after_the_other() -> None:
        for _ in range(5):
            torch.zeros(250_000)

    def together() -> None:
        kept = [torch.zeros(250_000) for _ in range(5)]
        assert len(kept) == 5

    assert 1_000_000 <= peak(one_after_the_other) < 1_100_000
    assert 5_000_000 <= peak(together) < 5_100_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm",
    [FIXED, {**FIXED, "state_dtype": "bfloat16", "grpo_guard": True}, "diffusion_nft", "awm"],
    ids=str,
)
def test_steps_outside_the_window_cost_no_memory(folder: Path, algorithm: object) -> None:
    few, many = (peak_of_an_update(folder, steps, algorithm=algorithm) for steps in (4, 16))
    assert many <= 1.01 * few


@pytest.mark.slow
def test_the_measure_sees_what_a_window_keeps(folder: Path) -> None:
    """All steps in the window: states are kept for each, and the peak grows with them."""
    few, many = (peak_of_an_update(folder, steps, algorithm={"window": {"size": None}}) for steps in (4, 16))
    assert many > few + 12 * 8 * 64 * 16 * 4 * 0.9  # 12 more states of 8 edits of 64 tokens with 16 channels
