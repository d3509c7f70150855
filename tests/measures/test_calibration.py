"""ECE and Brier, by hand and against plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sparring.data.errors import DataError
from sparring.measures.calibration import brier_scores, calibration_report, expected_calibration_error
from sparring.measures.statistics import paired_bootstrap


def test_ece_by_hand() -> None:
    # Bins of 1/15: 0.55 and 0.58 lie in (8/15, 9/15], 0.9 in (13/15, 14/15], 1.0 in the last.
    # (2 |0.5 - 0.565| + |0 - 0.9| + |1 - 1|) / 4
    assert expected_calibration_error([0.55, 0.58, 0.9, 1.0], [1, 0, 0, 1]) == pytest.approx(
        (2 * 0.065 + 0.9) / 4
    )
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0
    assert expected_calibration_error([0.0], [False]) == 0.0


@pytest.mark.parametrize("bins", [5, 15])
def test_ece_is_a_plain_loop(bins: int) -> None:
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(500), np.arange(bins + 1) / bins])
    right = rng.random(len(confidence)) < confidence**2
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        own = [i for i, c in enumerate(confidence) if (low < c <= high) or (number == 0 and c == 0)]
        if own:
            total += len(own) / len(confidence) * abs(right[own].mean() - confidence[own].mean())
    assert expected_calibration_error(confidence, right, bins) == pytest.approx(total, abs=1e-12)


def test_brier_by_hand_and_for_two_options() -> None:
    assert brier_scores([[0.7, 0.2, 0.1], [1.0, 0.0]], [0, 1]).tolist() == pytest.approx(
        [0.09 + 0.04 + 0.01, 2.0]
    )
    # With two options it is twice the usual binary score.
    p = np.linspace(0, 1, 11)
    assert brier_scores([[x, 1 - x] for x in p], [0] * 11).mean() == pytest.approx(2 * ((1 - p) ** 2).mean())


def test_a_calibrated_defender_and_a_boastful_one() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 3000)
    truth = (rng.random(3000) >= confidence).astype(int)  # option 0 is right as often as is said
    honest = calibration_report(
        [[c, 1 - c] for c in confidence], truth.tolist(), list(range(3000)), resamples=100, seed=0
    )
    boastful = calibration_report(
        [[0.99, 0.01]] * 3000, truth.tolist(), list(range(3000)), resamples=100, seed=0
    )
    assert honest.ece.value is not None
    assert boastful.ece.value is not None
    assert honest.ece.value < 0.04
    assert boastful.ece.value == pytest.approx(0.99 - (truth == 0).mean())
    assert boastful.ece.low < boastful.ece.value < boastful.ece.high
    assert boastful.brier.value > honest.brier.value
    assert sum(b.n for b in honest.bins) == 3000
    assert [b.n for b in boastful.bins][-1] == 3000
    assert boastful.bins[0].accuracy is None
    json.dumps(boastful.as_dict(), allow_nan=False)


def test_intervals_draw_whole_pictures() -> None:
    """The interval of the Brier score, a mean, is that of the paired bootstrap; the same items in fewer
    pictures give a wider one.
    """
    rng = np.random.default_rng(2)
    p = rng.random(120)
    probabilities, answers = [[x, 1 - x] for x in p], [0] * 120

    def brier(clusters: list[int]) -> tuple[float, float]:
        found = calibration_report(probabilities, answers, clusters, resamples=1500, seed=1).brier
        theirs = paired_bootstrap(
            brier_scores(probabilities, answers), np.zeros(120), clusters, resamples=1500, seed=2
        )
        assert (found.value, found.low, found.high) == pytest.approx(
            (theirs.value, theirs.low, theirs.high), abs=0.03
        )
        return found.low, found.high

    order = np.argsort(p)
    alone, together = brier(list(range(120))), brier((np.argsort(order) // 12).tolist())
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(DataError, match=r"item 1: its option probabilities sum to 0\.9"):
        calibration_report([[0.5, 0.5], [0.5, 0.4]], [0, 0], ["a", "b"], resamples=10, seed=0)
    with pytest.raises(DataError, match="outside 0 to 1"):
        expected_calibration_error([1.2], [1])
    with pytest.raises(DataError, match="not empty"):
        expected_calibration_error([], [])
