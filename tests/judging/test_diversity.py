"""Diversity of a group of edits and variety of an update's, and what they may not be earned with."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sparring.config import JudgeSettings
from sparring.judging.kinds import Kind, classify, nobody
from sparring.judging.rewards import CELLS, Gate, group_diversity, reward_of, reward_parts, variety


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(60, 196, (size[1], size[0], 3), dtype=np.uint8)
    )


def painted(clean: Image.Image, box: tuple[int, int, int, int], level: int = 250) -> Image.Image:
    edit = clean.copy()
    edit.paste((level, 20, 20), box)
    return edit


def test_it_is_the_mean_of_the_distances_of_pairs() -> None:
    clean = picture()
    edits = [painted(clean, (4 * i, 2 * i, 4 * i + 30, 2 * i + 20), 200 + 10 * i) for i in range(5)]
    height, width = clean.height // CELLS, clean.width // CELLS
    maps = [
        (np.asarray(edit, dtype=float) - np.asarray(clean, dtype=float))
        .reshape(CELLS, height, CELLS, width, 3)
        .mean((1, 3))
        for edit in edits
    ]

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt((values**2).mean()))

    expected = [
        np.mean([rms(a - b) / (rms(a) + rms(b) + 1) for j, b in enumerate(maps) if j != i])
        for i, a in enumerate(maps)
    ]
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
    places = [
        painted(clean, box) for box in ((0, 0, 24, 24), (30, 0, 54, 24), (60, 0, 84, 24), (0, 30, 24, 54))
    ]
    assert min(group_diversity(clean, places)) > 2 * max(group_diversity(clean, noisy))


@pytest.mark.parametrize("count", [0, 1])
def test_an_edit_without_others_has_none(count: int) -> None:
    assert group_diversity(picture(), [picture(1)] * count) == [0.0] * count


def test_pictures_smaller_than_the_grid() -> None:
    clean = picture(size=(10, 7))
    first, _ = group_diversity(clean, [painted(clean, (0, 0, 4, 4)), painted(clean, (5, 3, 9, 7))])
    assert 0.3 < first < 1


def test_variety_is_the_share_of_the_others_that_are_of_another_kind() -> None:
    assert variety(["add", "add", "add", "remove"]) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    assert variety(["add"]) == [0.0]
    assert variety(["imperceptible", "add", "unchanged"]) == [0.0, 1.0, 0.0]
    assert variety([]) == []


def shares_learned(
    settings: JudgeSettings, successes: dict[Kind, float], steps: int = 1000
) -> dict[Kind, float]:
    """Where an Attacker ends that chooses among kinds and follows its reward's gradient (the replicator
    equation).
    """
    kinds = list(successes)
    share_K = np.full(len(kinds), 1 / len(kinds))
    for _ in range(steps):
        counts = np.maximum(1, (300 * share_K).round().astype(int))
        batch = [kind for kind, number in zip(kinds, counts, strict=True) for _ in range(number)]
        rarity = dict(zip(batch, variety(batch), strict=True))
        rewards = [
            reward_of(
                reward_parts(
                    settings, Gate(1.0, True, False), efficacy=successes[kind], fall=0.0, variety=rarity[kind]
                )
            )
            for kind in kinds
        ]
        share_K = share_K * np.exp(0.1 * (np.array(rewards) - share_K @ np.array(rewards)))
        share_K /= share_K.sum()
    return dict(zip(kinds, share_K.tolist(), strict=True))


def test_variety_keeps_an_attacker_from_one_trick_where_place_alone_does_not() -> None:
    successes: dict[Kind, float] = {"replace": 0.6, "add": 0.45, "remove": 0.35, "imperceptible": 0.55}
    alone = shares_learned(JudgeSettings(dense_weight=0.0), successes)
    assert alone["replace"] > 0.98
    mixed = shares_learned(JudgeSettings(dense_weight=0.0, variety_weight=0.6), successes)
    assert min(mixed["replace"], mixed["add"], mixed["remove"]) > 0.1
    assert mixed["replace"] - mixed["add"] == pytest.approx((0.6 - 0.45) / 0.6, abs=0.03)
    assert mixed["imperceptible"] < 0.02

    clean = picture()
    anywhere = [
        painted(clean, box) for box in ((0, 0, 24, 24), (30, 0, 54, 24), (60, 0, 84, 24), (0, 30, 24, 54))
    ]
    assert min(group_diversity(clean, anywhere)) > 0.5  # one trick in four places
    assert variety([found.kind for found in classify([clean] * 4, anywhere, nobody)]) == [0.0] * 4
