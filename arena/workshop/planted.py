"""Edits of known kind, and changes of light, on random scenes, and the oracle as the judge that looks.

What `sparring.judging.kinds` and `sparring.judging.light` are measured with.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparring.data.records import Box, Target
from sparring.judging.kinds import KINDS, Kind
from sparring_arena.oracle import SHARED, find, shared
from sparring_arena.questions import KINDS as QUESTIONS
from sparring_arena.questions import SceneQuestion, ask
from sparring_arena.world import SIZE, Scene, render, sample_scene
from workshop.edits import plain

Array = NDArray[np.float64]
HYBRIDS = (("replace", "add"), ("remove", "add"), ("replace", "remove"))
EDITED = ("add", "remove", "replace", "hybrid")
"""The kinds that follow from instructions."""
TRIES = 20  # random edits from which one that leaves alone what a question is about is looked for


@dataclass(frozen=True, slots=True)
class PlantedEdit:
    """A scene before and after edits of objects, the kind that they come to, and the instructions that ask
    for them one after the other.
    """

    before: Scene
    after: Scene
    kind: Kind
    instructions: tuple[str, ...]


def draw(seed: int, number: int, kinds: Sequence[str] = KINDS) -> list[PlantedEdit]:
    """So many random scenes with an edit, of these kinds in turn."""
    made: list[PlantedEdit] = []
    index = 0
    while len(made) < number:
        rng, index = np.random.default_rng([seed, index]), index + 1
        edit = plant(sample_scene(rng), kinds[len(made) % len(kinds)], rng)
        if edit is not None:
            made.append(edit)
    return made


def planted(seed: int, number: int) -> list[tuple[Image.Image, Image.Image, Kind]]:
    """(clean, edited, kind), the kinds in turn. Every second object edit drifts in light and carries a little
    noise.

    Every third replacement is a recolouring; every second imperceptible edit is one of `RELIGHT`, the others
    drift in light and carry noise.
    """
    made = []
    for index, edit in enumerate(draw(seed, number)):
        rng = np.random.default_rng([seed, index, 1])
        pixels, half = render(edit.after).astype(np.float64), rng.random() < 0.5
        if edit.kind == "imperceptible" and half:
            pixels = tuple(RELIGHT.values())[int(rng.integers(len(RELIGHT)))](pixels)
        elif edit.kind == "imperceptible" or (edit.kind != "unchanged" and half):
            warmth = rng.normal(0, 0.02) * np.array([1, 0, -1])
            pixels = pixels * np.exp(rng.normal(0, 0.06)) * (1 + warmth)
            pixels = pixels + rng.normal(0, rng.uniform(0, 3), pixels.shape)
        made.append((Image.fromarray(render(edit.before)), Image.fromarray(_bytes(pixels)), edit.kind))
    return made


def plant(scene: Scene, kind: str, rng: np.random.Generator) -> PlantedEdit | None:
    """A random edit of that kind, or None where the one that was drawn has no room or comes to another kind.
    Hybrids: replace and add, remove and add, replace and remove.
    """
    steps = (kind,) if kind in EDITED else ()
    if kind == "hybrid":
        steps = HYBRIDS[int(rng.integers(len(HYBRIDS)))]
    after, instructions = scene, []
    for step in steps:
        pair = plain(after, "recolor" if step == "replace" and rng.random() < 1 / 3 else step, rng)
        if pair is None:
            return None
        after = pair.after
        instructions.append(pair.instruction)
    found = kind_of(scene, after)
    if kind == "imperceptible" and found == "unchanged":
        found = kind
    return PlantedEdit(scene, after, found, tuple(instructions)) if found == kind else None


def kind_of(before: Scene, after: Scene) -> Kind:
    """What an edit of objects was, by what is in the scenes. What is new where something is gone has replaced
    it.
    """
    gone = [thing for thing in before.things if thing not in after.things]
    new = [thing for thing in after.things if thing not in before.things]
    pairs = [(a, b) for a in gone for b in new if not a.clear_of(b.column, b.row)]
    by_kind: dict[Kind, bool] = {
        "add": any(all(b is not other for _, other in pairs) for b in new),
        "remove": any(all(a is not other for other, _ in pairs) for a in gone),
        "replace": bool(pairs),
    }
    found = [kind for kind, some in by_kind.items() if some]
    return "unchanged" if not found else found[0] if len(found) == 1 else "hybrid"


def oracle_look(images: Sequence[Image.Image], boxes: Sequence[Box]) -> list[list[Target]]:
    """`Look` of `sparring.judging.kinds` by the oracle: colour and name of what is in each region."""
    return [
        [
            Target(f"{sighting.color} {sighting.name}", sighting.box)
            for sighting in find(np.asarray(image.convert("RGB")))
            if shared(sighting.box, box) > SHARED
        ]
        for image, box in zip(images, boxes, strict=True)
    ]


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
            scene = sample_scene(rng)
            asked = ask(scene, QUESTIONS[index % len(QUESTIONS)], rng)
            if asked is not None:
                break
        clean, boxes = render(scene), tuple(thing.box for thing in asked.about)

        def case(name: str, pixels: NDArray[Any], relit: bool = False) -> LightCase:
            return LightCase(clean, _bytes(pixels), boxes, name, relit)  # noqa: B023

        for name, change in RELIGHT.items():
            yield case(name, change(clean.astype(np.float64)), relit=True)
        yield case("unchanged", clean)
        yield case("re-encoded", reencoded(clean, 75))
        yield case("noise", clean + rng.normal(0, 4, clean.shape))
        for name, edit in {
            "add": "add",
            "remove other": "remove",
            "replace other": "replace",
            "recolor other": "recolor",
        }.items():
            after = aside(scene, asked, edit, rng)
            if after is not None:
                pixels = render(after)
                yield case(name, pixels)
                yield case(
                    f"{name}, re-encoded, noise", reencoded(pixels, 75) + rng.normal(0, 2, pixels.shape)
                )
                yield case(f"{name}, x 0.75", pixels * 0.75, relit=True)
        for share in (0.3, 0.45):
            pixels, side = clean.copy(), round(SIZE * share**0.5)
            x, y = (int(v) for v in rng.integers(0, SIZE - side + 1, 2))
            pixels[y : y + side, x : x + side] = rng.integers(0, 256, 3)
            for x0, y0, x1, y1 in boxes:
                pixels[y0:y1, x0:x1] = clean[y0:y1, x0:x1]
            yield case(f"a square over {share} of it", pixels)


def aside(scene: Scene, asked: SceneQuestion, edit: str, rng: np.random.Generator) -> Scene | None:
    """The scene after an edit that leaves alone all things of the names that the question mentions, or None
    where none is found.
    """
    for _ in range(TRIES):
        pair = plain(scene, edit, rng)
        if pair is not None and _named(scene, asked) == _named(pair.after, asked):
            return pair.after
    return None


def _named(scene: Scene, asked: SceneQuestion) -> set[object]:
    return {thing for thing in scene.things if thing.name in asked.names}


def reencoded(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The picture after JPEG of that quality."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def _bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.clip(np.asarray(pixels, dtype=np.float64) + 0.5, 0, 255).astype(np.uint8)
