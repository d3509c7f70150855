"""Two plain measures of a picture: how light it is, and how sharp."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageChops
from PIL.Image import Image
from scipy.ndimage import laplace

DARK, BRIGHT = 16, 250  # grey levels beyond which a pixel does not tell the light


def same_light(
    before: NDArray[Any], after: NDArray[Any], *, gain: float | None = None, tint: float | None = None
) -> NDArray[Any]:
    """The edited picture in the clean one's light: channels divided by their median gains. [H, W, channels]
    in 0 to 255.

    gain, tint: the strongest change of light that is undone, of all channels by such a factor and of one
    against their mean by such a factor; beyond them the gains are clipped, and what is left of the change is
    judged like any other. None: any is. Where the light alone leaves a pixel without room, the clean one
    stands.
    """
    told = (before > DARK) & (before < BRIGHT) & (after < BRIGHT)
    channels = range(before.shape[2])
    gains = np.array(
        [
            np.median(after[..., c][told[..., c]] / before[..., c][told[..., c]]) if told[..., c].any() else 1
            for c in channels
        ]
    )
    gains = np.maximum(gains, 1e-3)
    if gain is not None and tint is not None:
        common = float(np.clip(np.exp(np.log(gains).mean()), 1 / gain, gain))
        gains = common * np.clip(gains / common, 1 / tint, tint)
    blinded = (after >= BRIGHT) & (before * gains >= BRIGHT)
    return np.where(blinded, before, after / gains).astype(before.dtype)


def sharpness(image: Image) -> float:
    """Variance of the Laplacian (four neighbours, border mirrored) of the grey levels, 0 to 255."""
    return float(laplace(np.asarray(image.convert("L"), dtype=np.float64), mode="mirror").var())


def sharpness_ratio(clean: Image, edited: Image) -> float:
    """(1 + sharpness of the edit) / (1 + sharpness of the clean picture), both inside the smallest box around
    all that changed.

    1 where nothing changed. The ones keep flat pictures from dividing by zero. The pictures are RGB of one
    size.
    """
    box = ImageChops.difference(clean, edited).getbbox()
    if box is None:
        return 1.0
    return (1 + sharpness(edited.crop(box))) / (1 + sharpness(clean.crop(box)))
