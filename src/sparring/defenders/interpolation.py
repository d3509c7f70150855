"""Between two Defenders: WiSE-FT (arXiv 2109.01903), the straight line from the weights before a training to those after it."""

from __future__ import annotations

import torch

from sparring.models.vlms.local import LocalVLM


@torch.no_grad()
def move_towards_base(vlm: LocalVLM, base: LocalVLM, share: float) -> None:
    """Leave the Defender so much of its way from `base`, in place: 1 changes nothing, 0 is `base`. Both must have the same weights by name."""
    for (name, parameter), (same, start) in zip(vlm.model.named_parameters(), base.model.named_parameters(), strict=True):
        assert name == same
        parameter.copy_(torch.lerp(start.to(parameter), parameter, share))
