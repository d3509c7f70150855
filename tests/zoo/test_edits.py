"""The pairs that the editor is trained on: the picture after an edit differs by what the instruction says,
and by nothing else.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from sparring.scenes.questions import KINDS, ask
from sparring.scenes.sprites import NAMES
from sparring.scenes.world import SIZE, Scene, Thing, apart, render, sample_scene
from sparring.zoo.edits import RELATIVES, draw_edit, instead, related, stand


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(np.random.default_rng([3, i])) for i in range(320)]


def kind_of(instruction: str) -> str:
    return "relight" if instruction.startswith("make the picture") else instruction.split()[0]


def test_pairs_differ_only_where_the_instruction_says(scenes: list[Scene]) -> None:
    rng, seen = np.random.default_rng(0), set()
    for scene in scenes:
        pair = draw_edit(scene, rng)
        if pair is None:
            continue
        text, after = pair.instruction, pair.scene
        kind = kind_of(text)
        seen.add(kind)
        changed = np.abs(pair.render().astype(int) - render(after)).max() > 0
        assert changed == (pair.light != (1.0, 1.0, 1.0))
        assert kind in ("Add", "relight") or not changed
        if kind in ("add", "Add"):
            assert after.things[:-1] == scene.things
            new = after.things[-1]
            assert not scene.count(new.name)
            assert kind == "Add" or f"{new.color} {new.name}" in text
            assert kind == "add" or not re.search(rf"\b{new.name}\b", text.split("answering:")[1])
        elif kind == "remove":
            assert len(after.things) == len(scene.things) - 1
        elif kind == "relight":
            assert after == scene
            assert ("darker" in text) <= (max(pair.light) < 1)
            assert ("brighter" in text) <= (min(pair.light) > 1)
            assert ("warmer" in text) <= (pair.light[0] > pair.light[2])
            assert ("colder" in text) <= (pair.light[0] < pair.light[2])
        else:
            assert len(after.things) == len(scene.things)
            assert sum(a != b for a, b in zip(after.things, scene.things, strict=True)) == 1
    assert seen == {"add", "Add", "remove", "replace", "make", "relight"}


def test_one_instruction_has_one_result(scenes: list[Scene]) -> None:
    """But for the light: the same instruction on the same scene gives the same scene, whatever else was
    drawn.
    """
    results: dict[tuple[int, str], Scene] = {}
    repeats = 0
    for number, scene in enumerate(scenes[:8]):
        for draw in range(150):
            pair = draw_edit(scene, np.random.default_rng([number, draw]))
            if pair is None:
                continue
            repeats += (number, pair.instruction) in results
            assert results.setdefault((number, pair.instruction), pair.scene) == pair.scene
    assert repeats > 100


def test_new_things_stand_free(scenes: list[Scene]) -> None:
    for scene in scenes[:60]:
        boxes, anchor = [thing.box for thing in scene.things], scene.things[0]
        for new in (stand("cup", "red", scene), stand("cup", "red", scene, beside=anchor)):
            if new is not None:
                assert all(apart(new.box, box) for box in boxes)
                assert min(new.box) >= 0
                assert max(new.box) <= SIZE


def test_beside_is_nearer_than_anywhere() -> None:
    corner = Scene(0, (Thing("ball", "red", 20.0, 0.0, False, (2, 2, 22, 22)),))
    far, near = stand("cup", "red", corner), stand("cup", "red", corner, beside=corner.things[0])
    assert far is not None
    assert near is not None
    assert far.center[0] > 40
    assert np.hypot(near.center[0] - 12, near.center[1] - 12) < 25


def test_no_thing_where_there_is_no_room() -> None:
    full = Scene(
        0,
        (
            Thing("ball", "red", 20.0, 0.0, False, (0, 0, SIZE, SIZE)),
            Thing("cup", "red", 4.0, 0.0, False, (30, 30, 34, 34)),
        ),
    )
    assert stand("hat", "red", full) is None
    assert instead("hat", "red", full, 1) is None
    replaced = instead("hat", "red", full, 0)
    assert replaced is None  # it would cover the cup


def test_relatives() -> None:
    assert sorted(name for family in RELATIVES for name in family) == sorted(NAMES)
    assert related("cup", ["cup"]) == "teapot"
    assert related("basket", ["basket", "bottle"]) == "cup"
    assert related("key", ["key", "candle", "trophy", "crown", "bear"]) == NAMES[0]


def test_distractors_are_no_answer_to_the_question(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(1)
    for scene in scenes[:80]:
        for kind in KINDS:
            asked = ask(scene, kind, rng)
            if asked is not None:
                name = related(asked.names[0], [*(thing.name for thing in scene.things), *asked.names])
                assert name not in asked.names
                assert not scene.count(name)
