"""Edits of known kind on random scenes, and the oracle as the judge that looks: what the accuracy of `sparring.judging.kinds` is measured with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sparring.data.records import Box, Target
from sparring.judging.kinds import KINDS, Kind
from sparring.scenes.oracle import Fit, find, identify
from sparring.scenes.sprites import NAMES
from sparring.scenes.world import SIZE, Scene, place, random_color, render, sample_scene
from sparring.zoo.light import drift

SIZES = (16, 26)
NEAR = 7  # pixels between the middles of a thing and of what replaces it
WIDE = 30  # pixels: the side from which a region may hold several things


def planted(seed: int, number: int) -> list[tuple[Image.Image, Image.Image, Kind]]:
    """(clean, edited, kind), the kinds in turn. Every second object edit also drifts in light and carries a little noise, as an editor's do."""
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
        if kind == "imperceptible" or rng.random() < 0.5:
            pixels = pixels * np.array(drift(rng, 0.06, 0.02)) + rng.normal(0, rng.uniform(0, 3), pixels.shape)
        edited = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
        made.append((Image.fromarray(render(scene)), edited, kind))
    return made


def plant(scene: Scene, kind: Kind, rng: np.random.Generator) -> Scene | None:
    """The scene after an edit of that kind, or None where it has no room. Hybrids: replace and add, remove and add, replace and remove."""
    steps: tuple[str, ...] = {"imperceptible": ()}.get(kind, (kind,))
    if kind == "hybrid":
        steps = (("replace", "add"), ("remove", "add"), ("replace", "remove"))[int(rng.integers(3))]
    before = scene
    for step in steps:
        free = [name for name in NAMES if not scene.count(name) and not before.count(name)]
        name = free[int(rng.integers(len(free)))]
        # Things of an earlier step are left alone; and what is added does not stand where something was taken away.
        able = [i for i, thing in enumerate(scene.things) if thing in before.things]
        if step == "add":
            new = place(rng, name, random_color(rng), [t.box for t in (*scene.things, *before.things)], sizes=SIZES, tries=60)
            after = None if new is None else scene.with_thing(new)
        elif not able or len(scene.things) < 2:
            return None
        elif step == "remove":
            after = scene.without(able[int(rng.integers(len(able)))])
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
    near = [new for new in found if new is not None and max(abs(a - b) for a, b in zip(new.center, old, strict=True)) < NEAR]
    return scene.swapped(index, near[0]) if near else None


def oracle_look(images: Sequence[Image.Image], boxes: Sequence[Box]) -> list[list[Target]]:
    """`Look` of `sparring.judging.kinds` by the scenes' oracle: colour and name of what is in each region."""
    return [
        [Target(f"{fit.thing.color} {fit.thing.name}", fit.thing.box) for fit in _look(*each)] for each in zip(images, boxes, strict=True)
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
