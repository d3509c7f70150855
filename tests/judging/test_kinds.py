"""What kind an edit was: on drawn squares with a judge that knows them, and on planted edits of scenes with
the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sparring.config import KindSettings
from sparring.data.errors import DataError
from sparring.data.pixels import same_light
from sparring.data.records import Box, Target
from sparring.judging.kinds import (
    UNNAMED,
    Kind,
    Look,
    changed_regions,
    classify,
    difference_map,
    nobody,
    overlap,
)
from workshop.planted import oracle_look, planted

COLORS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 160, 60)}
HERE, THERE, FAR = (20, 20, 50, 50), (90, 30, 120, 60), (40, 90, 80, 120)


def drawn(
    things: dict[Box, str], size: tuple[int, int] = (160, 140), light: float = 1.0, noise: float = 0.0
) -> Image.Image:
    image = Image.new("RGB", size, (130, 125, 120))
    for (x0, y0, x1, y1), color in things.items():
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=COLORS[color])
    pixels = np.asarray(image) * light + np.random.default_rng(0).normal(0, noise, (size[1], size[0], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def look(images: Sequence[Image.Image], boxes: Sequence[Box]) -> list[list[Target]]:
    """Names squares by their hue, each with its own box."""
    seen = []
    for image, region in zip(images, boxes, strict=True):
        pixels, own = np.asarray(image, dtype=float), []
        tinted = np.ptp(pixels, axis=-1) > 60
        for box in (HERE, THERE, FAR):
            x0, y0, x1, y1 = box
            if overlap(box, region) > 0 and tinted[y0:y1, x0:x1].mean() > 0.5:
                middle = pixels[(y0 + y1) // 2, (x0 + x1) // 2]
                own.append(
                    Target(min(COLORS, key=lambda name: float(np.abs(middle - COLORS[name]).sum())), box)
                )
        seen.append(own)
    return seen


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ({HERE: "red"}, {HERE: "red"}, "unchanged"),
        ({HERE: "red"}, {HERE: "red", THERE: "blue"}, "add"),
        ({HERE: "red"}, {HERE: "red", THERE: "blue", FAR: "green"}, "add"),
        ({HERE: "red", THERE: "blue"}, {HERE: "red"}, "remove"),
        ({HERE: "red", THERE: "blue"}, {HERE: "green", THERE: "blue"}, "replace"),
        ({HERE: "red", THERE: "blue"}, {HERE: "green", THERE: "blue", FAR: "green"}, "hybrid"),
        ({HERE: "red", THERE: "blue"}, {THERE: "blue", FAR: "green"}, "hybrid"),
        ({HERE: "red", THERE: "blue", FAR: "red"}, {HERE: "green", FAR: "red"}, "hybrid"),
    ],
)
@pytest.mark.parametrize(("light", "noise"), [(1.0, 0.0), (0.9, 0.0), (1.08, 3.0)])
def test_kinds(before: dict[Box, str], after: dict[Box, str], kind: Kind, light: float, noise: float) -> None:
    (found,) = classify([drawn(before)], [drawn(after, light=light, noise=noise)], look)
    assert found.kind == ("imperceptible" if kind == "unchanged" and (light, noise) != (1.0, 0.0) else kind)
    assert len(found.added) + len(found.replaced) == len({*after.items()} - {*before.items()})
    assert len(found.removed) + len(found.replaced) == len({*before.items()} - {*after.items()})
    assert (found.change > 0) == (before != after or light != 1.0)


def test_the_judge_is_asked_once_about_changed_regions_alone() -> None:
    calls: list[int] = []

    def counted(images: Sequence[Image.Image], boxes: Sequence[Box]) -> list[list[Target]]:
        calls.append(len(images))
        return look(images, boxes)

    clean = drawn({HERE: "red"})
    edits = [clean, drawn({HERE: "red", THERE: "blue"}), drawn({})]
    assert [found.kind for found in classify([clean] * 3, edits, counted)] == ["unchanged", "add", "remove"]
    assert calls == [4]
    classify([clean], [clean], counted)
    assert calls == [4]


def test_what_the_judge_cannot_name_counts_by_how_it_stands_out() -> None:
    empty, full = drawn({}), drawn({THERE: "blue"})
    (added,), (removed,) = classify([empty], [full], nobody), classify([full], [empty], nobody)
    assert (added.kind, removed.kind) == ("add", "remove")
    assert added.added[0].name == removed.removed[0].name == UNNAMED
    (recolored,) = classify([full], [drawn({THERE: "green"})], nobody)
    assert recolored.kind == "replace"
    assert len(recolored.replaced) == len(recolored.regions) == 1


def test_a_renaming_of_what_did_not_change_is_no_edit() -> None:
    """A judge that calls the untouched square by another name is never asked about it."""

    def fickle(images: Sequence[Image.Image], boxes: Sequence[Box]) -> list[list[Target]]:
        seen = look(images, boxes)
        return [
            [Target(f"{t.name}{i}" if t.box == HERE else t.name, t.box) for t in own]
            for i, own in enumerate(seen)
        ]

    (found,) = classify([drawn({HERE: "red"})], [drawn({HERE: "red", THERE: "blue"})], fickle)
    assert found.kind == "add"


def test_regions_are_boxes_of_what_changed_and_light_is_none() -> None:
    settings = KindSettings(smooth=0.0)
    before, after = (
        np.asarray(drawn(things), dtype=float)
        for things in ({HERE: "red"}, {HERE: "red", THERE: "blue", (1, 1, 4, 4): "red"})
    )
    assert difference_map(before, after, settings).shape == (140, 160)
    (region,) = changed_regions(before, after, settings)
    assert all(abs(a - b) <= 3 for a, b in zip(region, THERE, strict=True))  # smoothed; the speck is left out
    dim = before * np.array([0.7, 0.8, 0.75])
    assert np.abs(same_light(before, dim) - before).max() < 1e-9
    assert changed_regions(before, dim, settings) == []


def test_sizes_must_agree() -> None:
    with pytest.raises(DataError, match="edit 0 is 80 x 60"):
        classify([drawn({})], [drawn({}, size=(80, 60))], look)
    with pytest.raises(DataError, match="as many"):
        classify([drawn({})], [], look)


@pytest.mark.parametrize("contrast", [0.5, 0.7, 1.4])
def test_contrast_is_light_and_not_an_object(contrast: float) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(60, 180, (6, 6, 3), dtype=np.uint8))
    clean = coarse.resize((96, 80), Image.Resampling.BICUBIC)
    pixels = np.asarray(clean, dtype=float)
    edited = Image.fromarray(
        np.clip(pixels.mean() + contrast * (pixels - pixels.mean()), 0, 255).astype(np.uint8)
    )
    assert classify([clean], [edited], nobody)[0].kind == "imperceptible"


def right(number: int, look: Look) -> float:
    cleans, edits, kinds = zip(*planted(7, number), strict=True)
    told = [found.kind for found in classify(cleans, edits, look)]
    return float(np.mean([a == b for a, b in zip(told, kinds, strict=True)]))


def test_planted_edits_of_scenes_are_told_with_the_oracle_and_without_any_judge() -> None:
    assert right(12, oracle_look) >= 11 / 12
    assert right(240, nobody) >= 0.9
