"""Instructions and what they make of a scene: the pairs that the bundled editor is trained on.

Where a new object stands, and how it is drawn, follows from the scene and the instruction alone. A small
editor that samples in a few steps paints the average of all that it thinks possible: one possibility is an
object, many are a smear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparring.scenes.questions import KINDS, ask
from sparring.scenes.sprites import COLORS, NAMES, placed
from sparring.scenes.world import Scene, Thing, apart, random_color, render
from sparring.zoo import vocabulary
from sparring.zoo.light import Gains, drift, gains

KINDS_OF_EDIT = ("add", "beside", "remove", "replace", "recolor", "distract", "relight")
WEIGHTS = (0.16, 0.06, 0.13, 0.2, 0.15, 0.27, 0.03)
# where what objects look like is all that can be learned
WINDOW_WEIGHTS = (0.3, 0.1, 0.08, 0.24, 0.12, 0.14, 0.02)
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
# The light of edits by the Attacker's instruction: mean and standard deviation of the logarithm of its gain,
# standard deviation of its warmth.
DIM, DRIFT, WARMTH = -0.08, 0.24, 0.08
LIGHTS = {
    "darker": (-0.4, -0.2, 0.0),
    "brighter": (0.15, 0.35, 0.0),
    "warmer": (-0.05, 0.05, 0.12),
    "colder": (-0.05, 0.05, -0.12),
}
ADDED = 20.0  # pixels, longest side of a new object
# Where the middle of a new object may be, in the order in which these places are tried. All have one
# remainder by the 8 pixels of a latent token, so that an object looks the same in all of them.
PLACES = ((12, 12), (52, 52), (52, 12), (12, 52), (36, 12), (36, 52), (12, 36), (52, 36), (36, 36))
STEP = 8


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
        lit: NDArray[np.uint8] = np.clip(
            picture * np.array(self.light, dtype=np.float32) + 0.5, 0, 255
        ).astype(np.uint8)
        return lit


def draw_edit(scene: Scene, rng: np.random.Generator, weights: Sequence[float] = WEIGHTS) -> Edit | None:
    """A random instruction and the scene after it, or None when the scene has no room for it.

    The Attacker's own instruction adds an object that is related to the one asked about, of the same colour,
    and lets the light drift a little, as image editors do.
    """
    kind = KINDS_OF_EDIT[int(rng.choice(len(weights), p=weights))]
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
        return Edit(
            f"add a {color} {name}" + (f" beside the {thing.name}" if kind == "beside" else ""),
            scene.with_thing(new),
        )
    if not alone:
        return None
    if kind == "remove":
        return Edit(f"remove the {thing.name}", scene.without(index))
    if kind == "recolor":
        color = _other(rng, list(COLORS), thing.color)
        return Edit(f"make the {thing.name} {color}", scene.swapped(index, replace(thing, color=color)))
    new = instead(name, color, scene, index)
    return (
        None
        if new is None
        else Edit(f"replace the {thing.name} with a {color} {name}", scene.swapped(index, new))
    )


def _distract(scene: Scene, rng: np.random.Generator) -> Edit | None:
    asked = ask(scene, KINDS[int(rng.integers(len(KINDS)))], rng)
    if asked is None:
        return None
    name = related(asked.names[0], [*(t.name for t in scene.things), *asked.names])
    new = stand(name, (asked.about or scene.things)[0].color, scene)
    if new is None:
        return None
    return Edit(
        vocabulary.INSTRUCTION.format(question=asked.question),
        scene.with_thing(new),
        drift(rng, DRIFT, WARMTH, DIM),
    )


def related(name: str, taken: Sequence[str]) -> str:
    """The first of the name's relatives after it that is not taken; any other name where all are."""
    (family,) = (names for names in RELATIVES if name in names)
    at = family.index(name)
    return next(other for other in (*family[at:], *family[:at], *NAMES) if other not in taken)


def stand(name: str, color: str, scene: Scene, beside: Thing | None = None) -> Thing | None:
    """A new thing, upright, at the first free place, or at the one nearest to `beside`. None where no place
    is free.
    """
    free = (
        new
        for new in (_upright(name, color, place) for place in PLACES)
        if all(apart(new.box, thing.box) for thing in scene.things)
    )
    if beside is None:
        return next(free, None)
    ax, ay = beside.center
    return min(free, key=lambda new: (new.center[0] - ax) ** 2 + (new.center[1] - ay) ** 2, default=None)


def instead(name: str, color: str, scene: Scene, index: int) -> Thing | None:
    """A new thing, upright, over the middle of thing number `index` as nearly as the steps of `PLACES` allow.
    None where it would touch another one.
    """
    middle = [
        int(np.clip(round((m - PLACES[0][0]) / STEP), 0, 5)) * STEP + PLACES[0][0]
        for m in scene.things[index].center
    ]
    new = _upright(name, color, (middle[0], middle[1]))
    return (
        new if all(apart(new.box, thing.box) for i, thing in enumerate(scene.things) if i != index) else None
    )


def _upright(name: str, color: str, middle: tuple[int, int]) -> Thing:
    width, height = placed(name, color, ADDED, 0.0, False).size
    left, top = middle[0] - width // 2, middle[1] - height // 2
    return Thing(name, color, ADDED, 0.0, False, (left, top, left + width, top + height))


def _other(rng: np.random.Generator, items: Sequence[str], *taken: str) -> str:
    """One of the items, none of `taken`."""
    left = [item for item in items if item not in taken]
    return left[int(rng.integers(len(left)))]
