"""How sharp an edited picture is beside its clean one: a measure that no reward pays for.

Variance of the Laplacian (Pech-Pacheco et al. 2000, doi 10.1109/ICPR.2000.903548): low in a blurred or washed-out picture, high in one
with grain or a grid, which are the two ways in which edits degrade that are trained too long on one reward.
"""

from __future__ import annotations

import numpy as np
from PIL import ImageChops
from PIL.Image import Image
from scipy.ndimage import laplace


def sharpness(image: Image) -> float:
    """Variance of the Laplacian (four neighbours, border mirrored) of the grey levels, 0 to 255."""
    return float(laplace(np.asarray(image.convert("L"), dtype=np.float64), mode="mirror").var())


def sharpness_ratio(clean: Image, edited: Image) -> float:
    """(1 + sharpness of the edit) / (1 + sharpness of the clean picture), both inside the smallest box around all that changed.

    1 where nothing changed. The ones keep flat pictures from dividing by zero. The pictures are RGB of one size.
    """
    box = ImageChops.difference(clean, edited).getbbox()
    if box is None:
        return 1.0
    return (1 + sharpness(edited.crop(box))) / (1 + sharpness(clean.crop(box)))
