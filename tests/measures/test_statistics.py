"""Intervals and tests against scipy and statsmodels, and the coverage of the clustered bootstrap."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from sparring.data.errors import DataError
from sparring.measures import statistics
from sparring.measures.statistics import (
    Pooled,
    bootstrap_statistic,
    hierarchical_bootstrap,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    rate,
    student,
    wilson,
)


def test_wilson_is_scipys_to_the_last_digit() -> None:
    for n in (1, 2, 7, 40, 191, 1000):
        for k in {0, 1, n // 3, n // 2, n - 1, n}:
            interval = binomtest(k, n).proportion_ci(0.95, "wilson")
            assert wilson(k, n) == (interval.low, interval.high), (k, n)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (1, 3), (37, 320), (319, 320), (5000, 9000)])
def test_wilson_is_statsmodels(k: int, n: int) -> None:
    assert wilson(k, n) == pytest.approx(proportion_confint(k, n, alpha=0.05, method="wilson"), abs=1e-9)


def test_a_rate_knows_its_denominator() -> None:
    assert rate([True, False, True, True]).as_dict() == {"value": 0.75, "n": 4, "ci95": list(wilson(3, 4))}
    nothing = rate([])
    assert nothing.as_dict() == {"value": None, "n": 0, "ci95": [0.0, 1.0]}
    json.dumps(nothing.as_dict(), allow_nan=False)
    with pytest.raises(DataError):
        wilson(5, 4)


def test_a_hundred_random_tables_are_statsmodels_and_scipys() -> None:
    """Intervals of rates, exact McNemar and Holm's adjustment."""
    rng = np.random.default_rng(7)
    pvalues = []
    for table in range(100):
        both, only_a, only_b, none = (int(count) for count in rng.integers(0, rng.integers(2, 200), size=4))
        a = np.repeat([True, True, False, False], [both, only_a, only_b, none])
        b = np.repeat([True, False, True, False], [both, only_a, only_b, none])
        found = rate(a)
        if a.size:
            assert (found.low, found.high) == pytest.approx(
                proportion_confint(both + only_a, a.size, method="wilson"), abs=1e-9
            )
        pvalues.append(mcnemar_exact(a, b))
        assert pvalues[-1] == pytest.approx(
            mcnemar([[both, only_a], [only_b, none]], exact=True).pvalue, rel=1e-9
        )
        if only_a + only_b:
            assert pvalues[-1] == pytest.approx(binomtest(only_b, only_a + only_b).pvalue, rel=1e-9)
        few = [float(p) for p in rng.random(rng.integers(1, 9)) ** 3]
        if table % 10 == 0:  # theirs takes long
            assert holm(few) == pytest.approx(multipletests(few, method="holm")[1].tolist(), abs=1e-12)
    assert holm(pvalues) == pytest.approx(multipletests(pvalues, method="holm")[1].tolist(), abs=1e-12)
    assert holm([]) == []


def test_mcnemar_is_statsmodels_and_symmetric() -> None:
    rng = np.random.default_rng(0)
    for n, share in ((20, 0.5), (200, 0.8), (400, 0.6)):
        a, b = rng.random(n) < share, rng.random(n) < share - 0.15
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        assert mcnemar_exact(a, b) == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
        assert mcnemar_exact(a, b) == mcnemar_exact(b, a)
    assert mcnemar_exact([True, False], [True, False]) == 1.0
    with pytest.raises(DataError):
        mcnemar_exact([True], [True, False])


def test_bootstrap_of_lone_items_is_scipys() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(300) < 0.7, rng.random(300) < 0.5
    ours = paired_bootstrap(a, b, None, resamples=20_000, seed=3)
    theirs = bootstrap(
        (a.astype(float) - b.astype(float),),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ours.value == pytest.approx(a.mean() - b.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_bootstrap_direction_seed_and_order() -> None:
    a, b, pictures = [True] * 30 + [False] * 10, [True] * 10 + [False] * 30, [str(i // 2) for i in range(40)]
    gain = paired_bootstrap(a, b, pictures, resamples=500, seed=0)
    loss = paired_bootstrap(b, a, pictures, resamples=500, seed=0)
    assert gain.value == 0.5
    assert 0 < gain.low < 0.5
    assert (loss.value, loss.low, loss.high) == pytest.approx((-0.5, -gain.high, -gain.low))
    assert gain == paired_bootstrap(a, b, pictures, resamples=500, seed=0)
    finer = np.random.default_rng(0).random(40)
    assert paired_bootstrap(finer, b, pictures, resamples=500, seed=0) != paired_bootstrap(
        finer, b, pictures, resamples=500, seed=1
    )


def test_whole_clusters_are_resampled() -> None:
    """Ten copies of every item carry no more evidence than the item: the interval must not shrink when they
    share a cluster.
    """
    rng = np.random.default_rng(2)
    a, b = rng.random(60) < 0.7, rng.random(60) < 0.4
    once = paired_bootstrap(a, b, None, resamples=8000, seed=0)
    copied = paired_bootstrap(
        np.repeat(a, 10), np.repeat(b, 10), [i for i in range(60) for _ in range(10)], resamples=8000, seed=0
    )
    alone = paired_bootstrap(np.repeat(a, 10), np.repeat(b, 10), None, resamples=8000, seed=0)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert alone.high - alone.low < 0.5 * (once.high - once.low)


def test_clusters_of_unequal_size_weigh_by_their_items() -> None:
    """The statistic is a ratio of sums over the clusters drawn, as scipy resamples it."""
    rng = np.random.default_rng(4)
    size = rng.integers(1, 12, size=40)
    # larger clusters gain more, so a mean of means would lie lower
    gain = np.repeat(rng.random(40) + 0.1 * size, size)
    clusters = np.repeat(np.arange(40), size)
    sums = np.bincount(clusters, weights=gain)
    ours = paired_bootstrap(gain, np.zeros_like(gain), clusters.tolist(), resamples=10_000, seed=0)
    theirs = bootstrap(
        (sums, size),
        lambda s, n, axis=-1: s.sum(axis) / n.sum(axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.value == pytest.approx(gain.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_the_resampling_in_parts_is_the_resampling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.arange(50) % 3 == 0, np.arange(50) % 4 == 0
    at_once = paired_bootstrap(a, b, None, resamples=700, seed=9)
    monkeypatch.setattr("sparring.measures.statistics._CELLS", 50 * 64)
    assert paired_bootstrap(a, b, None, resamples=700, seed=9) == at_once


def test_coverage_of_the_clustered_bootstrap() -> None:
    """Pictures differ in how much they gain and carry two to four items each: 95 % intervals hold the truth
    about 95 % of the time.
    """
    rng = np.random.default_rng(3)
    truth, hits, naive_hits, trials = 0.2, 0, 0, 1000
    for trial in range(trials):
        sizes = rng.integers(2, 5, size=100)
        own = np.repeat(rng.normal(truth, 0.5, size=100), sizes)
        gain = own + rng.normal(0, 0.2, size=own.size)
        pictures = np.repeat(np.arange(100), sizes).tolist()
        result = paired_bootstrap(gain, np.zeros_like(gain), pictures, resamples=400, seed=trial)
        hits += result.low <= truth <= result.high
        if trial < 100:
            naive = paired_bootstrap(gain, np.zeros_like(gain), None, resamples=400, seed=trial)
            naive_hits += naive.low <= truth <= naive.high
    assert 0.93 <= hits / trials <= 0.97
    assert naive_hits / 100 < 0.85


def test_bootstrap_of_a_figure_is_that_of_its_mean_where_it_is_a_mean() -> None:
    rng = np.random.default_rng(5)
    values = rng.random(80)
    found = bootstrap_statistic(lambda drawn: float(values[list(drawn)].mean()), 80, resamples=4000, seed=0)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.006)
    assert bootstrap_statistic(lambda drawn: 0.0, 0, resamples=10, seed=0) == (None, None)


def test_empty_and_ill_matched_input() -> None:
    nothing = paired_bootstrap([], [], [], resamples=100, seed=0)
    assert nothing.as_dict() == {"value": None, "n": 0, "ci95": [None, None]}
    with pytest.raises(DataError):
        paired_bootstrap([1.0], [1.0, 0.0], None, resamples=100, seed=0)
    with pytest.raises(DataError, match="cluster"):
        paired_bootstrap([1.0, 0.0], [1.0, 0.0], ["a"], resamples=100, seed=0)


def test_the_hierarchical_bootstrap_is_that_of_all_resamples_written_out() -> None:
    """Three seeds of two, one and three items: every draw of seeds, and for each of them every draw of its
    items."""
    seeds = [[0.0, 1.0], [0.25], [0.0, 0.5, 2.0]]
    means = [[np.mean(items) for items in product(own, repeat=len(own))] for own in seeds]
    values, weights = [], []
    for drawn in product(range(3), repeat=3):
        for picked in product(*(means[place] for place in drawn)):
            values.append(np.mean(picked))
            weights.append(1 / 27 / np.prod([len(means[place]) for place in drawn]))
    order = np.argsort(values)
    reached = np.cumsum(np.array(weights)[order])
    low, high = (np.array(values)[order][np.searchsorted(reached, tail)] for tail in (0.025, 0.975))
    found = hierarchical_bootstrap(seeds, resamples=100_000, seed=1)
    assert found.value == pytest.approx((0.5 + 0.25 + 2.5 / 3) / 3)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert (found.n, found.means) == (6, pytest.approx((0.5, 0.25, 2.5 / 3)))
    assert found == hierarchical_bootstrap(seeds, resamples=100_000, seed=1)


def test_seeds_that_differ_by_rounding_alone_say_the_same() -> None:
    """Their spread is no spread, from which p would be next to nothing."""
    for means, p in (((0.1, 0.1, 0.1), None), ((0.1 + 0.2, 0.3, 0.3), None), ((1e-17, 0.0, -1e-17), 1.0)):
        assert Pooled(sum(means) / 3, 3, None, None, means).p == p


def test_of_one_seed_the_hierarchical_bootstrap_is_scipys() -> None:
    values = np.random.default_rng(3).normal(size=60)
    found = hierarchical_bootstrap([values], resamples=20_000, seed=0)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=5).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert found.p is None


def test_items_of_one_picture_are_drawn_together() -> None:
    values = np.random.default_rng(3).normal(size=50)
    once = hierarchical_bootstrap([values, values + 1], resamples=4000, seed=0)
    copies, owners = np.repeat(values, 4), np.repeat(np.arange(50), 4)
    found = hierarchical_bootstrap([copies, copies + 1], [owners, owners], resamples=4000, seed=0)
    assert (found.low, found.high) == pytest.approx((once.low, once.high))


def test_items_that_are_not_counted_are_in_no_mean() -> None:
    with_gap = hierarchical_bootstrap([[1.0, np.nan, 0.0, 1.0]], resamples=500, seed=0)
    assert (with_gap.value, with_gap.n) == (pytest.approx(2 / 3), 3)
    nothing = hierarchical_bootstrap([[1.0, 0.0], [np.nan]], resamples=500, seed=0)
    assert (nothing.value, nothing.low, nothing.p, nothing.means) == (None, None, None, (0.5, None))


def test_p_is_students_t_of_the_seeds_means() -> None:
    rng = np.random.default_rng(11)
    for shift in (0.0, 0.1, 1.0):
        seeds = [rng.normal(shift, 1, size=30) for _ in range(5)]
        found = hierarchical_bootstrap(seeds, resamples=100, seed=0)
        assert found.p == pytest.approx(ttest_1samp([own.mean() for own in seeds], 0).pvalue)
    assert hierarchical_bootstrap([[0.0], [0.0]], resamples=100, seed=0).p == 1.0
    assert hierarchical_bootstrap([[0.5], [0.5]], resamples=100, seed=0).p is None


def test_students_interval_is_scipys() -> None:
    rng = np.random.default_rng(13)
    for n in (2, 3, 5):
        means = rng.normal(0.3, 0.1, size=n).tolist()
        theirs = ttest_1samp(means, 0).confidence_interval(0.95)
        assert student(means) == pytest.approx((theirs.low, theirs.high))
    assert student([0.3]) is None
    assert student([]) is None
    assert student([0.1 + 0.2, 0.3]) is None  # they differ by rounding alone


CELLS = statistics._CELLS


def drawn_at_once(clusters: int, resamples: int, seed: tuple[int, int]) -> NDArray[np.float64]:
    """[R, C]: the counts of all resamples, whole."""
    drawn_RC = np.random.default_rng(seed).integers(clusters, size=(resamples, clusters))
    offset_R = np.arange(resamples)[:, None] * clusters
    counts = np.bincount((drawn_RC + offset_R).ravel(), minlength=resamples * clusters)
    return counts.reshape(resamples, clusters).astype(np.float64)


@pytest.mark.parametrize("kept", [2**29, 100_000, 1000])
@pytest.mark.parametrize("cells", [CELLS, 70 * 64])
def test_draws_that_are_kept_in_parts_or_not_at_all_are_those_at_once(
    monkeypatch: pytest.MonkeyPatch, kept: int, cells: int
) -> None:
    """To the last digit while they are one part."""
    assert CELLS >= 320 * 10_000  # the pictures and resamples of docs/evidence.md
    monkeypatch.setattr(statistics, "_KEPT", kept)
    monkeypatch.setattr(statistics, "_CELLS", cells)
    monkeypatch.setattr(statistics, "_kept", {})
    rng = np.random.default_rng(6)
    for place in (0, 1, 2, 1):
        values = rng.integers(0, 16, size=70) / 15
        size_C, drawn_RC = np.ones(70), drawn_at_once(70, 500, (0, place))
        expected = (drawn_RC @ values) / (drawn_RC @ size_C)
        found = statistics._means_of_seed(values, None, 500, (0, place))
        if cells == CELLS:
            assert found.tolist() == expected.tolist()
        assert found == pytest.approx(expected, rel=1e-12)
        assert sum(part.nbytes for own in statistics._kept.values() for part in own) <= kept
    # 500 x 70 counts: 280,000 bytes as numbers that are multiplied, 35,000 as small ones
    kept_draws = {1000: 0, 100_000: 0 if cells == CELLS else 2, 2**29: 3}
    assert len(statistics._kept) == kept_draws[kept]
