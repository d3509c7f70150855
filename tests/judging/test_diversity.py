"""The diversity of a group of edits, against a plain loop, and what it may not be earned with."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sparring.judging.diversity import CELLS, group_diversity


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(60, 196, (size[1], size[0], 3), dtype=np.uint8))


def painted(clean: Image.Image, box: tuple[int, int, int, int], level: int = 250) -> Image.Image:
    edit = clean.copy()
    edit.paste((level, 20, 20), box)
    return edit


def test_it_is_the_mean_of_the_distances_of_pairs() -> None:
    clean = picture()
    edits = [painted(clean, (4 * i, 2 * i, 4 * i + 30, 2 * i + 20), 200 + 10 * i) for i in range(5)]
    height, width = clean.height // CELLS, clean.width // CELLS
    maps = [
        (np.asarray(edit, dtype=float) - np.asarray(clean, dtype=float)).reshape(CELLS, height, CELLS, width, 3).mean((1, 3))
        for edit in edits
    ]

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt((values**2).mean()))

    expected = [np.mean([rms(a - b) / (rms(a) + rms(b) + 1) for j, b in enumerate(maps) if j != i]) for i, a in enumerate(maps)]
    assert group_diversity(clean, edits) == pytest.approx(expected, abs=1e-9)


def test_the_same_change_is_no_diversity_and_another_place_is() -> None:
    clean = picture()
    same = [painted(clean, (8, 8, 32, 32))] * 3
    assert group_diversity(clean, same) == [0, 0, 0]
    apart = group_diversity(clean, [*same, painted(clean, (60, 30, 84, 54))])
    assert apart[3] > 0.6
    assert apart[0] == pytest.approx(apart[3] / 3)
    assert all(0 <= value < 1 for value in apart)


def test_noise_and_hardly_visible_changes_earn_little() -> None:
    clean = picture()
    noisy = []
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(0, 2, (64, 96, 3))
        noisy.append(Image.fromarray((np.asarray(clean) + noise).round().clip(0, 255).astype(np.uint8)))
    assert max(group_diversity(clean, noisy)) < 0.35
    places = [painted(clean, box) for box in ((0, 0, 24, 24), (30, 0, 54, 24), (60, 0, 84, 24), (0, 30, 24, 54))]
    assert min(group_diversity(clean, places)) > 2 * max(group_diversity(clean, noisy))


@pytest.mark.parametrize("count", [0, 1])
def test_an_edit_without_others_has_none(count: int) -> None:
    assert group_diversity(picture(), [picture(1)] * count) == [0.0] * count


def test_pictures_smaller_than_the_grid() -> None:
    clean = picture(size=(10, 7))
    first, _ = group_diversity(clean, [painted(clean, (0, 0, 4, 4)), painted(clean, (5, 3, 9, 7))])
    assert 0.3 < first < 1
