"""Does confidence mean anything? Expected calibration error and Brier score over the probabilities of option
letters.

Confidence is the probability of the likeliest option. ECE (Naeini et al. 2015; 15 bins of equal width, as
Guo et al. 2017, arXiv 1706.04599): the mean over bins, weighted by how many items they hold, of |accuracy -
mean confidence|. Brier (1950): the mean over items of the sum over options of (probability - truth)^2, from
0 to 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparring.data.errors import DataError
from sparring.measures.statistics import Difference, bootstrap_statistic

BINS = 15
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """The items whose confidence lies in (low, high]; accuracy and confidence are None in an empty one."""

    low: float
    high: float
    n: int
    accuracy: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """ECE and Brier score with intervals clustered by picture, and the reliability diagram's bins."""

    ece: Difference
    brier: Difference
    bins: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        bins = [
            {"low": b.low, "high": b.high, "n": b.n, "accuracy": b.accuracy, "confidence": b.confidence}
            for b in self.bins
        ]
        return {"ece": self.ece.as_dict(), "brier": self.brier.as_dict(), "bins": bins}


def expected_calibration_error(confidences: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """ECE of confidences [N] in [0, 1] and whether each was right [N]."""
    confidence_N, right_N = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if confidence_N.shape != right_N.shape or confidence_N.ndim != 1 or confidence_N.size == 0:
        raise DataError(
            f"confidences {confidence_N.shape} and outcomes {right_N.shape}: two lists of one length are "
            f"needed, not empty ones"
        )
    if not ((confidence_N >= 0) & (confidence_N <= 1)).all():
        raise DataError("a confidence lies outside 0 to 1")
    which_N = _bin_numbers(confidence_N, bins)
    gap_B = np.bincount(which_N, weights=right_N - confidence_N, minlength=bins)
    return float(np.abs(gap_B).sum() / confidence_N.size)


def brier_scores(probabilities: Sequence[Sequence[float]], answers: Sequence[int]) -> Floats:
    """[N]: each item's sum over options of (probability - truth)^2. answers: the index of each item's right
    option.
    """
    if len(probabilities) != len(answers):
        raise DataError(
            f"{len(probabilities)} distributions and {len(answers)} answers: there must be as many"
        )
    scores = [
        sum((p - (option == answer)) ** 2 for option, p in enumerate(own))
        for own, answer in zip(probabilities, answers, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def _bin_numbers(confidence_N: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each confidence; bins are open below and closed above, the first one closed on
    both sides.
    """
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, bins - 1)


def calibration_report(
    probabilities: Sequence[Sequence[float]],
    answers: Sequence[int],
    clusters: Sequence[object],
    *,
    resamples: int,
    seed: int,
) -> CalibrationReport:
    """ECE, Brier score and bins of N items: probabilities[i] over the options of item i (they sum to 1),
    answers[i] its right option's index.

    An item counts as right when its likeliest option is the right one; that may differ from the reply where
    the reply names its option in words.
    """
    if not len(probabilities) == len(answers) == len(clusters):
        raise DataError(
            f"{len(probabilities)} distributions, {len(answers)} answers and {len(clusters)} pictures: "
            f"there must be as many"
        )
    for number, own in enumerate(probabilities):
        if not own or abs(sum(own) - 1) > 1e-6:
            raise DataError(f"item {number}: its option probabilities sum to {sum(own):.6f}, not to 1")
    confidence_N = np.array([max(own) for own in probabilities], dtype=np.float64)
    right_N = np.array(
        [int(np.argmax(own)) == answer for own, answer in zip(probabilities, answers, strict=True)],
        dtype=np.float64,
    )
    brier_N = brier_scores(probabilities, answers)
    figures: dict[str, Callable[[NDArray[np.int64]], float]] = {
        "ece": lambda rows_N: expected_calibration_error(confidence_N[rows_N], right_N[rows_N]),
        "brier": lambda rows_N: float(brier_N[rows_N].mean()),
    }
    ece, brier = (_with_interval(figure, clusters, resamples, seed) for figure in figures.values())
    return CalibrationReport(ece, brier, _reliability(confidence_N, right_N))


def _with_interval(
    statistic: Callable[[NDArray[np.int64]], float], clusters: Sequence[object], resamples: int, seed: int
) -> Difference:
    """A statistic of N items, given by their numbers, with its interval from drawing whole clusters anew.

    ECE is biased upward, by the noise within bins. Drawing anew adds that bias once more: the interval of a
    well calibrated model of few items lies too high, and never holds 0.
    """
    members: dict[str, list[int]] = {}
    for number, cluster in enumerate(clusters):
        members.setdefault(str(cluster), []).append(number)
    rows = [np.array(own) for own in members.values()]
    low, high = bootstrap_statistic(
        lambda drawn: statistic(np.concatenate([rows[cluster] for cluster in drawn])),
        len(rows),
        resamples=resamples,
        seed=seed,
    )
    return Difference(statistic(np.arange(len(clusters))), len(clusters), low, high)


def _reliability(confidence_N: Floats, right_N: Floats) -> tuple[Bin, ...]:
    which_N, edges = _bin_numbers(confidence_N, BINS), np.linspace(0, 1, BINS + 1)
    found = []
    for number in range(BINS):
        own = which_N == number
        n = int(own.sum())
        accuracy, confidence = (
            float(values[own].mean()) if n else None for values in (right_N, confidence_N)
        )
        found.append(Bin(float(edges[number]), float(edges[number + 1]), n, accuracy, confidence))
    return tuple(found)
