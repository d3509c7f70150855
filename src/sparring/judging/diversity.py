"""Do edits differ from each other? An Attacker with one trick gives the Defender one thing to learn.

*Diversity*, within the edits of one picture. Of every edit the difference map is taken: edited less clean
picture, averaged over a grid of cells, so that neither noise nor a pixel's shift counts. Two edits a and b
are as far apart as

    d(a, b) = |D_a - D_b| / (|D_a| + |D_b| + 1 grey level)        |D|: root mean square over cells and channels, in grey levels of 255

which lies between 0 and 1: 0 for the same change, 1/2 or more for changes in different places; the grey level
keeps edits that change hardly anything from being told apart by what the autoencoder leaves. It keeps an
Attacker from one place, not from one trick: "add something, anywhere" is as diverse as can be.

*Variety*, over all edits of an update: of the other edits, the share that are of another kind (`kinds`).
Where each kind k succeeds with s_k and is paid v (1 - p_k) beside it, p_k its share, the rewards of two kinds
are equal at p_i - p_j = (s_i - s_j) / v: so a kind that succeeds less often by less than v keeps a share, and
the best one alone cannot hold the field. Light and other imperceptible changes earn none.

Both formulas are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from sparring.judging.kinds import Kind

CELLS = 16
FLOOR = 1.0


def group_diversity(clean: Image, edits: Sequence[Image]) -> list[float]:
    """For every edit of one picture its mean distance d to the others, in [0, 1); 0 for an edit without others. All have one size."""
    if len(edits) < 2:
        return [0.0] * len(edits)
    maps_ED = torch.stack([difference_map(clean, edit).flatten() for edit in edits])
    size_E = maps_ED.square().mean(1).sqrt()
    gap_EE = (maps_ED[:, None] - maps_ED).square().mean(2).sqrt()
    distance_EE = gap_EE / (size_E[:, None] + size_E + FLOOR)
    values: list[float] = (distance_EE.sum(1) / (len(edits) - 1)).tolist()
    return values


def difference_map(clean: Image, edit: Image) -> Tensor:
    """Mean change of every cell and channel in grey levels: float64 [3, CELLS, CELLS]."""
    change_HWC = np.asarray(edit.convert("RGB"), dtype=np.int16) - np.asarray(clean.convert("RGB"), dtype=np.int16)
    change_CHW = torch.from_numpy(change_HWC).permute(2, 0, 1)
    return torch.stack([functional.adaptive_avg_pool2d(channel[None].double(), CELLS)[0] for channel in change_CHW])


def variety(kinds: Sequence[Kind]) -> list[float]:
    """For every edit the share of the others of another kind, in [0, 1]; 0 alone, and for edits that change no object."""
    number, others = Counter(kinds), max(1, len(kinds) - 1)
    return [0.0 if kind in ("unchanged", "imperceptible") else (len(kinds) - number[kind]) / others for kind in kinds]
