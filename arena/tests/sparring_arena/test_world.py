"""Scenes: on the grid, without overlap, with room for one more; the same picture every time."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from sparring_arena.oracle import shared
from sparring_arena.sprites import COLORS, GROUPS, NAMES, SIDE, lookalikes, sprite
from sparring_arena.world import BLOCK, CELL, PLACES, SIZE, Scene, Thing, add_lookalike, render, sample_scene


def scenes(number: int, **options: bool) -> list[Scene]:
    return [sample_scene(np.random.default_rng([7, i]), **options) for i in range(number)]  # type: ignore[arg-type]


def test_at_least_ten_groups_of_look_alikes_and_every_name_once() -> None:
    assert len(GROUPS) >= 10
    assert all(2 <= len(group) <= 4 for group in GROUPS)
    assert 40 <= len(NAMES) == len(set(NAMES)) <= 56
    assert lookalikes("peach") == ("tomato", "melon", "mango")


@pytest.mark.parametrize("name", NAMES)
def test_a_thing_fills_its_block_and_looks_different_in_every_color(name: str) -> None:
    pictures = [np.asarray(sprite(name, color)) for color in COLORS]
    assert all(max(picture.shape[:2]) in (SIDE - 1, SIDE) for picture in pictures)
    opaque = pictures[0][..., 3] > 200
    for a, b in combinations(pictures, 2):
        assert np.abs(a[opaque].astype(float) - b[opaque]).mean() > 15


def test_things_of_one_group_differ_by_far_more_than_noise() -> None:
    for group in GROUPS:
        for a, b in combinations(group, 2):
            drawn = [render(Scene(1, (Thing(name, "blue", 3, 3),))).astype(float) for name in (a, b)]
            assert np.sqrt(np.square(drawn[0] - drawn[1])[24:48, 24:48].mean()) > 25, (a, b)


def test_no_two_things_overlap_and_one_more_has_room() -> None:
    for scene in scenes(200):
        for a, b in combinations(scene.things, 2):
            assert shared(a.box, b.box) == 0
        assert scene.free()
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            assert thing.column * CELL <= x0 < x1 <= (thing.column + BLOCK) * CELL <= SIZE
            assert thing.row * CELL <= y0 < y1 <= (thing.row + BLOCK) * CELL <= SIZE
        for column, row in scene.free():
            assert 0 <= min(column, row) <= max(column, row) < PLACES
            assert all(thing.clear_of(column, row) for thing in scene.things)


def test_narrow_scenes_hold_no_two_different_things_of_one_group() -> None:
    def mixed(scene: Scene) -> bool:
        return any(len({t.name for t in scene.things if t.name in group}) > 1 for group in GROUPS)

    assert not any(mixed(scene) for scene in scenes(300, narrow=True))
    assert any(mixed(scene) for scene in scenes(300))


def test_a_look_alike_is_added_and_nothing_else_changes() -> None:
    for i, scene in enumerate(scenes(50)):
        name = scene.things[0].name
        after = add_lookalike(scene, name, np.random.default_rng(i))
        assert after is not None
        assert after.things[:-1] == scene.things
        assert after.things[-1].name in lookalikes(name)


def test_the_same_scene_is_the_same_picture() -> None:
    scene = scenes(1)[0]
    assert np.array_equal(render(scene), render(Scene(scene.background, tuple(scene.things))))
