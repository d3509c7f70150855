"""Intervals and tests: Wilson for rates, the paired bootstrap clustered by picture for differences, exact
McNemar for paired accuracy, the hierarchical bootstrap for what was played with several seeds, Student's t
for what is one number a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtri, stdtr, stdtrit

from sparring.data.errors import DataError

CONFIDENCE = 0.95
Z = float(ndtri(0.5 + 0.5 * CONFIDENCE))
ROUNDING = 1e-12
"""What sums of the same numbers in another order may differ by: less is no difference."""
_CELLS = 2**22  # entries of the resampling matrix held at once
_KEPT = 2**29  # bytes of draws that are kept for the next figure


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of `n`, with its 95 % Wilson interval; `value` is None where n is 0."""

    value: float | None
    n: int
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        return {"value": self.value, "n": self.n, "ci95": [self.low, self.high]}


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference over `n` items, with its 95 % interval from the clustered bootstrap; None and
    no interval where n is 0.
    """

    value: float | None
    n: int
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, Any]:
        return {"value": self.value, "n": self.n, "ci95": [self.low, self.high]}


@dataclass(frozen=True, slots=True)
class Pooled:
    """A mean over seeds of means over items, with its 95 % interval from the hierarchical bootstrap; None and
    no interval where a seed has nothing to count. n: items in all. means: each seed's own. Of figures that
    are one number a seed, n counts the seeds, and the interval is Student's t, None as of `student`.
    """

    value: float | None
    n: int
    low: float | None
    high: float | None
    means: tuple[float | None, ...]

    @property
    def p(self) -> float | None:
        """Two-sided, of a mean of 0: Student's t of the seeds' means. None for fewer than two seeds, one that
        counts nothing, or where all say the same, which leaves nothing to compare their mean with, unless
        that is 0: then 1.
        """
        means = np.array([mean for mean in self.means if mean is not None])
        if self.value is None or means.size < 2:
            return None
        spread = float(means.std(ddof=1))
        if spread < ROUNDING:
            return 1.0 if abs(self.value) < ROUNDING else None
        return 2 * float(stdtr(means.size - 1, -abs(self.value) / (spread / math.sqrt(means.size))))

    def as_dict(self) -> dict[str, Any]:
        found = {"value": self.value, "n": self.n, "ci95": [self.low, self.high]}
        return found | {"seeds": list(self.means)}


def wilson(k: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of k successes in n; (0, 1) where n is 0. (Newcombe 1998, method 3.)

    To the last digit scipy's `binomtest(k, n).proportion_ci`, without the exact test that comes before it
    there and takes milliseconds.
    """
    if not 0 <= k <= n:
        raise DataError(f"{k} successes in {n} trials is not possible")
    if n == 0:
        return 0.0, 1.0
    p, z2 = k / n, Z**2
    whole = 2 * (n + z2)
    center, half = (2 * n * p + z2) / whole, Z / whole * math.sqrt(4 * n * p * (1 - p) + z2)
    return (center - half if k else 0.0), (center + half if k < n else 1.0)


def rate(hits: ArrayLike) -> Rate:
    """The share of True among `hits` [N]."""
    hits_N = np.asarray(hits, dtype=bool)
    k, n = int(hits_N.sum()), int(hits_N.size)
    return Rate(k / n if n else None, n, *wilson(k, n))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[object] | None, *, resamples: int, seed: int
) -> Difference:
    """Mean of a - b over N paired items, with a percentile interval from resampling whole clusters.

    a, b: [N] of numbers or truth values, the same items in the same order; positive means that a is larger.
    clusters: [N] of what the items share (the picture they show), compared as text; None: every item stands
    alone. Resampled with replacement are the clusters; the statistic is sum over count of the items drawn,
    because clusters differ in size. The same seed gives the same interval.
    """
    difference_N = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if np.shape(a) != np.shape(b) or difference_N.ndim != 1:
        raise DataError(
            f"paired values have the shapes {np.shape(a)} and {np.shape(b)}: two of one length are needed"
        )
    n = difference_N.size
    if n == 0:
        return Difference(None, 0, None, None)
    member_N = np.arange(n) if clusters is None else _cluster_numbers(clusters, n)
    size_C = np.bincount(member_N).astype(np.float64)
    sum_C = np.bincount(member_N, weights=difference_N).astype(np.float64)
    means_R = _resampled_means(sum_C, size_C, resamples, np.random.default_rng(seed))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means_R, [tail, 1 - tail])
    return Difference(float(difference_N.mean()), n, float(low), float(high))


def _cluster_numbers(clusters: Sequence[object], n: int) -> NDArray[np.int64]:
    if len(clusters) != n:
        raise DataError(f"{len(clusters)} cluster names for {n} items: one an item is needed")
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(str(cluster), len(numbers)) for cluster in clusters], dtype=np.int64)


def _resampled_means(
    sum_C: NDArray[np.float64], size_C: NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    count = sum_C.size
    rows = max(1, _CELLS // count)
    means: list[NDArray[np.float64]] = []
    for start in range(0, resamples, rows):
        drawn_RC = rng.integers(count, size=(min(rows, resamples - start), count))
        means.append(sum_C[drawn_RC].sum(1) / size_C[drawn_RC].sum(1))
    return np.concatenate(means)


def hierarchical_bootstrap(
    seeds: Sequence[ArrayLike],
    clusters: Sequence[Sequence[object]] | None = None,
    *,
    resamples: int,
    seed: int,
) -> Pooled:
    """The mean over seeds of the mean over each one's items, with a percentile interval from drawing seeds
    with replacement, then of each its clusters.

    seeds: of each [N] values; nan for an item that is not counted. clusters: of each what its items share
    (the picture that they show); None: every item stands alone. A resample in which a seed has nothing to
    count is left out. Of few seeds the intervals are too narrow where these differ by more than the standard
    error of one, and too wide where they differ less. The same seed gives the same interval.
    """
    values = [np.asarray(own, dtype=np.float64) for own in seeds]
    n = sum(int(np.isfinite(own).sum()) for own in values)
    means = tuple(float(np.nanmean(own)) if np.isfinite(own).any() else None for own in values)
    told = [mean for mean in means if mean is not None]
    if not values or len(told) < len(values):
        return Pooled(None, n, None, None, means)
    mean_SR = np.stack(
        [
            _means_of_seed(own, None if clusters is None else clusters[place], resamples, (seed, place))
            for place, own in enumerate(values)
        ]
    )
    rng = np.random.default_rng((seed, len(values)))
    drawn_RS = rng.integers(len(values), size=(resamples, len(values)))
    # A seed that is drawn twice has its items drawn twice.
    pooled_R = mean_SR[drawn_RS, rng.integers(resamples, size=drawn_RS.shape)].mean(1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(pooled_R, [tail, 1 - tail])
    return Pooled(float(np.mean(told)), n, float(low), float(high), means)


def _means_of_seed(
    values_N: NDArray[np.float64], clusters: Sequence[object] | None, resamples: int, seed: tuple[int, int]
) -> NDArray[np.float64]:
    member_N = np.arange(values_N.size) if clusters is None else _cluster_numbers(clusters, values_N.size)
    counted_N = np.isfinite(values_N)
    size_C = np.bincount(member_N, weights=counted_N).astype(np.float64)
    sum_C = np.bincount(member_N, weights=np.where(counted_N, values_N, 0.0)).astype(np.float64)
    means = list[NDArray[np.float64]]()
    for drawn_RC in _times_drawn(size_C.size, resamples, seed):
        counts_RC = drawn_RC.astype(np.float64, copy=False)
        with np.errstate(invalid="ignore"):
            means.append((counts_RC @ sum_C) / (counts_RC @ size_C))
    return np.concatenate(means)


_kept: dict[tuple[int, int, tuple[int, int]], list[NDArray[Any]]] = {}


def _times_drawn(clusters: int, resamples: int, seed: tuple[int, int]) -> Iterable[NDArray[Any]]:
    """How often every resample draws each cluster, in parts of [R, C]. Kept, those that were used last: all
    figures of a study draw alike.
    """
    if resamples * clusters * _counts(clusters, resamples).itemsize > _KEPT:
        return _draw(clusters, resamples, seed)
    key = clusters, resamples, seed
    _kept[key] = parts = _kept.pop(key, None) or list(_draw(*key))
    while sum(part.nbytes for own in _kept.values() for part in own) > _KEPT:
        del _kept[next(iter(_kept))]
    return parts


def _draw(clusters: int, resamples: int, seed: tuple[int, int]) -> Iterator[NDArray[Any]]:
    rng, rows = np.random.default_rng(seed), max(1, _CELLS // clusters)
    for start in range(0, resamples, rows):
        drawn_RC = rng.integers(clusters, size=(min(rows, resamples - start), clusters))
        drawn_RC += np.arange(len(drawn_RC))[:, None] * clusters
        counts = np.bincount(drawn_RC.ravel(), minlength=drawn_RC.size).reshape(drawn_RC.shape)
        yield counts.astype(_counts(clusters, resamples))


def _counts(clusters: int, resamples: int) -> np.dtype[Any]:
    """What counts are kept as: few as they are multiplied, many as the smallest that holds them."""
    return np.dtype(np.float64) if resamples * clusters <= _CELLS else np.min_scalar_type(clusters)


def student(means: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of Student's t of the seeds' means. None of fewer than two, or where all say the same,
    which tells nothing of how far others would lie from them.
    """
    spread = float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
    if spread < ROUNDING:
        return None
    half = float(stdtrit(len(means) - 1, 0.5 + 0.5 * CONFIDENCE)) * spread / math.sqrt(len(means))
    mean = float(np.mean(means))
    return mean - half, mean + half


def mcnemar_exact(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided exact McNemar p-value of two paired [N] lists of right and wrong: a binomial test on the
    pairs that disagree; 1 where none does.
    """
    a_N, b_N = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a_N.shape != b_N.shape:
        raise DataError(
            f"paired answers have the shapes {a_N.shape} and {b_N.shape}: two of one length are needed"
        )
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    if only_a + only_b == 0:
        return 1.0
    # At a half the binomial is symmetric, so both tails are twice the smaller one.
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def bootstrap_statistic(
    statistic: Callable[[Sequence[int]], float], clusters: int, *, resamples: int, seed: int
) -> tuple[float | None, float | None]:
    """95 % percentile interval of a statistic of whole clusters, drawn with replacement; (None, None) of no
    cluster.

    statistic: takes the numbers of the clusters drawn, as many as there are, some of them more than once.
    For figures that are no mean over items.
    """
    if clusters == 0:
        return None, None
    rng = np.random.default_rng(seed)
    found = [statistic(rng.integers(clusters, size=clusters).tolist()) for _ in range(resamples)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def holm(pvalues: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's step-down method, in the order given: those below 0.05 hold together at
    that level (Holm 1979).
    """
    order = np.argsort(pvalues, kind="stable")
    adjusted, running = [0.0] * len(order), 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * float(pvalues[place])))
        adjusted[place] = running
    return adjusted
