"""On the straight line between two Defenders."""

from pathlib import Path

import pytest
import torch

from small_vlms import tiny_qwen2_5_vl
from sparring.defenders.weights import move_towards_base
from sparring.models.vlms.local import LocalVLM


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_every_weight_keeps_its_share_of_the_way(tmp_path: Path, share: float) -> None:
    folder = tiny_qwen2_5_vl(tmp_path)
    base, trained = LocalVLM.load(folder), LocalVLM.load(folder)
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = {
        name: (p.detach().clone(), q.detach().clone())
        for (name, p), q in zip(base.model.named_parameters(), trained.model.parameters(), strict=True)
    }
    move_towards_base(trained, base, share)
    for name, parameter in trained.model.named_parameters():
        start, end = before[name]
        assert torch.allclose(parameter, start + share * (end - start), atol=1e-6)
    assert all(torch.equal(parameter, before[name][0]) for name, parameter in base.model.named_parameters())
