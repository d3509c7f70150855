"""An opponent that nobody trained and that draws perfectly: its edit is the render of a changed scene.

It shows what content alone does to a Defender, without the skill, or the smudges, of an editor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion
from sparring.scenes.audit import asked_names
from sparring.scenes.dataset import SCENES
from sparring.scenes.sprites import NAMES
from sparring.scenes.world import SIZES, Scene, Thing, place, random_color, render

TRIES = 60  # draws of a place, for each of some names
NAMES_TRIED = 8


def other_thing(
    question: VisualQuestion, image: Image.Image, *, seed: int, sizes: Sequence[float] = SIZES
) -> tuple[Image.Image, str] | None:
    """A random thing that the question does not name: added, or put in the place of another that it does not
    name.

    For pictures that `write_questions` drew, whose scenes lie beside them; DataError for others. `sizes`:
    the smallest and the largest thing, pixels. None where no place is free. What the question asks about is
    left alone, so its answer stays right.
    """
    scene, asked = _scene(question), asked_names(question.question)
    if asked is None:
        raise DataError(
            f'question "{question.id}" is not worded like one about a scene: "{question.question}"'
        )
    rng = np.random.default_rng(seed)
    others = [index for index, thing in enumerate(scene.things) if thing.name not in asked]
    add_first = bool(rng.random() < 0.5)
    for adding in (add_first, not add_first):
        if not adding and not others:
            continue
        index = None if adding else others[int(rng.integers(len(others)))]
        new = _new_thing(scene, asked, index, (sizes[0], sizes[1]), rng)
        if new is None:
            continue
        changed = scene.with_thing(new) if index is None else scene.swapped(index, new)
        instead = (
            ""
            if index is None
            else f" in place of the {scene.things[index].color} {scene.things[index].name}"
        )
        return Image.fromarray(render(changed)), f"a {new.color} {new.name}{instead}"
    return None


def _new_thing(
    scene: Scene,
    asked: Sequence[str],
    index: int | None,
    sizes: tuple[float, float],
    rng: np.random.Generator,
) -> Thing | None:
    """At a free place, or over the middle of thing number `index`."""
    free = [name for name in NAMES if name not in asked and not scene.count(name)]
    taken = [thing.box for i, thing in enumerate(scene.things) if i != index]
    for place_in in rng.permutation(len(free))[:NAMES_TRIED]:
        color = random_color(rng)
        if index is None:
            new = place(rng, free[place_in], color, taken, sizes=sizes, tries=TRIES)
            if new is not None:
                return new
        else:
            drawn = (place(rng, free[place_in], color, taken, sizes=sizes, tries=4) for _ in range(TRIES))
            old = scene.things[index].center
            near = (
                new
                for new in drawn
                if new is not None and max(abs(a - b) for a, b in zip(new.center, old, strict=True)) < 7
            )
            if (chosen := next(near, None)) is not None:
                return chosen
    return None


def _scene(question: VisualQuestion) -> Scene:
    folder = question.image.parent.parent
    scenes: dict[str, Scene] = {}
    for path in sorted(folder.glob(f"*{SCENES}")):
        scenes |= _scenes(path, path.stat().st_mtime_ns)
    if question.image.stem not in scenes:
        raise DataError(
            f'question "{question.id}": the scene of {question.image} is not known: no file *{SCENES} in '
            f"{folder} describes it. "
            "This rival edits pictures that sparring.scenes.dataset:write_questions has drawn."
        )
    return scenes[question.image.stem]


@lru_cache(maxsize=8)
def _scenes(path: Path, version: int) -> dict[str, Scene]:
    """The scenes of a file by the names of their pictures; `version` only tells files of one path apart."""
    scenes = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        things = [Thing(**thing | {"box": tuple(thing["box"])}) for thing in row["things"]]
        scenes[row["picture"]] = Scene(row["background"], tuple(things))
    return scenes
