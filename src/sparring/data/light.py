"""The light on a picture, as gains of its colour channels, taken off an edited one before the two are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DARK, BRIGHT = 16, 250  # grey levels beyond which a pixel does not tell the light


def same_light(before: NDArray[Any], after: NDArray[Any], *, gain: float | None = None, tint: float | None = None) -> NDArray[Any]:
    """The edited picture in the clean one's light: channels divided by their median gains. [H, W, channels] in 0 to 255.

    gain, tint: the strongest change of light that is undone, of all channels by such a factor and of one
    against their mean by such a factor; beyond them the gains are clipped, and what is left of the change is
    judged like any other. None: any is. Where the light alone leaves a pixel without room, the clean one
    stands.
    """
    told = (before > DARK) & (before < BRIGHT) & (after < BRIGHT)
    channels = range(before.shape[2])
    gains = np.array([np.median(after[..., c][told[..., c]] / before[..., c][told[..., c]]) if told[..., c].any() else 1 for c in channels])
    gains = np.maximum(gains, 1e-3)
    if gain is not None and tint is not None:
        common = float(np.clip(np.exp(np.log(gains).mean()), 1 / gain, gain))
        gains = common * np.clip(gains / common, 1 / tint, tint)
    blinded = (after >= BRIGHT) & (before * gains >= BRIGHT)
    return np.where(blinded, before, after / gains).astype(before.dtype)
