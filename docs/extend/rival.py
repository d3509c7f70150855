"""An opponent that nobody trains: it covers a picture with thin lines, and spares the targets."""

from __future__ import annotations

import numpy as np
from PIL.Image import Image
from PIL.ImageDraw import Draw

from sparring.data.records import VisualQuestion


def lattice(question: VisualQuestion, image: Image, *, seed: int, lines: int = 6) -> tuple[Image, str] | None:
    """(edited picture, what was done), or None where nothing can be done: here, where a picture is too small.

    image: RGB; it is left as it is. All that is drawn at random follows from `seed`.
    """
    if min(image.size) < 4 * lines:
        return None
    rng, edited = np.random.default_rng(seed), image.copy()
    colour = tuple(rng.integers(0, 256, 3).tolist())
    draw = Draw(edited)
    for x in rng.integers(0, image.width, lines).tolist():
        draw.line([(x, 0), (x, image.height)], fill=colour)
    for y in rng.integers(0, image.height, lines).tolist():
        draw.line([(0, y), (image.width, y)], fill=colour)
    for target in question.targets:
        edited.paste(image.crop(target.box), target.box[:2])
    return edited, f"a lattice of {2 * lines} lines"
