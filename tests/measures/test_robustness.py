"""Figures of attacks by hand, and properties that would break were they wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from sparring.data.errors import DataError
from sparring.measures.robustness import Played, robustness_report, transfer_matrix
from sparring.measures.statistics import holm

CLEAN = np.array([1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
FIRST = np.array([1, 1, 0, 0, 0, 1, 1, 0], dtype=bool)
SECOND = np.array([1, 0, 1, 0, 1, 1, 0, 0], dtype=bool)
VALID = np.array([[1, 1, 1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 0, 1, 1]], dtype=bool)


def report(*played: Played) -> dict:  # type: ignore[type-arg]
    return robustness_report(CLEAN.tolist(), played, list("aabbccdd"), resamples=300, seed=0)


def test_edits_that_are_not_shown_by_hand() -> None:
    """Right when clean: all but item 3. First edits: 0 and 3 fooled, 2 fooled by a false label, 1 and 4 not
    shown; second ones: 1, and 0 again, 2 not shown.
    """
    clean = np.array([1, 1, 1, 0, 1, 1], dtype=bool)
    shown = np.array([[1, 0, 1, 1, 0, 1], [1, 1, 0, 1, 1, 1]], dtype=bool)
    answered = np.array([[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]], dtype=bool)
    valid = shown & np.array([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]], dtype=bool)
    played = Played("a", np.where(shown, answered, clean), valid, shown_SN=shown)
    found = robustness_report(clean.tolist(), [played], list("aabccd"), resamples=300, seed=0)
    own = found["attackers"]["a"]
    tries = [(k["asr"]["value"], k["asr"]["n"], k["valid_asr"]["value"]) for k in own["asr_at_k"]]
    assert tries == [(2 / 5, 5, 1 / 5), (3 / 5, 5, 2 / 5)]
    # Item 3 is wrong on an edit that it was shown; items that were not shown fool nobody, whatever stands there.
    assert own["asr_unconditional"]["value"] == 3 / 6
    assert (own["harmed"], own["rescued"]) == (2, 0)
    assert found["robust_accuracy"]["value"] == 2 / 6


def test_one_attack_by_hand() -> None:
    found = report(Played("fog", np.stack([FIRST, SECOND]), VALID))
    own = found["attackers"]["fog"]
    assert own["accuracy"]["value"] == 4 / 8
    assert (own["asr"]["value"], own["asr"]["n"]) == (3 / 6, 6)
    assert own["asr_unconditional"]["value"] == 4 / 8
    # Edit 3 is not valid: it fooled nobody.
    assert (own["valid_asr"]["value"], own["valid_asr"]["n"]) == (2 / 6, 6)
    # Clean answers stand where the edit is not valid (items 3 and 6).
    assert own["valid_accuracy"]["value"] == 4 / 8
    assert (own["harmed"], own["rescued"], own["net_flips"]) == (3, 1, 2)
    assert own["mcnemar"] == own["mcnemar_holm"] == pytest.approx(binomtest(3, 4, 0.5).pvalue)
    assert own["drop"]["value"] == pytest.approx(2 / 8)
    assert [tries["asr"]["value"] for tries in own["asr_at_k"]] == [3 / 6, 4 / 6]
    assert [tries["valid_asr"]["value"] for tries in own["asr_at_k"]] == [2 / 6, 4 / 6]
    assert found["clean_accuracy"]["value"] == 6 / 8
    # Right when clean and about both samples: items 0 and 5; with valid edits alone the same two.
    assert found["robust_accuracy"]["value"] == found["valid_robust_accuracy"]["value"] == 2 / 8
    json.dumps(found, allow_nan=False)


def test_controls_are_played_and_enter_no_worst_case() -> None:
    everything = np.ones((1, 8), dtype=bool)
    ruin = Played("round trip", np.zeros((1, 8), dtype=bool), everything, control=True)
    found = report(Played("fog", FIRST[None], VALID[:1]), ruin)
    assert found["attacks"] == 1
    assert found["attackers"]["round trip"]["asr"]["value"] == 1.0
    assert "mcnemar_holm" not in found["attackers"]["round trip"]
    assert found["robust_accuracy"]["value"] == 3 / 8
    assert report(ruin)["robust_accuracy"] is None
    with pytest.raises(DataError, match="two attackers have one name"):
        report(ruin, ruin)


def test_worst_case_never_rises_and_asr_at_k_never_falls() -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        clean = rng.random(40) < 0.8
        played = [Played(str(i), rng.random((3, 40)) < 0.7, rng.random((3, 40)) < 0.7) for i in range(3)]
        figures = [
            robustness_report(clean.tolist(), played[:n], range(40), resamples=100, seed=0) for n in (1, 2, 3)
        ]
        worst = [own["robust_accuracy"]["value"] for own in figures]
        assert worst == sorted(worst, reverse=True)
        for own in figures[-1]["attackers"].values():
            for name in ("asr", "valid_asr"):
                tries = [each[name]["value"] for each in own["asr_at_k"]]
                assert tries == sorted(tries)
                assert tries[0] == own[name]["value"]
            assert own["valid_asr"]["value"] <= own["asr"]["value"]
        assert figures[-1]["valid_robust_accuracy"]["value"] >= figures[-1]["robust_accuracy"]["value"]


def test_transfer_is_over_what_the_target_gets_right() -> None:
    other = np.array([1, 0, 0, 0, 0, 0, 1, 1], dtype=bool)
    made = {
        "base": {
            "base": Played("pgd", FIRST[None], VALID[:1]),
            "last": Played("pgd", SECOND[None], VALID[:1]),
        },
        "last": {},
    }
    found = transfer_matrix({"base": CLEAN.tolist(), "last": other.tolist()}, made)
    assert (found["made_against"], found["answered_by"]) == (["base", "last"], ["base", "last"])
    assert (found["asr"][0][0]["asr"]["value"], found["asr"][0][0]["asr"]["n"]) == (3 / 6, 6)
    assert (found["asr"][0][1]["asr"]["value"], found["asr"][0][1]["asr"]["n"]) == (2 / 3, 3)
    assert found["asr"][0][1]["valid_asr"]["value"] == 1 / 3
    assert found["asr"][1] == [None, None]


def test_holm_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        p = rng.random(n) ** 3
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
    assert holm([]) == []


def test_pictures_that_came_back_as_they_were_are_in_no_figure_of_the_attack() -> None:
    clean = [True, True, True, False]
    right = np.array([[False, True, True, False], [True, False, True, True]])
    changed = np.array([[True, False, True, True], [True, True, False, True]])
    played = Played("paste", right, changed.copy(), changed_SN=changed)
    report = robustness_report(clean, [played], ["a", "b", "c", "d"], resamples=100, seed=0)
    own = report["attackers"]["paste"]
    assert own["unchanged"] == 2
    # of the first and third: the second was left as it was
    assert (own["asr"]["value"], own["asr"]["n"]) == (1 / 2, 2)
    assert (own["valid_asr"]["n"], own["valid"]["n"], own["valid"]["value"], own["drop"]["n"]) == (
        2,
        3,
        1.0,
        3,
    )
    assert [(each["asr"]["value"], each["asr"]["n"]) for each in own["asr_at_k"]] == [(1 / 2, 2), (2 / 3, 3)]
    assert own["accuracy"]["n"] == 3
    # An unchanged picture is answered as the clean one: it takes nothing from robust accuracy.
    assert report["robust_accuracy"]["value"] == report["valid_robust_accuracy"]["value"] == 1 / 4
    alone = played.only([1, 2])
    assert alone.changed_SN.tolist() == [[False, True], [True, False]]
    matrix = transfer_matrix({"t": clean}, {"s": {"t": played}})
    assert matrix["asr"][0][0]["asr"]["n"] == 2
