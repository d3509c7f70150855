"""Figures of attacks by hand, and properties that would break were they wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from small_vlms import noise_pictures
from sparring.attackers.rivals.paste import Paste
from sparring.config import JudgeSettings, PasteSettings
from sparring.data.errors import DataError
from sparring.data.records import Edit, Target, VisualQuestion
from sparring.evaluation.robustness import Played, gate_edits, robustness_report, transfer_matrix
from sparring.evaluation.statistics import holm

CLEAN = np.array([1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
FIRST = np.array([1, 1, 0, 0, 0, 1, 1, 0], dtype=bool)
SECOND = np.array([1, 0, 1, 0, 1, 1, 0, 0], dtype=bool)
VALID = np.array([[1, 1, 1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 0, 1, 1]], dtype=bool)


def report(*played: Played) -> dict:  # type: ignore[type-arg]
    return robustness_report(CLEAN.tolist(), played, list("aabbccdd"), resamples=300, seed=0)


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
        figures = [robustness_report(clean.tolist(), played[:n], range(40), resamples=100, seed=0) for n in (1, 2, 3)]
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
    made = {"base": {"base": Played("pgd", FIRST[None], VALID[:1]), "last": Played("pgd", SECOND[None], VALID[:1])}, "last": {}}
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


def test_the_gate_takes_pictures_on_a_widened_canvas_and_questions_without_boxes(tmp_path: Path) -> None:
    cleans = noise_pictures(3)
    questions = [
        VisualQuestion("wide", Path("x.png"), "Where?", ("left", "right"), "A", (Target("cup", (8, 8, 40, 40)),)),
        VisualQuestion("ruined", Path("x.png"), "Where?", ("left", "right"), "A", (Target("cup", (8, 8, 40, 40)),)),
        VisualQuestion("boxless", Path("x.png"), "Where?", ("left", "right"), "A"),
    ]
    wide = Paste(PasteSettings(mode="insert")).edit(questions[:1], cleans[:1], seed=0)[0]
    assert wide.image.size != cleans[0].size
    other = noise_pictures(3, seed=9)
    edits = [wide, *(Edit(question.id, "x", "", 0, image) for question, image in zip(questions[1:], other[1:], strict=True))]
    gates = gate_edits(questions, cleans, edits, JudgeSettings(), None, torch.device("cpu"))
    assert [gate.accepted for gate in gates] == [True, False, True]
    assert gates[0].integrity == pytest.approx(1.0)
    small = Edit("wide", "x", "", 0, cleans[0].resize((32, 32)))
    with pytest.raises(DataError, match='question "wide": the edit is 32 x 32 pixels, smaller'):
        gate_edits(questions[:1], cleans[:1], [small], JudgeSettings(), None, torch.device("cpu"))
