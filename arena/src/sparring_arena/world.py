"""Procedural scenes: coloured things on a grid, before a varied background, and what is in them, exactly.

A `Scene` is a pure description; `render` turns it into pixels, always the same ones. Pictures are `SIZE` x
`SIZE` pixels. A thing takes a block of `BLOCK` x `BLOCK` cells of `CELL` pixels; blocks do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparring.data.records import Box
from sparring_arena.sprites import ASSETS, COLORS, GROUPS, NAMES, lookalikes, sprite

SIZE = 72
CELL = 8
BLOCK = 3
PLACES = SIZE // CELL - BLOCK + 1  # columns, and rows, that a block may begin in
PHOTOS = ("brick", "grass", "gravel", "coffee", "chelsea")


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing: what it is, its colour, and the column and row (0 to `PLACES` - 1) in which its block
    begins.
    """

    name: str
    color: str
    column: int
    row: int

    @property
    def box(self) -> Box:
        """The box (pixels, half-open) of what is visible of it: in the middle of its block."""
        width, height = sprite(self.name, self.color).size
        x = self.column * CELL + (BLOCK * CELL - width) // 2
        y = self.row * CELL + (BLOCK * CELL - height) // 2
        return x, y, x + width, y + height

    @property
    def center(self) -> tuple[float, float]:
        """The middle of the block, (x, y) in pixels."""
        return (self.column + BLOCK / 2) * CELL, (self.row + BLOCK / 2) * CELL

    def clear_of(self, column: int, row: int) -> bool:
        """Its block shares no cell with a block that begins there."""
        return abs(self.column - column) >= BLOCK or abs(self.row - row) >= BLOCK


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

    def free(self) -> list[tuple[int, int]]:
        """The (column, row) of every place where a block is clear of all things, row by row."""
        return list(_clear(self.things))


def _clear(things: Sequence[Thing], places: int = PLACES) -> Iterator[tuple[int, int]]:
    for row in range(places):
        for column in range(places):
            if all(thing.clear_of(column, row) for thing in things):
                yield column, row


def random_color(rng: np.random.Generator) -> str:
    """One of the colours."""
    return tuple(COLORS)[int(rng.integers(len(COLORS)))]


def place(
    rng: np.random.Generator, name: str, color: str, things: Sequence[Thing], places: int = PLACES
) -> Thing | None:
    """A thing of that name and colour at a free place beside those things, or None when no place is free.

    places: columns, and rows, that its block may begin in; more than `PLACES` in a larger picture.
    """
    free = list(_clear(things, places))
    return Thing(name, color, *free[int(rng.integers(len(free)))]) if free else None


def sample_scene(
    rng: np.random.Generator,
    *,
    counts: Sequence[int] = (2, 3, 4),
    weights: Sequence[float] = (0.35, 0.4, 0.25),
    repeat: float = 0.3,
    narrow: bool = False,
) -> Scene:
    """A random scene of so many things, with room for one more.

    With probability `repeat` one name comes up to three times (each in any colour); all other names differ.
    `narrow`: no two different things of one group are together.
    """
    while True:
        number = int(rng.choice(list(counts), p=list(weights)))
        if narrow:
            names = [
                group[int(rng.integers(len(group)))]
                for group in (GROUPS[i] for i in rng.permutation(len(GROUPS))[:number])
            ]
        else:
            names = [NAMES[i] for i in rng.permutation(len(NAMES))[:number]]
        if rng.random() < repeat and number > 1:
            for i in range(1, int(rng.integers(2, min(number, 3) + 1))):
                names[i] = names[0]
        things: list[Thing] = []
        for name in names:
            thing = place(rng, name, random_color(rng), things)
            if thing is None:
                break
            things.append(thing)
        else:
            order = rng.permutation(len(things))
            scene = Scene(int(rng.integers(2**31)), tuple(things[i] for i in order))
            if scene.free():
                return scene


def add_lookalike(scene: Scene, name: str, rng: np.random.Generator) -> Scene | None:
    """The scene with a thing, at a random free place and of a random colour, that looks like `name` and is
    not.
    """
    others = [other for other in lookalikes(name) if not scene.count(other)] or list(lookalikes(name))
    thing = place(rng, others[int(rng.integers(len(others)))], random_color(rng), scene.things)
    return None if thing is None else scene.with_thing(thing)


def render(scene: Scene) -> NDArray[np.uint8]:
    """The picture, [SIZE, SIZE, 3]."""
    return paint(background(scene.background), scene.things)


def paint(canvas: NDArray[np.float32], things: Sequence[Thing]) -> NDArray[np.uint8]:
    """The picture, [height, width, 3], of those things before that background: a canvas of the same shape, in
    0 to 255, that is drawn on.
    """
    for thing in things:
        rgba = np.asarray(sprite(thing.name, thing.color), dtype=np.float32)
        x0, y0, x1, y1 = thing.box
        region = canvas[y0:y1, x0:x1]
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
