"""Every family of editors as the Attacker: both algorithms, with guidance, pictures of two sizes and less
memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from small_checkpoints import TINY_EDITORS, picture
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings
from sparring.data.records import VisualQuestion
from sparring.models.editors import load_editor


@pytest.mark.parametrize(
    "algorithm",
    [{"type": "flow_grpo", "window": {"size": 1}}, {"type": "diffusion_nft", "forward_timesteps": 1}],
    ids=["flow_grpo", "diffusion_nft"],
)
@pytest.mark.parametrize("family", TINY_EDITORS)
def test_an_editor_of_any_family_learns_by_either_algorithm(
    family: str, algorithm: dict[str, object], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    editor = load_editor(TINY_EDITORS[family](tmp_path / family), offload=True)
    editor.checkpoint_gradients(True)
    settings = AttackerSettings.model_validate(
        {
            "model": "tiny",
            "instruction": "{question}",
            "algorithm": algorithm,
            "group_size": 2,
            "rollout_steps": 3,
            "micro_batch": 4,
            "guidance_scale": 2.0,
            "learning_rate": 1e-2,
            "lora": {"rank": 2, "alpha": 4},
        }
    )
    trainer = AttackerTrainer(editor, settings, seed=0)
    asked = [
        VisualQuestion(text, Path("none.png"), text, ("a", "b"), "A") for text in ("cup?", "where is it?")
    ]
    images = [picture(), picture(72, 56)]

    def darkness(edits: list[list[Image.Image]]) -> Tensor:
        return torch.tensor([[1 - np.asarray(edit).mean() / 255 for edit in group] for group in edits])

    # The first step of a fresh LoRA moves its B sides alone: A has no gradient while B is zero.
    for step in range(2):
        before = {name: p.detach().clone() for name, p in editor.trainable_parameters().items()}
        metrics = trainer.update(asked, images, darkness, step)
        assert metrics["dead_groups"] == 0
        assert metrics["grad_norm"] > 0
        assert metrics["skipped"] == 0
        if algorithm["type"] == "flow_grpo":
            assert metrics["ratio_first"] == pytest.approx(1, abs=1e-4)
        moved = {
            name.split(".lora_")[1][0]
            for name, p in editor.trainable_parameters().items()
            if not torch.equal(before[name], p)
        }
        assert moved == ({"B"} if step == 0 else {"A", "B"})
