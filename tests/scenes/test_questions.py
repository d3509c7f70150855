"""Questions: every answer is worked out a second time, from the text and the scene alone."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from sparring.scenes.questions import KINDS, Kind, SceneQuestion, ask, direction, reasoning
from sparring.scenes.sprites import COLORS, NAMES, plural
from sparring.scenes.world import Scene, Thing, sample_scene


def thing(name: str, x: int, y: int, color: str = "red", side: int = 10) -> Thing:
    return Thing(name, color, 20.0, 0.0, False, (x, y, x + side, y + side))


def drawn(kind: Kind, number: int, seed: int = 5) -> list[tuple[Scene, SceneQuestion]]:
    found, i = [], 0
    while len(found) < number:
        rng = np.random.default_rng([seed, i])
        scene = sample_scene(rng)
        asked = ask(scene, kind, rng)
        if asked is not None:
            found.append((scene, asked))
        i += 1
    return found


def named(scene: Scene, name: str) -> list[Thing]:
    return [thing for thing in scene.things if thing.name == name]


@pytest.mark.parametrize(
    ("dx", "dy", "word"),
    [
        (-30, 0, "left"),
        (30, 5, "right"),
        (0, -30, "above"),
        (5, 30, "below"),
        (20, 20, None),
        (8, 0, None),
        (-20, 13, None),
    ],
)
def test_direction_is_seen_from_the_second_thing(dx: int, dy: int, word: str | None) -> None:
    other = thing("bottle", 30, 30)
    assert direction(thing("cup", 30 + dx, 30 + dy), other) == word


def test_position_answers() -> None:
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    for scene, asked in drawn("position", 60):
        match = re.fullmatch(r"Where is the (\w+) relative to the (\w+)\?", asked.question)
        assert match
        (a,), (b,) = named(scene, match[1]), named(scene, match[2])
        (ax, ay), (bx, by) = a.center, b.center
        axis = {"left": bx - ax, "right": ax - bx, "above": by - ay, "below": ay - by}
        assert asked.answer == max(axis, key=lambda word: axis[word])
        assert axis[asked.answer] > 0
        assert axis[opposite[asked.answer]] < 0
        assert set(asked.options) == set(opposite)
        assert asked.about == (a, b)


def test_attribute_answers() -> None:
    for scene, asked in drawn("attribute", 60):
        match = re.fullmatch(r"What color is the (\w+)\?", asked.question)
        assert match
        (only,) = named(scene, match[1])
        assert asked.answer == only.color
        assert len(set(asked.options)) == len(asked.options) == 4
        assert set(asked.options) <= set(COLORS)
        assert asked.about == (only,)


def test_existence_answers() -> None:
    answers = Counter()
    for scene, asked in drawn("existence", 120):
        match = re.fullmatch(r"Is there a (\w+) in the picture\?", asked.question)
        assert match
        there = named(scene, match[1])
        assert asked.answer == ("yes" if there else "no")
        assert set(asked.options) == {"yes", "no"}
        assert asked.about == tuple(there)
        assert asked.names == (match[1],)
        answers[asked.answer] += 1
    assert 40 < answers["no"] < 80


def test_counting_answers() -> None:
    singular = {plural(name): name for name in NAMES}
    answers = Counter()
    for scene, asked in drawn("counting", 120):
        match = re.fullmatch(r"How many (\w+) are in the picture\?", asked.question)
        assert match
        there = named(scene, singular[match[1]])
        assert asked.answer == ["zero", "one", "two", "three", "four"][len(there)]
        assert asked.about == tuple(there)
        answers[asked.answer] += 1
    assert answers["one"] > 0
    assert answers["two"] > 10


@pytest.mark.parametrize("kind", KINDS)
def test_right_options_come_at_every_place(kind: Kind) -> None:
    places = Counter(asked.right for _, asked in drawn(kind, 160))
    options = 2 if kind == "existence" else 4
    assert set(places) == set(range(options))
    assert min(places.values()) > 160 / options / 2


def test_no_question_without_a_single_thing() -> None:
    scene = Scene(1, (thing("cup", 2, 2), thing("cup", 40, 2)))
    rng = np.random.default_rng(0)
    assert ask(scene, "attribute", rng) is None
    assert ask(scene, "position", rng) is None
    counted = ask(scene, "counting", rng)
    assert counted is not None
    assert counted.answer == "two"


def test_reasoning_names_things_cells_and_answer() -> None:
    scene = Scene(1, (thing("cup", 2, 2), thing("bottle", 46, 2, "blue")))
    asked = SceneQuestion("position", "", ("right", "left"), 1, scene.things, ("cup", "bottle"))
    assert reasoning(scene, asked) == "cup red 1 1, bottle blue 7 1, left \\boxed{B}"
    absent = SceneQuestion("existence", "", ("no", "yes"), 0, (), ("key",))
    assert reasoning(scene, absent) == "key no, no \\boxed{A}"
