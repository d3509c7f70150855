"""The oracle against scenes whose things are known."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sparring.scenes.filters import screen
from sparring.scenes.oracle import count_objects, find, identify, locate, read_objects, rival
from sparring.scenes.sprites import NAMES
from sparring.scenes.world import Scene, Thing, background, place, random_color, render, sample_scene

Picture = NDArray[np.uint8]


def crowded(seed: int, things: int = 5) -> Scene:
    """Five different things of sizes 14 to 26."""
    rng = np.random.default_rng([4242, seed])
    while True:
        placed: list[Thing] = []
        for i in rng.permutation(len(NAMES))[:things]:
            thing = place(rng, NAMES[i], random_color(rng), [other.box for other in placed], sizes=(14, 26))
            placed += [thing] if thing else []
        if len(placed) == things:
            return Scene(int(rng.integers(2**31)), tuple(placed))


def usual(seed: int) -> Scene:
    return sample_scene(np.random.default_rng([4241, seed]))


def blurred(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(0.7)))


def compressed(picture: Picture) -> Picture:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=60)
    return np.asarray(Image.open(data).convert("RGB"))


def noisy(picture: Picture) -> Picture:
    return np.clip(picture + np.random.default_rng(0).normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def mistakes(scene: Scene, picture: Picture) -> tuple[int, int]:
    """How many things were missed (by name, colour or box), and how many were invented."""
    left = read_objects(picture)
    missed = 0
    for thing in scene.things:
        same = [
            other
            for other in left
            if (other.name, other.color) == (thing.name, thing.color)
            and max(abs(a - b) for a, b in zip(other.box, thing.box, strict=True)) <= 3
        ]
        if same:
            left.remove(same[0])
        else:
            missed += 1
    return missed, len(left)


def accuracy(scenes: list[Scene], change: Callable[[Picture], Picture] | None = None) -> tuple[float, float]:
    """The share of scenes read without any mistake, and of things that were read."""
    found = [mistakes(scene, change(render(scene)) if change else render(scene)) for scene in scenes]
    things = sum(len(scene.things) for scene in scenes)
    return sum(pair == (0, 0) for pair in found) / len(scenes), 1 - sum(
        missed for missed, _ in found
    ) / things


def test_a_few_scenes_are_read_exactly() -> None:
    assert accuracy([usual(0), usual(1), crowded(0)]) == (1.0, 1.0)


def test_poses_are_read_too() -> None:
    thing = place(np.random.default_rng(3), "teapot", "blue", [])
    assert thing is not None
    (read,) = read_objects(render(Scene(5, (thing,))))
    assert (read.name, read.color, read.mirror) == ("teapot", "blue", thing.mirror)
    assert read.size == pytest.approx(thing.size, abs=1.5)
    assert read.angle == pytest.approx(thing.angle, abs=8)


def test_nothing_is_read_from_an_empty_background() -> None:
    for seed in range(2):
        assert read_objects(np.clip(background(seed), 0, 255).astype(np.uint8)) == []


@pytest.mark.parametrize("change", [blurred, compressed, noisy])
def test_counting_few_names_stands_soft_and_noisy_pictures(change: Callable[[Picture], Picture]) -> None:
    for seed in range(2):
        scene = usual(seed)
        picture = change(render(scene))
        present = scene.things[0].name
        absent = next(name for name in NAMES[7 * seed :] if not scene.count(name))
        assert count_objects(picture, present) == scene.count(present)
        assert count_objects(picture, absent) == 0
        assert count_objects(picture, present, absent) == scene.count(present)


def test_locate_wants_the_name_at_the_place() -> None:
    scene = next(
        scene
        for i in range(50)
        if len((scene := usual(i)).things) == 3 and scene.count(scene.things[0].name) == 1
    )
    picture = render(scene)
    first, second = scene.things[:2]
    found = locate(picture, first.name, first.box)
    assert found is not None
    assert found.thing.color == first.color
    assert found.explained > 0.9
    assert locate(picture, first.name, second.box) is None


def test_only_changed_places_are_searched() -> None:
    scene = usual(1)
    picture = render(scene)
    name = scene.things[0].name
    nowhere = np.zeros(picture.shape[:2], dtype=bool)
    assert len(find(picture, (name,))) == scene.count(name)
    assert find(picture, (name,), nowhere) == []
    assert len(find(picture, (name,), ~nowhere)) == scene.count(name)


def test_a_rough_fit_has_a_rival() -> None:
    """A bottle laid over a white drum explains much of it; the drum explains more."""
    drum = place(np.random.default_rng(8), "drum", "white", [])
    assert drum is not None
    picture = render(Scene(3, (drum,)))
    pixels = picture.astype(np.float32)
    rough = locate(picture, "bell", drum.box)
    assert count_objects(picture, "bell", "bottle", "cup") == 0
    (whole,) = find(picture, ("drum",))
    assert rival(pixels, whole, ("drum",)) is None
    if rough is not None:
        better = rival(pixels, rough, ("bell",))
        assert better is not None
        assert better.thing.name == "drum"


@pytest.mark.slow
def test_accuracy_on_usual_scenes() -> None:
    scenes, things = accuracy([usual(i) for i in range(100, 160)])
    assert scenes >= 0.98
    assert things >= 0.99


@pytest.mark.slow
def test_accuracy_on_crowded_scenes() -> None:
    """Five things a scene, so that whole scenes fail more easily than things do."""
    scenes, things = accuracy([crowded(i) for i in range(100, 130)])
    assert scenes >= 0.96
    assert things >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("change", [blurred, compressed, noisy])
def test_accuracy_on_soft_and_noisy_pictures(change: Callable[[Picture], Picture]) -> None:
    _, things = accuracy([usual(i) for i in range(300, 320)], change)
    assert things >= 0.95


def test_names_left_out_are_as_if_they_were_not_asked_for() -> None:
    scene = sample_scene(np.random.default_rng([77, 1]))
    pixels = render(scene).astype(np.float32)
    for thing in scene.things[:2]:
        others = tuple(name for name in NAMES if name != thing.name)
        left_out = screen(pixels, tuple(NAMES), 3, 0, thing.center, 0.75 * thing.size, without=(thing.name,))
        assert left_out == screen(pixels, others, 3, 0, thing.center, 0.75 * thing.size)
        assert all(guess.name != thing.name for guess in left_out)


def test_identify_names_what_is_near_a_point_and_nothing_elsewhere() -> None:
    scene = sample_scene(np.random.default_rng(5))
    picture = render(scene)
    for thing in scene.things:
        fit = identify(picture, thing.center)
        assert fit is not None
        assert (fit.thing.name, fit.thing.color) == (thing.name, thing.color)
    assert identify(render(Scene(scene.background, ())), scene.things[0].center) is None
