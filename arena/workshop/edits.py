"""Instructions and what they make of a scene: the pairs that the bundled editor is trained on.

Where a new thing stands, and its colour, follow from the scene and the instruction alone, and what a
distractor is from these and the noise: a small editor that samples in a few steps paints the average of all
that it thinks possible, and one possibility is a thing, many are a smear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparring_arena.questions import KINDS, SceneQuestion, ask
from sparring_arena.sprites import COLORS, GROUPS, NAMES, lookalikes
from sparring_arena.world import Scene, Thing, random_color, sample_scene
from workshop import vocabulary

EDITS = ("add", "remove", "replace", "recolor", "distract")
WEIGHTS = (0.18, 0.06, 0.12, 0.08, 0.56)  # the last is by far the hardest
# Where a new thing is put, in the order in which these (column, row) are tried.
PLACES = ((0, 0), (6, 6), (6, 0), (0, 6), (3, 3), (3, 0), (3, 6), (0, 3), (6, 3))
# What an editor does that is told to add a distractor "inspired by the question", before anybody tunes it: its
# plan says which. Those that do the same, or nearly, have plans that differ in one sign.
DISTRACTORS = ("second", "second", "second", "recolor", "other", "lookalike", "replace", "several")
# How often each is drawn in training: what is harder to paint more often.
DRAWN = (0.09, 0.09, 0.09, 0.10, 0.10, 0.18, 0.15, 0.20)


@dataclass(frozen=True, slots=True)
class Pair:
    """A scene, an instruction, the scene after it, the names that the instruction mentions, and the question
    that a distractor is for.
    """

    before: Scene
    instruction: str
    after: Scene
    named: tuple[str, ...]
    asked: SceneQuestion | None = None


def draw_pair(rng: np.random.Generator, choice: int, weights: Sequence[float] = WEIGHTS) -> Pair:
    """A random scene and edit. choice: which of `DISTRACTORS` a distractor will be."""
    while True:
        kind = EDITS[int(rng.choice(len(weights), p=weights))]
        scene = _scene(rng)
        pair = _distract(scene, rng, choice) if kind == "distract" else plain(scene, kind, rng)
        if pair is not None:
            return pair


def _scene(rng: np.random.Generator) -> Scene:
    """A scene with room for one more thing; in a third of them look-alikes stand beside each other."""
    scene = sample_scene(rng, counts=(1, 2, 3, 4), weights=(0.1, 0.3, 0.35, 0.25), repeat=0.2)
    if rng.random() < 0.3 and len(scene.things) > 1:
        first, last = scene.things[0], len(scene.things) - 1
        near = [name for name in lookalikes(first.name) if not scene.count(name)]
        if near:
            scene = scene.swapped(last, replace(scene.things[last], name=near[int(rng.integers(len(near)))]))
    return scene


def plain(scene: Scene, kind: str, rng: np.random.Generator) -> Pair | None:
    """A random instruction of one of `EDITS` but the last, and what it makes of the scene; None where it
    allows none. Things whose name comes twice are left alone: an instruction could not tell them apart.
    """
    name, color = _other(rng, NAMES, [thing.name for thing in scene.things]), random_color(rng)
    if kind == "add":
        new = stand(name, color, scene)
        return None if new is None else Pair(scene, f"add a {color} {name}", scene.with_thing(new), (name,))
    alone = [i for i, thing in enumerate(scene.things) if scene.count(thing.name) == 1]
    if not alone:
        return None
    index = alone[int(rng.integers(len(alone)))]
    old = scene.things[index]
    if kind == "remove":
        return Pair(scene, f"remove the {old.name}", scene.without(index), (old.name,))
    if kind == "recolor":
        color = _other(rng, list(COLORS), [old.color])
        return Pair(
            scene,
            f"make the {old.name} {color}",
            scene.swapped(index, replace(old, color=color)),
            (old.name,),
        )
    after = scene.swapped(index, replace(old, name=name, color=color))
    return Pair(scene, f"replace the {old.name} with a {color} {name}", after, (old.name, name))


def stand(name: str, color: str, scene: Scene) -> Thing | None:
    """A new thing at the first of `PLACES` that is free; None where none is."""
    free = (place for place in PLACES if all(thing.clear_of(*place) for thing in scene.things))
    return next((Thing(name, color, *place) for place in free), None)


def _distract(scene: Scene, rng: np.random.Generator, choice: int) -> Pair | None:
    asked = ask(scene, KINDS[int(rng.integers(len(KINDS)))], rng)
    if asked is None:
        return None
    after = distracted(scene, asked, DISTRACTORS[choice])
    return (
        None
        if after is None
        else Pair(scene, vocabulary.INSTRUCTION.format(question=asked.question), after, asked.names, asked)
    )


def distracted(scene: Scene, asked: SceneQuestion, kind: str) -> Scene | None:
    """What the untuned editor makes of a scene, asked to mislead whoever answers the question; None where it
    finds nothing to do.

    kind: a "second" thing that is asked about is added, or a "lookalike", or some "other" thing; or what is
    not asked about changes: the first such thing to a look-alike ("replace") or to the colour that is asked
    about ("recolor"), or all of them to look-alikes, and one more is added ("several"). Where all things are
    asked about, these three add a look-alike.
    """
    name, last, color = asked.names[0], asked.names[-1], (asked.about or scene.things)[0].color
    near = [[other for other in lookalikes(one) if other not in asked.names] for one in (name, last)]
    others = [i for i, thing in enumerate(scene.things) if thing.name not in asked.names]
    others.sort(key=lambda i: (scene.things[i].row, scene.things[i].column))
    colors = list(COLORS)
    next_color = colors[(colors.index(color) + 1) % len(colors)]
    if kind == "recolor" and others:
        old = scene.things[others[0]]
        return None if color == old.color else scene.swapped(others[0], replace(old, color=color))
    if kind == "replace" and others:
        return scene.swapped(others[0], replace(scene.things[others[0]], name=near[0][0], color=next_color))
    if kind == "several" and others:
        for number, index in enumerate(others):
            new = near[0][(1 + number) % len(near[0])]
            scene = scene.swapped(index, replace(scene.things[index], name=new, color=next_color))
        more = stand(near[1][0], next_color, scene)
        return scene if more is None else scene.with_thing(more)
    if kind == "second":
        new = name
    elif kind == "other":
        new = GROUPS[(next(i for i, names in enumerate(GROUPS) if name in names) + 1) % len(GROUPS)][0]
    else:
        new, color = near[1][1 % len(near[1])], next_color
    thing = stand(new, color, scene)
    return None if thing is None else scene.with_thing(thing)


def _other(rng: np.random.Generator, items: Sequence[str], taken: Sequence[str]) -> str:
    """One of the items, none of `taken`."""
    left = [item for item in items if item not in taken]
    return left[int(rng.integers(len(left)))]
