"""Editors that were distilled to few steps: what is warned of, and what they are held near to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from small_checkpoints import picture, tiny_flux2_klein
from sparring.attackers.distillation import START_KL, distillation_warning
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings, EditorLoraSettings
from sparring.models.editors import load_editor


@pytest.fixture(scope="module", params=[True, False], ids=["distilled", "undistilled"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An editor whose configuration says whether it is; its name says nothing."""
    folder = tiny_flux2_klein(tmp_path_factory.mktemp("editor"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"is_distilled": request.param}))
    return folder


def settings(folder: Path, **changes: object) -> AttackerSettings:
    return AttackerSettings.model_validate(
        {"model": str(folder), "lora": EditorLoraSettings(rank=2, alpha=2), "steps": 3, **changes}
    )


def test_the_checkpoint_says_whether_it_is(folder: Path) -> None:
    distilled = json.loads((folder / "model_index.json").read_text())["is_distilled"]
    editor = load_editor(folder)
    assert (editor.step_distilled, editor.takes_guidance) == (distilled, not distilled)
    for algorithm, weight in (
        ("flow_grpo", START_KL if distilled else 0.0),
        ("diffusion_nft", 0.0),
        ("awm", 0.0),
    ):
        assert (
            AttackerTrainer(editor, settings(folder, algorithm=algorithm), seed=0).settings.kl_weight
            == weight
        )
        for given in (0.0, 0.5):  # what is said is kept
            trainer = AttackerTrainer(editor, settings(folder, algorithm=algorithm, kl_weight=given), seed=0)
            assert trainer.settings.kl_weight == given


def test_only_what_trains_on_freshly_noised_pictures_is_warned_of(folder: Path) -> None:
    for algorithm, warned in (("flow_grpo", False), ("diffusion_nft", True), ("awm", True)):
        text = distillation_warning(settings(folder, algorithm=algorithm), step_distilled=True)
        assert (text is not None) is warned
        assert distillation_warning(settings(folder, algorithm=algorithm), step_distilled=False) is None
        assert (
            distillation_warning(settings(folder, algorithm=algorithm, steps=0), step_distilled=True) is None
        )
        assert text is None or all(
            name in text for name in (algorithm, str(folder), "is_distilled", "flow_grpo")
        )


def test_a_distilled_editor_is_given_no_guidance(folder: Path) -> None:
    """Not the negative instruction, and not the scale: the velocity is that without guidance."""
    editor = load_editor(folder)
    plain, guided = (editor.encode([picture()], ["Add a cup."], guidance_scale=scale) for scale in (1.0, 4.0))
    x = editor.noise(plain, [0])
    with torch.no_grad():
        same = torch.equal(editor.velocity(x, 0.8, plain), editor.velocity(x, 0.8, guided))
    assert same is editor.step_distilled
