"""The oracle reads back what was drawn, look-alikes and all, also from softened, noisy and slightly moved
pictures.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sparring_arena.oracle import count_objects, find
from sparring_arena.sprites import COLORS, NAMES, lookalikes, sprite
from sparring_arena.world import Scene, Thing, add_lookalike, render, sample_scene


def crowded(i: int) -> Scene:
    """Every second scene has a look-alike of its first thing."""
    rng = np.random.default_rng([5, i])
    scene = sample_scene(rng)
    return (add_lookalike(scene, scene.things[0].name, rng) or scene) if i % 2 else scene


def read(picture: np.ndarray) -> list[tuple[object, ...]]:
    return sorted((s.name, s.color, s.box) for s in find(picture))


def drawn(scene: Scene) -> list[tuple[object, ...]]:
    return sorted((t.name, t.color, t.box) for t in scene.things)


def test_clean_scenes_are_read_exactly() -> None:
    right = [read(render(scene)) == drawn(scene) for scene in map(crowded, range(200))]
    assert np.mean(right) >= 0.99


def test_soft_and_noisy_scenes_are_read_as_well() -> None:
    right = []
    for i in range(100):
        scene = crowded(i)
        soft = np.asarray(Image.fromarray(render(scene)).filter(ImageFilter.GaussianBlur(0.5)), dtype=float)
        noisy = np.clip(soft + np.random.default_rng(i).normal(0, 5, soft.shape), 0, 255).astype(np.uint8)
        right.append(
            sorted((s.name, s.color) for s in find(noisy)) == sorted((t.name, t.color) for t in scene.things)
        )
    assert np.mean(right) >= 0.97


@pytest.mark.parametrize("name", NAMES)
def test_a_thing_is_not_taken_for_its_look_alikes(name: str) -> None:
    color = tuple(COLORS)[len(name) % len(COLORS)]
    scene = Scene(11, (Thing(name, color, 2, 2),))
    assert [(s.name, s.color) for s in find(render(scene))] == [(name, color)]
    assert count_objects(render(scene), *lookalikes(name)) == 0
    assert count_objects(render(scene), name) == 1


def test_things_off_the_grid_are_found_where_they_are() -> None:
    scene = Scene(3, (Thing("cup", "red", 2, 2), Thing("dog", "blue", 6, 6)))
    moved = np.roll(render(scene), (3, -2), axis=(0, 1))
    x0, y0, x1, y1 = scene.things[0].box
    assert ("cup", "red", (x0 - 2, y0 + 3, x1 - 2, y1 + 3)) in read(moved)


def test_what_changes_is_told() -> None:
    scene = Scene(3, (Thing("cup", "red", 0, 0), Thing("dog", "blue", 4, 4)))
    assert read(render(scene.without(1))) == drawn(scene.without(1))
    other = scene.swapped(0, replace(scene.things[0], color="green"))
    assert read(render(other)) == drawn(other)
    assert find(render(Scene(3, ()))) == []


def test_a_sighting_says_what_its_own_sprite_and_the_background_leave() -> None:
    """Summed by hand in float64, from the sprite as it is drawn: its colours are put together from a few
    parts, and sums are made by Fourier transforms.
    """
    rng = np.random.default_rng(8)
    for i in range(12):
        clean = render(crowded(i)).astype(float)
        picture = np.clip(clean + rng.normal(0, 6, clean.shape), 0, 255)
        seen = find(picture)
        assert seen
        for sighting in seen:
            x0, y0, x1, y1 = sighting.box
            rgba = np.asarray(sprite(sighting.name, sighting.color), dtype=float)
            alpha = rgba[..., 3:] / 255
            weight, straight = alpha**2, rgba[..., :3] / np.maximum(alpha, 1e-3)
            left = (weight * (picture[y0:y1, x0:x1] - straight) ** 2).sum()
            area = weight.sum()
            assert sighting.error == pytest.approx(np.sqrt(left / (3 * area)), abs=0.1)
            # The background is seen where the sprite lets it through, up to two pixels around its block.
            tall, wide = alpha.shape[:2]
            top, before = y0 - 2 - (24 - tall) // 2, x0 - 2 - (24 - wide) // 2
            ring = np.ones((28, 28), dtype=bool)
            ring[y0 - top : y1 - top, x0 - before : x1 - before] = alpha[..., 0] < 0.04
            padded = np.pad(picture, ((2, 2), (2, 2), (0, 0)), mode="edge")
            ground = padded[top + 2 : top + 30, before + 2 : before + 30][ring].mean(0)
            plain = (weight * (picture[y0:y1, x0:x1] - ground) ** 2).sum()
            noise = 3 * 8.0**2 * area
            nats = 0.5 * area * np.log((plain + noise) / (left + noise))
            assert sighting.nats == pytest.approx(nats, rel=5e-3)
            assert sighting.explained == pytest.approx(1 - left / plain, abs=5e-3)
