"""Procedural scenes: coloured objects without overlap on a varied background, and what is in them, exactly.

A `Scene` is a pure description; `render` turns it into pixels, always the same ones. Pictures are `SIZE` x
`SIZE` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparring.data.records import Box
from sparring.scenes.sprites import ASSETS, COLORS, NAMES, placed

SIZE = 64
PHOTOS = ("brick", "grass", "gravel", "coffee", "chelsea")
SIZES = (18.0, 26.0)  # pixels, smallest and largest longest side of a thing
MARGIN = 1  # free pixels between two boxes


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: what it is, how it is drawn, and the box (pixels, half-open) of what is visible of it."""

    name: str
    color: str
    size: float
    angle: float
    mirror: bool
    box: Box

    @property
    def center(self) -> tuple[float, float]:
        """The middle of the box, (x, y) in pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def cell(self) -> tuple[int, int]:
        """(column, row) of the middle on an 8 x 8 grid, each 1 to 8."""
        x, y = self.center
        return int(x * 8 / SIZE) + 1, int(y * 8 / SIZE) + 1


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a picture: a background, by the seed it is drawn from, and the things before it."""

    background: int
    things: tuple[Thing, ...]

    def count(self, name: str) -> int:
        """How many things of that name there are."""
        return sum(thing.name == name for thing in self.things)

    def with_thing(self, thing: Thing) -> Scene:
        return replace(self, things=(*self.things, thing))

    def without(self, index: int) -> Scene:
        return replace(self, things=self.things[:index] + self.things[index + 1 :])

    def swapped(self, index: int, thing: Thing) -> Scene:
        """With another thing in the place of number `index`; the order of the others is kept."""
        return replace(self, things=(*self.things[:index], thing, *self.things[index + 1 :]))


def random_color(rng: np.random.Generator) -> str:
    """One of the colours."""
    return tuple(COLORS)[int(rng.integers(len(COLORS)))]


def apart(a: Box, b: Box, margin: int = MARGIN) -> bool:
    """The two boxes keep at least `margin` pixels between them."""
    return a[2] + margin <= b[0] or b[2] + margin <= a[0] or a[3] + margin <= b[1] or b[3] + margin <= a[1]


def place(
    rng: np.random.Generator,
    name: str,
    color: str,
    taken: Sequence[Box],
    sizes: tuple[float, float] = SIZES,
    tries: int = 30,
) -> Thing | None:
    """A thing of that name and colour at a free place, or None when `tries` draws found none."""
    size, angle, mirror = float(rng.uniform(*sizes)), float(rng.uniform(-20, 20)), bool(rng.random() < 0.5)
    width, height = placed(name, color, size, angle, mirror).size
    if width >= SIZE - 1 or height >= SIZE - 1:
        return None
    for _ in range(tries):
        x, y = int(rng.integers(1, SIZE - width)), int(rng.integers(1, SIZE - height))
        box = (x, y, x + width, y + height)
        if all(apart(box, other) for other in taken):
            return Thing(name, color, size, angle, mirror, box)
    return None


def sample_scene(
    rng: np.random.Generator,
    *,
    counts: Sequence[int] = (2, 3, 4),
    weights: Sequence[float] = (0.35, 0.4, 0.25),
    repeat: float = 0.3,
    sizes: tuple[float, float] = SIZES,
) -> Scene:
    """A random scene of so many things, of such sizes. With probability `repeat` one name comes up to three
    times (each in any colour); all other names are different.
    """
    while True:
        number = int(rng.choice(list(counts), p=list(weights)))
        names = [NAMES[i] for i in rng.permutation(len(NAMES))[:number]]
        if rng.random() < repeat and number > 1:
            for i in range(1, int(rng.integers(2, min(number, 3) + 1))):
                names[i] = names[0]
        things: list[Thing] = []
        for name in names:
            thing = place(rng, name, random_color(rng), [t.box for t in things], sizes=sizes)
            if thing is None:
                break
            things.append(thing)
        else:
            order = rng.permutation(len(things))
            return Scene(int(rng.integers(2**31)), tuple(things[i] for i in order))


def render(scene: Scene) -> NDArray[np.uint8]:
    """The picture, [SIZE, SIZE, 3]."""
    canvas = background(scene.background)
    for thing in scene.things:
        sprite = placed(thing.name, thing.color, thing.size, thing.angle, thing.mirror)
        rgba = np.asarray(sprite, dtype=np.float32)
        x, y = thing.box[:2]
        region = canvas[y : y + rgba.shape[0], x : x + rgba.shape[1]]
        region *= 1 - rgba[..., 3:] / 255
        region += rgba[..., :3]
    picture: NDArray[np.uint8] = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return picture


@cache
def _photo(name: str) -> Image.Image:
    with Image.open(ASSETS / "photos" / f"{name}.webp") as photo:
        return photo.convert("RGB").copy()


def background(seed: int) -> NDArray[np.float32]:
    """A calm background drawn from `seed`: a procedural texture or a crop of a photograph, [SIZE, SIZE, 3] in
    0 to 255.
    """
    rng = np.random.default_rng(seed)
    base = rng.uniform(70, 190, 3).mean() * 0.6 + rng.uniform(70, 190, 3) * 0.4
    other = np.clip(base + rng.normal(0, 22, 3), 40, 215)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    kind = int(rng.integers(7))
    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn)
    if kind == 0:  # a gradient
        mix = np.clip(along * 0.8 + 0.1, 0, 1)
    elif kind == 1:  # stripes
        mix = 0.5 + 0.5 * np.sin(along * 2 * np.pi * rng.uniform(2, 6))
    elif kind == 2:  # tiles
        n = int(rng.integers(2, 6))
        mix = ((np.floor(x * n) + np.floor(y * n)) % 2).astype(np.float32)
    elif kind == 3:  # a wall and a floor
        mix = (y > rng.uniform(0.45, 0.75)).astype(np.float32)
    elif kind == 4:  # wood
        mix = 0.5 + 0.5 * np.sin(
            30 * along + 3 * np.sin(6 * (x * np.sin(turn) + y * np.cos(turn)) + rng.uniform(0, 6))
        )
    elif kind == 5:  # clouds
        small = rng.random((5, 5)).astype(np.float32)
        mix = np.asarray(Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    else:  # a photograph, toned down
        photo = _photo(PHOTOS[int(rng.integers(len(PHOTOS)))])
        side = int(rng.integers(SIZE, photo.width + 1))
        left, top = int(rng.integers(photo.width - side + 1)), int(rng.integers(photo.height - side + 1))
        crop = photo.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BOX)
        pixels = np.asarray(crop, dtype=np.float32)
        return (0.4 * pixels + 0.6 * np.float32(base.mean())).astype(np.float32)
    mix = mix[..., None]
    texture: NDArray[np.float32] = (
        base * (1 - mix) + other * mix + rng.normal(0, rng.uniform(0, 2), (SIZE, SIZE, 1))
    ).astype(np.float32)
    return texture
