"""Edits of known kind, and changes of light, on random scenes, and the oracle as the judge that looks.

What `sparring.judging.kinds` and `sparring.judging.light` are measured with.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparring.data.records import Box, Target
from sparring.judging.kinds import KINDS, Kind
from sparring.scenes.audit import plant as plant_answered
from sparring.scenes.oracle import Fit, find, identify
from sparring.scenes.questions import KINDS as QUESTIONS
from sparring.scenes.questions import ask
from sparring.scenes.sprites import NAMES
from sparring.scenes.world import SIZE, Scene, place, random_color, render, sample_scene
from sparring.zoo.light import drift

Array = NDArray[np.float64]
SIZES = (16, 26)
NEAR = 7  # pixels between the middles of a thing and of what replaces it
WIDE = 30  # pixels: the side from which a region may hold several things


def planted(seed: int, number: int) -> list[tuple[Image.Image, Image.Image, Kind]]:
    """(clean, edited, kind), the kinds in turn. Every second object edit drifts in light and carries a little
    noise.

    Every third replacement is a recolouring; every second imperceptible edit is one of `RELIGHT`, the others
    drift in light and carry noise.
    """
    made: list[tuple[Image.Image, Image.Image, Kind]] = []
    index = 0
    while len(made) < number:
        rng = np.random.default_rng([seed, index])
        kind = KINDS[len(made) % len(KINDS)]
        scene = sample_scene(rng, sizes=SIZES)
        after, index = plant(scene, kind, rng), index + 1
        if after is None:
            continue
        pixels = render(after).astype(np.float32)
        if kind == "imperceptible" and rng.random() < 0.5:
            pixels = tuple(RELIGHT.values())[int(rng.integers(len(RELIGHT)))](
                pixels.astype(np.float64)
            ).astype(np.float32)
        elif kind != "unchanged" and (kind == "imperceptible" or rng.random() < 0.5):
            pixels = pixels * np.array(drift(rng, 0.06, 0.02)) + rng.normal(
                0, rng.uniform(0, 3), pixels.shape
            )
        edited = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
        made.append((Image.fromarray(render(scene)), edited, kind))
    return made


def plant(scene: Scene, kind: Kind, rng: np.random.Generator) -> Scene | None:
    """The scene after an edit of that kind, or None where it has no room. Hybrids: replace and add, remove
    and add, replace and remove.
    """
    steps: tuple[str, ...] = {"imperceptible": (), "unchanged": ()}.get(kind, (kind,))
    if kind == "hybrid":
        steps = (("replace", "add"), ("remove", "add"), ("replace", "remove"))[int(rng.integers(3))]
    before = scene
    for step in steps:
        free = [name for name in NAMES if not scene.count(name) and not before.count(name)]
        name = free[int(rng.integers(len(free)))]
        # Things of an earlier step are left alone; and what is added does not stand where something was taken
        # away.
        able = [i for i, thing in enumerate(scene.things) if thing in before.things]
        if step == "add":
            new = place(
                rng,
                name,
                random_color(rng),
                [t.box for t in (*scene.things, *before.things)],
                sizes=SIZES,
                tries=60,
            )
            after = None if new is None else scene.with_thing(new)
        elif not able or len(scene.things) < 2:
            return None
        elif step == "remove":
            after = scene.without(able[int(rng.integers(len(able)))])
        elif rng.random() < 1 / 3:
            index = able[int(rng.integers(len(able)))]
            color = random_color(rng)
            thing = scene.things[index]
            after = None if color == thing.color else scene.swapped(index, replace(thing, color=color))
        else:
            after = _replaced(scene, able[int(rng.integers(len(able)))], name, rng)
        if after is None:
            return None
        scene = after
    return scene


def _replaced(scene: Scene, index: int, name: str, rng: np.random.Generator) -> Scene | None:
    """With a thing of that name and any colour nearly in the place of number `index`."""
    others = [thing.box for i, thing in enumerate(scene.things) if i != index]
    found = [place(rng, name, random_color(rng), others, sizes=SIZES, tries=4) for _ in range(80)]
    old = scene.things[index].center
    near = [
        new
        for new in found
        if new is not None and max(abs(a - b) for a, b in zip(new.center, old, strict=True)) < NEAR
    ]
    return scene.swapped(index, near[0]) if near else None


def oracle_look(images: Sequence[Image.Image], boxes: Sequence[Box]) -> list[list[Target]]:
    """`Look` of `sparring.judging.kinds` by the scenes' oracle: colour and name of what is in each region."""
    return [
        [Target(f"{fit.thing.color} {fit.thing.name}", fit.thing.box) for fit in _look(*each)]
        for each in zip(images, boxes, strict=True)
    ]


def _look(image: Image.Image, box: Box) -> list[Fit]:
    x0, y0, x1, y1 = box
    pixels = np.asarray(image.convert("RGB"))
    if max(x1 - x0, y1 - y0) < WIDE:
        fit = identify(pixels, ((x0 + x1) / 2, (y0 + y1) / 2))
        return [] if fit is None else [fit]
    region = np.zeros((SIZE, SIZE), dtype=bool)
    region[y0:y1, x0:x1] = True
    return find(pixels, changed=region)


RELIGHT: dict[str, Callable[[Array], Array]] = {
    "x 0.6": lambda pixels: pixels * 0.6,
    "x 0.75": lambda pixels: pixels * 0.75,
    "x 1.25": lambda pixels: pixels * 1.25,
    "x 1.4": lambda pixels: pixels * 1.4,
    "25 levels more": lambda pixels: pixels + 25,
    "warm": lambda pixels: pixels * np.array([1.15, 1, 0.85]),
    "cold": lambda pixels: pixels * np.array([0.85, 1, 1.15]),
    "half the contrast": lambda pixels: pixels.mean() + 0.5 * (pixels - pixels.mean()),
    "contrast x 0.7": lambda pixels: pixels.mean() + 0.7 * (pixels - pixels.mean()),
    "contrast x 1.5": lambda pixels: pixels.mean() + 1.5 * (pixels - pixels.mean()),
}
"""Changes of light that a guard of the light must refuse, on pixels in 0 to 255."""


@dataclass(frozen=True, slots=True)
class LightCase:
    """A picture, an edit, the boxes of what its question is about, what was done, and whether the light was
    changed.
    """

    clean: NDArray[np.uint8]
    edited: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    name: str
    relit: bool


def light_cases(seed: int, scenes: int) -> Iterator[LightCase]:
    """Of every scene: each change of light, alone and x 0.75 over an edit of objects; edits of objects alone.

    The objects that are edited are not asked about. "Large" distractors are plain squares over 0.3 and 0.45
    of the picture, the boxes left out.
    """
    for index in range(scenes):
        rng = np.random.default_rng([seed, index])
        while True:
            scene = sample_scene(rng, sizes=SIZES)
            asked = ask(scene, QUESTIONS[index % len(QUESTIONS)], rng)
            if asked is not None:
                break
        clean, boxes = render(scene), tuple(thing.box for thing in asked.about)

        def case(name: str, pixels: NDArray[Any], relit: bool = False) -> LightCase:
            edited = np.clip(np.asarray(pixels, dtype=np.float64) + 0.5, 0, 255).astype(np.uint8)
            return LightCase(clean, edited, boxes, name, relit)  # noqa: B023

        for name, change in RELIGHT.items():
            yield case(name, change(clean.astype(np.float64)), relit=True)
        yield case("unchanged", clean)
        yield case("re-encoded", reencoded(clean, 75))
        yield case("noise", clean + rng.normal(0, 4, clean.shape))
        for edit in ("add", "remove other", "replace other", "recolor other"):
            after = plant_answered(scene, asked, edit, rng)
            if after is not None:
                pixels = render(after)
                yield case(edit, pixels)
                yield case(
                    f"{edit}, re-encoded, noise", reencoded(pixels, 75) + rng.normal(0, 2, pixels.shape)
                )
                yield case(f"{edit}, x 0.75", pixels * 0.75, relit=True)
        for share in (0.3, 0.45):
            pixels, side = clean.copy(), round(SIZE * share**0.5)
            x, y = (int(v) for v in rng.integers(0, SIZE - side + 1, 2))
            pixels[y : y + side, x : x + side] = rng.integers(0, 256, 3)
            for x0, y0, x1, y1 in boxes:
                pixels[y0:y1, x0:x1] = clean[y0:y1, x0:x1]
            yield case(f"a square over {share} of it", pixels)


def reencoded(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The picture after JPEG of that quality."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))
