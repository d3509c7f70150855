"""Scenes: what is said to be in a picture is in it, and nowhere does anything overlap."""

from __future__ import annotations

import numpy as np
import pytest

from sparring.scenes.sprites import COLORS, NAMES, placed, plural, tinted
from sparring.scenes.world import SIZE, Scene, apart, background, place, render, sample_scene


def scenes(number: int, seed: int = 11) -> list[Scene]:
    return [sample_scene(np.random.default_rng([seed, i])) for i in range(number)]


def test_there_are_forty_objects_in_six_plain_colours() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 40
    for name in NAMES:
        for color, tone in COLORS.items():
            sprite = np.asarray(tinted(name, color), dtype=float)
            body = sprite[..., 3] > 250
            mean = sprite[body][:, :3].mean(0)
            nearest = min(
                COLORS,
                key=lambda other: float(
                    np.abs(mean / mean.max() - np.array(COLORS[other]) / max(COLORS[other])).sum()
                ),
            )
            assert nearest == color, f"a {color} {name} looks {nearest} (mean {mean.round()}, tone {tone})"


def test_boxes_are_inside_and_keep_apart() -> None:
    for scene in scenes(60):
        for i, thing in enumerate(scene.things):
            x0, y0, x1, y1 = thing.box
            assert 0 < x0 < x1 < SIZE
            assert 0 < y0 < y1 < SIZE
            assert thing.name in NAMES
            assert thing.color in COLORS
            assert all(apart(thing.box, other.box) for other in scene.things[:i])


@pytest.mark.parametrize(
    ("other", "free"),
    [
        ((11, 0, 15, 10), True),
        ((10, 0, 15, 10), False),
        ((0, 11, 10, 15), True),
        ((0, 10, 10, 15), False),
        ((3, 3, 5, 5), False),
        ((11, 11, 15, 15), True),
    ],
)
def test_apart_asks_for_a_free_pixel(other: tuple[int, int, int, int], free: bool) -> None:
    box = (0, 0, 10, 10)
    assert apart(box, other) is free
    assert apart(other, box) is free


def test_render_is_deterministic_and_draws_again_after_other_scenes() -> None:
    first = [render(scene) for scene in scenes(6)]
    placed.cache_clear()
    tinted.cache_clear()
    again = [render(scene) for scene in reversed(scenes(6))]
    assert all(np.array_equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert first[0].shape == (SIZE, SIZE, 3)
    assert first[0].dtype == np.uint8


def test_boxes_are_what_is_visible() -> None:
    """Every row and column of a box shows the thing; outside of all boxes there is only background."""
    for scene in scenes(40):
        plain = np.clip(background(scene.background) + 0.5, 0, 255).astype(np.uint8)
        differs = (render(scene).astype(int) - plain).any(-1)
        inside = np.zeros((SIZE, SIZE), dtype=bool)
        for x0, y0, x1, y1 in (thing.box for thing in scene.things):
            inside[y0:y1, x0:x1] = True
            part = differs[y0:y1, x0:x1]
            assert part[0].any()
            assert part[-1].any()
            assert part[:, 0].any()
            assert part[:, -1].any()
            assert part.mean() > 0.1
        assert not differs[~inside].any()


def test_a_mirrored_sprite_is_the_mirror_image() -> None:
    plain, mirrored = (np.asarray(placed("key", "red", 22, 0, mirror), dtype=int) for mirror in (False, True))
    assert np.abs(plain[:, ::-1] - mirrored).max() <= 2
    assert np.abs(plain - mirrored).max() > 50


def test_repeats_colours_and_counts_vary() -> None:
    drawn = scenes(150)
    repeats = sum(any(scene.count(thing.name) > 1 for thing in scene.things) for scene in drawn)
    assert 0.15 < repeats / len(drawn) < 0.45
    assert {len(scene.things) for scene in drawn} == {2, 3, 4}
    assert {thing.color for scene in drawn for thing in scene.things} == set(COLORS)
    assert len({thing.name for scene in drawn for thing in scene.things}) >= 38


def test_place_gives_up_in_a_full_picture() -> None:
    assert place(np.random.default_rng(0), "cup", "red", [(0, 0, SIZE, SIZE)]) is None


def test_scene_edits_leave_the_rest_alone() -> None:
    scene = next(scene for scene in scenes(20) if len(scene.things) == 3)
    without = scene.without(1)
    assert without.things == (scene.things[0], scene.things[2])
    assert without.with_thing(scene.things[1]).things == (scene.things[0], scene.things[2], scene.things[1])
    assert scene.count(scene.things[1].name) - without.count(scene.things[1].name) == 1


def test_plurals() -> None:
    assert [plural(name) for name in ("cup", "box", "scissors", "glasses")] == [
        "cups",
        "boxes",
        "scissors",
        "glasses",
    ]
    assert len({plural(name) for name in NAMES}) == len(NAMES)
