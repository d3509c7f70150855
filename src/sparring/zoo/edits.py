"""Instructions and what they make of a scene: the pairs that the bundled editor is trained on.

Where a new object stands, and how it is drawn, follows from the scene and the instruction alone. A small editor that samples in a few steps
paints the average of all that it thinks possible: one possibility is an object, many are a smear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparring.data.records import Box
from sparring.scenes.questions import KINDS, ask
from sparring.scenes.sprites import COLORS, NAMES, placed
from sparring.scenes.world import SIZE, Scene, Thing, apart, random_color, render
from sparring.zoo import vocabulary
from sparring.zoo.light import Gains, drift, gains

KINDS_OF_EDIT = ("add", "beside", "remove", "replace", "recolor", "distract", "relight")
WEIGHTS = (0.18, 0.1, 0.12, 0.12, 0.08, 0.34, 0.06)
RELATIVES = (  # what a question about one of them makes one think of
    ("phone", "camera", "television", "laptop", "clock"),
    ("bottle", "cup", "teapot", "bucket", "basket"),
    ("umbrella", "kite", "balloon", "ball", "bulb"),
    ("chair", "ladder", "broom", "hammer", "scissors"),
    ("guitar", "trumpet", "drum", "bell", "magnet"),
    ("pencil", "book", "envelope", "box", "gift"),
    ("backpack", "hat", "shirt", "shoe", "glasses"),
    ("key", "candle", "trophy", "crown", "bear"),
)
# The light of edits by the Attacker's instruction: mean and standard deviation of the logarithm of its gain, standard deviation of its warmth.
DIM, DRIFT, WARMTH = -0.08, 0.16, 0.06
LIGHTS = {"darker": (-0.4, -0.2, 0.0), "brighter": (0.15, 0.35, 0.0), "warmer": (-0.05, 0.05, 0.12), "colder": (-0.05, 0.05, -0.12)}
ADDED = 20.0  # pixels, longest side of a new object
LATTICE = range(12, SIZE - 8, 8)  # where the middle of a new object may be, in x and in y


@dataclass(frozen=True, slots=True)
class Edit:
    """An instruction, the scene after it, and the light that falls on it: gains of red, green and blue."""

    instruction: str
    scene: Scene
    light: Gains = (1.0, 1.0, 1.0)

    def render(self) -> NDArray[np.uint8]:
        """The picture after the edit."""
        picture = render(self.scene)
        if self.light == (1.0, 1.0, 1.0):
            return picture
        lit: NDArray[np.uint8] = np.clip(picture * np.array(self.light, dtype=np.float32) + 0.5, 0, 255).astype(np.uint8)
        return lit


def draw_edit(scene: Scene, rng: np.random.Generator) -> Edit | None:
    """A random instruction and the scene after it, or None when the scene has no room for it.

    The Attacker's own instruction adds an object that is related to the one asked about, of the same colour, and lets the light drift a little, as
    image editors do.
    """
    kind = KINDS_OF_EDIT[int(rng.choice(len(WEIGHTS), p=WEIGHTS))]
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    present = [t.name for t in scene.things]
    if kind == "relight":
        word = tuple(LIGHTS)[int(rng.integers(len(LIGHTS)))]
        low, high, warmth = LIGHTS[word]
        return Edit(f"make the picture {word}", scene, gains(rng.uniform(low, high), warmth))
    if kind == "distract":
        return _distract(scene, rng)
    color, name = random_color(rng), _other(rng, NAMES, *present)
    alone = scene.count(thing.name) == 1
    if kind == "add" or (kind == "beside" and alone):
        new = stand(name, color, scene, beside=thing if kind == "beside" else None)
        if new is None:
            return None
        return Edit(f"add a {color} {name}" + (f" beside the {thing.name}" if kind == "beside" else ""), scene.with_thing(new))
    if not alone:
        return None
    if kind == "remove":
        return Edit(f"remove the {thing.name}", scene.without(index))
    if kind == "recolor":
        color = _other(rng, list(COLORS), thing.color)
        return Edit(f"make the {thing.name} {color}", scene.swapped(index, replace(thing, color=color)))
    new = instead(name, color, scene, index)
    return None if new is None else Edit(f"replace the {thing.name} with a {color} {name}", scene.swapped(index, new))


def _distract(scene: Scene, rng: np.random.Generator) -> Edit | None:
    asked = ask(scene, KINDS[int(rng.integers(len(KINDS)))], rng)
    if asked is None:
        return None
    name = related(asked.names[0], [*(t.name for t in scene.things), *asked.names])
    new = stand(name, (asked.about or scene.things)[0].color, scene)
    if new is None:
        return None
    return Edit(vocabulary.INSTRUCTION.format(question=asked.question), scene.with_thing(new), drift(rng, DRIFT, WARMTH, DIM))


def related(name: str, taken: Sequence[str]) -> str:
    """The first of the name's relatives after it that is not taken; any other name where all are."""
    (family,) = (names for names in RELATIVES if name in names)
    at = family.index(name)
    return next(other for other in (*family[at:], *family[:at], *NAMES) if other not in taken)


def stand(name: str, color: str, scene: Scene, beside: Thing | None = None) -> Thing | None:
    """A new thing, upright, at the free place farthest from all others, or nearest to `beside`. None where no place is free."""
    boxes = [thing.box for thing in scene.things]
    found = [(new, min(_gap(new.box, box) for box in boxes)) for new in _upright(name, color) if all(apart(new.box, box) for box in boxes)]
    if beside is None:
        return max(found, key=lambda pair: pair[1], default=(None, 0))[0]
    ax, ay = beside.center
    return min(found, key=lambda pair: (pair[0].center[0] - ax) ** 2 + (pair[0].center[1] - ay) ** 2, default=(None, 0))[0]


def instead(name: str, color: str, scene: Scene, index: int) -> Thing | None:
    """A new thing, upright, in the middle of thing number `index`. None where it would touch another one."""
    width, height = placed(name, color, ADDED, 0.0, False).size
    (x, y), boxes = scene.things[index].center, [thing.box for i, thing in enumerate(scene.things) if i != index]
    left, top = (int(np.clip(m - side / 2, 1, SIZE - side - 1)) for m, side in ((x, width), (y, height)))
    new = Thing(name, color, ADDED, 0.0, False, (left, top, left + width, top + height))
    return new if all(apart(new.box, box) for box in boxes) else None


def _upright(name: str, color: str) -> Iterator[Thing]:
    width, height = placed(name, color, ADDED, 0.0, False).size
    for y in LATTICE:
        for x in LATTICE:
            left, top = x - width // 2, y - height // 2
            yield Thing(name, color, ADDED, 0.0, False, (left, top, left + width, top + height))


def _gap(a: Box, b: Box) -> int:
    """Pixels between two boxes, along the axis where they are farther apart."""
    return max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])


def _other(rng: np.random.Generator, items: Sequence[str], *taken: str) -> str:
    """One of the items, none of `taken`."""
    left = [item for item in items if item not in taken]
    return left[int(rng.integers(len(left)))]
