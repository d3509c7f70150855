"""Roll-outs against the official pipelines; how these are made to work at a picture's own size is said in
`official_pipelines`.

An official pipeline edits one picture at a time here, whatever the size of our batch: a row owes nothing to
its neighbours, padding included.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from official_pipelines import official
from small_checkpoints import TINY_EDITORS, picture
from sparring.attackers.rollout import Chance, roll_out
from sparring.models.editors import FlowEditor, load_editor
from sparring.models.editors.flux_kontext import FluxKontextEditor
from sparring.models.editors.qwen_image_edit import QwenImageEditPlusEditor

INSTRUCTIONS = ["add a red cup", "remove the old clock on the wall"]
VARIANTS = ["flux_kontext without embedded guidance", "qwen_image_edit_plus 2511"]


@pytest.fixture(scope="module")
def editors(folders: dict[str, Path]) -> dict[str, FlowEditor]:
    """Editors that no test of this file changes."""
    return {name: load_editor(folders[name]) for name in [*TINY_EDITORS, *VARIANTS]}


def rolled_out(
    editor: FlowEditor, size: tuple[int, int], batch: int, guidance: float, chance: Chance = Chance()
) -> Tensor:
    """Edits [B, C, H, W] in [0, 1] by the roll-out that the game uses, before they are rounded."""
    images = [picture(*size, seed) for seed in range(batch)]
    conditions = editor.encode(images, INSTRUCTIONS[:batch], guidance_scale=guidance)
    made = roll_out(
        editor, conditions, torch.arange(batch), list(range(7, 7 + batch)), steps=3, chance=chance
    )
    return editor.decode(made.final_BTC, conditions)


@pytest.mark.parametrize("size", [(96, 64), (64, 72)])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("family", TINY_EDITORS)
def test_the_deterministic_roll_out_equals_the_official_pipeline(
    editors: dict[str, FlowEditor], family: str, guidance: float, size: tuple[int, int]
) -> None:
    editor = editors[family]
    expected = torch.stack(
        [official(editor, picture(*size, row), INSTRUCTIONS[row], 7 + row, guidance) for row in range(2)]
    )
    assert expected.shape == (2, 3, size[1], size[0])
    assert expected.std() > 0.01
    for batch in (1, 2):
        assert (rolled_out(editor, size, batch, guidance) - expected[:batch]).abs().max() < 1e-4


@pytest.mark.parametrize("family", VARIANTS)
def test_variants_of_a_family_are_their_official_pipelines_too(
    editors: dict[str, FlowEditor], family: str
) -> None:
    editor = editors[family]
    expected = torch.stack(
        [official(editor, picture(64, 72, row), INSTRUCTIONS[row], 7 + row, 2.0) for row in range(2)]
    )
    assert (rolled_out(editor, (64, 72), 2, 2.0) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("family", TINY_EDITORS)
def test_random_steps_without_noise_are_deterministic_ones(
    editors: dict[str, FlowEditor], family: str
) -> None:
    editor = editors[family]
    silent = rolled_out(editor, (64, 72), 2, 1.0, Chance(range(2), "cps", 0.0))
    torch.testing.assert_close(silent, rolled_out(editor, (64, 72), 2, 1.0), atol=1e-4, rtol=0)
    noisy = rolled_out(editor, (64, 72), 2, 1.0, Chance(range(2), "cps", 0.5))
    assert (silent - noisy).abs().max() > 1e-2


def test_embedded_guidance_is_an_input_and_stays_with_the_rows(folders: dict[str, Path]) -> None:
    editor = load_editor(folders["flux_kontext"])
    assert isinstance(editor, FluxKontextEditor)
    image, latents = picture(), None
    made = []
    for scale in (2.5, 6.0):
        editor.embedded_guidance = scale
        conditions = editor.encode([image], ["a"], guidance_scale=2.0)
        latents = editor.noise(conditions, [0]) if latents is None else latents
        made.append((conditions, editor.velocity(latents, 0.5, conditions).detach()))
        conditions = editor.encode([image], ["a"])
        ours = editor.decode(
            roll_out(editor, conditions, torch.arange(1), [3], steps=3).final_BTC, conditions
        )
        assert (ours[0] - official(editor, image, "a", 3)).abs().max() < 1e-4
    assert (made[0][1] - made[1][1]).abs().max() > 1e-4
    for conditions, before in made:  # encoded then, used now
        assert latents is not None
        assert torch.equal(editor.velocity(latents, 0.5, conditions).detach(), before)


def test_the_language_model_of_the_plus_family_sees_a_small_view_of_the_picture(
    editors: dict[str, FlowEditor],
) -> None:
    editor = editors["qwen_image_edit_plus"]
    assert isinstance(editor, QwenImageEditPlusEditor)
    assert editor._view(picture(60, 60)).size == (384, 384)
    width, height = editor._view(picture(120, 40)).size
    assert width % 32 == height % 32 == 0
    assert width * height == pytest.approx(384 * 384, rel=0.1)
    assert width / height == pytest.approx(3, rel=0.1)
