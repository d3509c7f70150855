"""Questions about a scene, with exact answers and the boxes of what they are about.

Four kinds: relative position (as in V*), attribute, existence (as in POPE, half of them "no") and counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparring.scenes.sprites import COLORS, NAMES, plural
from sparring.scenes.world import Scene, Thing

Kind = Literal["position", "attribute", "existence", "counting"]
KINDS: tuple[Kind, ...] = ("position", "attribute", "existence", "counting")
DIRECTIONS = ("left", "right", "above", "below")
NUMBERS = ("zero", "one", "two", "three", "four", "five")


@dataclass(frozen=True, slots=True)
class SceneQuestion:
    """A question in words, its options in order, the index of the right one, and the things that it
    is about.
    """

    kind: Kind
    question: str
    options: tuple[str, ...]
    right: int
    about: tuple[Thing, ...]
    names: tuple[str, ...]
    """The names that the question mentions, in its order (also when no such thing is there)."""

    @property
    def answer(self) -> str:
        return self.options[self.right]


def direction(a: Thing, b: Thing) -> str | None:
    """Where `a` is as seen from `b`, or None when that is not plain to see."""
    dx, dy = a.center[0] - b.center[0], a.center[1] - b.center[1]
    if max(abs(dx), abs(dy)) < 12 or max(abs(dx), abs(dy)) < 1.6 * min(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def ask(scene: Scene, kind: Kind, rng: np.random.Generator) -> SceneQuestion | None:
    """A question of that kind about the scene, or None when the scene allows none."""
    singles = [thing for thing in scene.things if scene.count(thing.name) == 1]
    if kind == "position":
        pairs = [(a, b) for a in singles for b in singles if a is not b and direction(a, b)]
        if not pairs:
            return None
        a, b = pairs[int(rng.integers(len(pairs)))]
        text = f"Where is the {a.name} relative to the {b.name}?"
        return _multiple_choice(kind, text, str(direction(a, b)), DIRECTIONS, (a, b), (a.name, b.name), rng)
    if kind == "attribute":
        if not singles:
            return None
        a = singles[int(rng.integers(len(singles)))]
        wrong = [color for color in COLORS if color != a.color]
        options = [a.color, *(wrong[i] for i in rng.permutation(len(wrong))[:3])]
        return _multiple_choice(kind, f"What color is the {a.name}?", a.color, options, (a,), (a.name,), rng)
    if kind == "existence":
        if rng.random() < 0.5:
            a = scene.things[int(rng.integers(len(scene.things)))]
            about = tuple(thing for thing in scene.things if thing.name == a.name)
            return _multiple_choice(
                kind, f"Is there a {a.name} in the picture?", "yes", ("yes", "no"), about, (a.name,), rng
            )
        absent = [name for name in NAMES if not scene.count(name)]
        name = absent[int(rng.integers(len(absent)))]
        return _multiple_choice(
            kind, f"Is there a {name} in the picture?", "no", ("yes", "no"), (), (name,), rng
        )
    most = max(scene.count(thing.name) for thing in scene.things)
    # Repeated objects are asked about more often than they occur, or "one" would nearly always be right.
    pool = (
        [thing for thing in scene.things if scene.count(thing.name) == most]
        if rng.random() < 0.8
        else list(scene.things)
    )
    name = pool[int(rng.integers(len(pool)))].name
    about = tuple(thing for thing in scene.things if thing.name == name)
    text = f"How many {plural(name)} are in the picture?"
    return _multiple_choice(kind, text, NUMBERS[len(about)], NUMBERS[1:5], about, (name,), rng)


def _multiple_choice(
    kind: Kind,
    text: str,
    answer: str,
    options: tuple[str, ...] | list[str],
    about: tuple[Thing, ...],
    names: tuple[str, ...],
    rng: np.random.Generator,
) -> SceneQuestion:
    shuffled = tuple(options[i] for i in rng.permutation(len(options)))
    return SceneQuestion(kind, text, shuffled, shuffled.index(answer), about, names)


def sightings(scene: Scene, asked: SceneQuestion) -> list[tuple[str, Thing | None]]:
    """What the reply goes through: each name asked about with the things that bear it, in reading order, or
    None.
    """
    seen: list[tuple[str, Thing | None]] = []
    for name in asked.names:
        things = sorted(
            (t for t in scene.things if t.name == name), key=lambda t: (t.cell[1], t.cell[0], t.center)
        )
        seen += [(name, thing) for thing in things] or [(name, None)]
    return seen


def reasoning(scene: Scene, asked: SceneQuestion) -> str:
    """The short reasoned reply that the bundled Defender learns: each thing asked about, its colour and cell,
    then the answer.

    For example `cup red 2 5, bottle blue 6 4, left \\boxed{A}` or `cup no, no \\boxed{B}`; cells are
    (column, row) of 8. The name comes first: it is what the model looks for in the picture. Things of one
    name come in reading order.
    """
    return f"{thought(scene, asked)} \\boxed{{{chr(65 + asked.right)}}}"


def thought(scene: Scene, asked: SceneQuestion) -> str:
    """That reply without the boxed letter."""
    seen = [
        f"{name} {t.color} {t.cell[0]} {t.cell[1]}" if t else f"{name} no"
        for name, t in sightings(scene, asked)
    ]
    return f"{', '.join(seen)}, {asked.answer}"
