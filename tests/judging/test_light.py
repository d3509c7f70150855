"""The change of light between two pictures: what is global counts, what is local does not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sparring.data.records import Box
from sparring.judging.light import LightChange, excess, light_change
from workshop.planted import light_cases

BOX: Box = (10, 12, 40, 44)


def photo(size: tuple[int, int] = (96, 80), seed: int = 0) -> NDArray[np.uint8]:
    """A soft picture of many colours."""
    coarse = np.random.default_rng(seed).integers(40, 200, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def lit(
    pixels: NDArray[np.uint8], gain: float | NDArray[np.float64] = 1.0, offset: float = 0.0
) -> NDArray[np.uint8]:
    return np.clip(pixels * gain + offset + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("boxes", [[], [BOX]])
@pytest.mark.parametrize("gain", [0.6, 0.75, 0.9, 1.1, 1.25])
def test_a_gain_is_told(gain: float, boxes: list[Box]) -> None:
    change = light_change(photo(), lit(photo(), gain), boxes)
    assert change.level == pytest.approx(abs(np.log(gain)), rel=0.12)  # dark pictures count a little less
    assert change.spread == pytest.approx(abs(np.log(gain)), rel=0.2)


def test_a_tint_counts_by_the_channel_that_goes_farthest() -> None:
    change = light_change(photo(), lit(photo(), np.array([1.15, 1.0, 0.85])), [BOX])
    assert change.level == pytest.approx(-np.log(0.85), abs=0.02)


def test_contrast_about_the_mean_is_spread_and_hardly_level() -> None:
    pixels = photo()
    change = light_change(pixels, lit(pixels, 0.6, 0.4 * float(pixels.mean())), [])
    assert change.level < 0.06
    assert change.spread == pytest.approx(-np.log(0.6), abs=0.06)


def test_an_untouched_picture_has_no_change() -> None:
    assert light_change(photo(), photo(), [BOX, (50, 8, 53, 10)]) == LightChange()


@pytest.mark.parametrize("level", [0, 255])
def test_a_distractor_over_half_of_the_picture_is_no_light(level: int) -> None:
    edited = photo().copy()
    edited[:, 48:] = level
    change = light_change(photo(), edited, [(4, 12, 40, 44)])
    assert change.level < 0.01
    assert change.spread < 0.02


def test_light_beside_a_distractor_is_told_all_the_same() -> None:
    edited = lit(photo(), 0.75)
    edited[:, 66:] = (250, 20, 20)
    assert light_change(photo(), edited, [BOX]).level == pytest.approx(-np.log(0.75), abs=0.05)


def test_what_is_lit_in_the_boxes_alone_or_outside_them_alone_counts() -> None:
    x0, y0, x1, y1 = BOX
    inside, outside = photo().copy(), lit(photo(), 0.75)
    inside[y0:y1, x0:x1] = lit(photo(), 0.75)[y0:y1, x0:x1]
    outside[y0:y1, x0:x1] = photo()[y0:y1, x0:x1]
    assert min(light_change(photo(), edited, [BOX]).level for edited in (inside, outside)) > 0.2
    assert light_change(photo(), inside, []).level < 0.01  # unprotected, it is one more local edit


@pytest.mark.parametrize("size", [(5, 3), (64, 64), (640, 401)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    whole: Box = (0, 0, *size)
    for boxes in ([], [whole]):
        assert light_change(photo(size), photo(size), boxes) == LightChange()
        assert light_change(photo(size), lit(photo(size), 0.6), boxes).level > 0.3


def test_another_picture_altogether_has_a_finite_change() -> None:
    black, white = np.zeros((40, 40, 3), dtype=np.uint8), np.full((40, 40, 3), 255, dtype=np.uint8)
    change = light_change(black, white, [(4, 4, 20, 20)])
    assert np.isfinite([change.level, change.spread]).all()
    assert change.level > 1


def test_excess_is_what_lies_beyond_the_limits_that_are_set() -> None:
    change = LightChange(0.3, 0.5)
    assert excess(change, None, None) == 0
    assert excess(change, 0.1, None) == pytest.approx(0.2)
    assert excess(change, 0.1, 0.2) == pytest.approx(0.5)
    assert excess(change, 0.4, 0.6) == 0


def shares(scenes: int) -> tuple[float, float]:
    """Of planted edits of scenes: what is refused of those that change the light, and of the others."""
    refused: dict[bool, list[bool]] = {True: [], False: []}
    for case in light_cases(11, scenes):
        refused[case.relit].append(excess(light_change(case.clean, case.edited, case.boxes), 0.08, 0.2) > 0)
    return float(np.mean(refused[True])), float(np.mean(refused[False]))


def test_planted_edits_of_scenes() -> None:
    relit, others = shares(16)
    assert relit >= 0.97
    assert others <= 0.02


@pytest.mark.slow
def test_planted_edits_of_many_scenes() -> None:
    relit, others = shares(200)
    assert relit >= 0.98
    assert others <= 0.01
