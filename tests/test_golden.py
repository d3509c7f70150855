"""A small game and one run of every other command end with the figures that they had before."""

from __future__ import annotations

from pathlib import Path

import pytest

import golden

pytestmark = pytest.mark.slow


def test_no_digit_has_changed(tmp_path: Path) -> None:
    if not golden.is_known():
        pytest.skip(f"no figures are known of this kind of machine: {golden.machine()}")
    assert golden.differences(golden.figures(tmp_path)) == []


def test_a_changed_weight_and_a_changed_figure_are_seen(tmp_path: Path) -> None:
    """The digests see one bit of one weight, and one figure, and do not see how long it took."""
    import json

    import torch
    from safetensors.torch import save_file

    (tmp_path / "a").mkdir()
    save_file({"w": torch.zeros(3)}, tmp_path / "a" / "x.safetensors")
    before = golden.weights_of(tmp_path / "a")
    save_file({"w": torch.tensor([0.0, 0.0, 1e-45])}, tmp_path / "a" / "x.safetensors")
    assert golden.weights_of(tmp_path / "a") != before
    digests = []
    for asr, seconds in ((0.25, 3.0), (0.25, 4.0), (0.26, 3.0)):
        (tmp_path / "s.json").write_text(json.dumps({"rounds": [{"asr": asr, "wall_seconds": seconds}]}))
        digests.append(golden.json_of(tmp_path / "s.json", tmp_path))
    assert digests[0] == digests[1] != digests[2]
