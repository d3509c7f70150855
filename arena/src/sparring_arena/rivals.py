"""An opponent that nobody trained and that draws perfectly: what content alone does to a Defender, without
the skill, or the smudges, of an editor.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion
from sparring_arena.audit import asked_names
from sparring_arena.oracle import find, shared
from sparring_arena.sprites import lookalikes
from sparring_arena.world import PLACES, SIZE, Thing, paint, random_color


def lookalike(question: VisualQuestion, image: Image.Image, *, seed: int) -> tuple[Image.Image, str] | None:
    """A thing that looks like one that the question names, and is none of those: of a random colour, added at
    a random free place.

    None where no place is free. What the question asks about is left alone, so its answer stays right.
    Raises DataError for a question or picture that is not of this world.
    """
    names = asked_names(question.question)
    if names is None or image.size != (SIZE, SIZE):
        raise DataError(
            f'question "{question.id}" is not one about a {SIZE} x {SIZE} scene of the arena: '
            f'"{question.question}", '
            f"{image.width} x {image.height} pixels."
        )
    rng = np.random.default_rng(seed)
    near = [other for name in names for other in lookalikes(name) if other not in names]
    name, color = near[int(rng.integers(len(near)))], random_color(rng)
    taken = [seen.box for seen in find(np.asarray(image.convert("RGB")))]
    things = [Thing(name, color, column, row) for row in range(PLACES) for column in range(PLACES)]
    free = [thing for thing in things if all(shared(thing.box, box) == 0 for box in taken)]
    if not free:
        return None
    thing = free[int(rng.integers(len(free)))]
    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    return Image.fromarray(paint(pixels, [thing])), f"a {color} {name}"
