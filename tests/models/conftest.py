"""Editors of every family, small and random."""

from pathlib import Path

import pytest
import torch

from small_checkpoints import TINY_EDITORS, tiny_flux_kontext, tiny_qwen_image_edit_plus
from sparring.models.editors import FlowEditor, load_editor


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> a pipeline folder; beside the families, variants of their transformers."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("editors")
    written = {family: write(root / family) for family, write in TINY_EDITORS.items()}
    written["flux_kontext without embedded guidance"] = tiny_flux_kontext(
        root / "undistilled", guidance=False
    )
    written["qwen_image_edit_plus 2511"] = tiny_qwen_image_edit_plus(root / "2511", zero_cond_t=True)
    return written


@pytest.fixture(params=TINY_EDITORS)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    """The pipeline folder of a family."""
    return folders[request.param]


@pytest.fixture
def editor(folder: Path) -> FlowEditor:
    """An editor of a family, the test's own."""
    return load_editor(folder)
