"""A study's figures from what probes noted, against sums by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor

from sparring.config import ArmSettings, PrimarySettings, Recipe, StudySettings
from sparring.measures.statistics import Pooled
from sparring.recipes import load_recipe
from sparring.report.numbers import ON_PAPER, color_of
from sparring.report.study import (
    ACCENT,
    GAIN_HEIGHT,
    GAINS_TOP,
    MARGIN,
    SOFT,
    contents_of,
    headline,
    write_study_report,
)
from sparring.study.figures import PRIMARY, WORST, environments_of, results_of, with_p
from sparring.study.plan import Cell, Study
from sparring.study.table import computed_with, tables, write_study_table

PICTURES = ["p0", "p1", "p2", "p3"]


def write_probe(
    out: Path, arm: str, seed: int, clean: str, attackers: dict[str, dict[str, str]], **other: Any
) -> None:
    folder = Cell("probe", arm, seed).folder(out)
    folder.mkdir(parents=True)
    played = {"control": False, "valid": "1111", "changed": "1111"}
    own = {
        "conditions": {"plain": clean},
        "attackers": {name: played | one for name, one in attackers.items()},
    }
    ids = other.get("ids", ["q0", "q1", "q2", "q3"])
    pictures = other.get("pictures", PICTURES)
    outcomes = {"schema": 1, "ids": ids, "pictures": pictures, "defenders": {arm: own}}
    again = {"control": True, "accuracy": {"value": 0.5}}
    results = {
        "robustness": {"attackers": {"asked again": again}},
        "hallucination": None,
        "calibration": {"ece": other.get("ece", 0.25), "brier": {"value": other.get("brier")}},
        "adaptive_training": {"learned": other.get("learned", True)},
    }
    told = {"defenders": {arm: results}, "warnings": other.get("warnings", [])}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))
    (folder / "results.json").write_text(json.dumps(told))
    # Both arms are of one game.
    game = Cell("game", "a", seed).folder(out)
    game.mkdir(parents=True, exist_ok=True)
    rounds = [{"defender": {"updates": 72, "rollouts": 41472, "kept_groups": 100 * n}} for n in (1, 2, 3)]
    (game / "summary.json").write_text(json.dumps({"rounds": rounds}))


@pytest.fixture
def study() -> Study:
    recipe: Recipe = load_recipe("arena")
    settings = StudySettings(
        name="small",
        seeds=(1, 2),
        arms={"a": ArmSettings(recipe="arena"), "b": ArmSettings(recipe="arena")},
        baseline="b",
        primary=PrimarySettings(arm="a", opponents=("light", "cut_out")),
        opponents={"cut_out": "paste:add"},
        means={"two": ("light", "fog")},
        shifts={"light": ("light:0.75",), "fog": ("corruption:fog:1", "corruption:fog:2")},
        resamples=200,
    )
    return Study(settings, {"a": recipe, "b": recipe})


FOG = {"fog corruption:fog:1": {"right": "1100"}, "fog corruption:fog:2": {"right": "1010"}}


def test_every_measure_is_the_sum_by_hand(study: Study, tmp_path: Path) -> None:
    for seed in (1, 2):
        shown = {
            "light": {"right": "1001", "valid": "0000"},  # whatever the checks say
            "cut_out": {"right": "0001", "valid": "1001", "changed": "1101"},
        }
        write_probe(tmp_path, "a", seed, "1110", shown | FOG)
    write_probe(
        tmp_path, "b", 1, "0110", {"light": {"right": "0000"}, "cut_out": {"right": "0000"}} | FOG, ece=0.5
    )
    results = results_of(study, tmp_path, {Cell("probe", "b", 2): "it broke"})
    found = {name: one["value"] for name, one in results["arms"]["a"]["measures"].items()}
    assert found == {
        "clean accuracy": 3 / 4,
        "accuracy under light": 2 / 4,
        "drop under light": 1 / 4,
        "ASR of light": 2 / 3,
        "accuracy under fog": 0.5,  # 1, 1/2, 1/2, 0
        "drop under fog": 1 / 4,
        "ASR of fog": pytest.approx(1 / 3),  # 0, 1/2, 1/2
        # q1's edit is not valid, so its clean answer stands; q2's picture was not changed
        "valid accuracy under cut_out": pytest.approx(2 / 3),
        "valid drop under cut_out": 0,
        "valid ASR of cut_out": 1 / 2,
        WORST: 0,
        # q2's clean answer stands there, so that every opponent counts alike
        PRIMARY: (1 / 2 + 1 / 2 + 1 / 2 + 1) / 4,
        "accuracy, mean of two": 2 / 4,  # (1, 0, 0, 1 under light) and (1, 1/2, 1/2, 0 under fog)
        "ECE, 15 bins": 0.25,
        "accuracy under asked again (control)": 0.5,
    }
    assert results["arms"]["a"]["seeds"] == [1, 2]
    assert results["arms"]["a"]["measures"]["clean accuracy"]["seeds"] == [0.75, 0.75]
    assert results["arms"]["b"]["seeds"] == [1]
    assert results["differences"]["seeds"] == {"a": [1]}
    assert results["arms"]["a"]["passed"] == {"cut_out": [pytest.approx(2 / 3)] * 2}
    trained = {"updates": 216, "rollouts": 124416, "kept_groups": 600}
    assert results["arms"]["a"]["training"] == [trained, trained]
    less = results["differences"]["of"]["a"]  # of seed 1 alone, the only one of both
    assert less["clean accuracy"] == {
        **less["clean accuracy"],
        "value": 0.25,
        "n": 4,
        "seeds": [0.25],
        "p": None,
    }
    assert less["ECE, 15 bins"]["value"] == -0.25
    assert results["failed"] == {"probe b-2": "it broke"}
    json.dumps(results, allow_nan=False)


def test_differences_are_of_the_questions_that_both_were_asked(study: Study, tmp_path: Path) -> None:
    shown = {"light": {"right": "1111"}, "cut_out": {"right": "1111"}} | FOG
    for seed in (1, 2):
        write_probe(tmp_path, "a", seed, "1100", shown)
        ids, pictures = ["q3", "q1", "other", "q0"], ["p3", "p1", "p2", f"p{seed}"]
        write_probe(tmp_path, "b", seed, "1000", shown, ids=ids, pictures=pictures)
    results = results_of(study, tmp_path, {})
    found = results["differences"]["of"]["a"]["clean accuracy"]
    assert (found["value"], found["n"]) == (pytest.approx((1 + 1 - 1) / 3), 6)
    assert results["warnings"] == [
        f"a: with seed {seed} 1 of 3 questions that b was asked too were about other pictures there: their "
        "differences are not of the same questions. Delete the probe whose pictures are wrong, and it is "
        "done anew."
        for seed in (1, 2)
    ]


def test_what_is_one_number_a_seed_has_students_t(study: Study, tmp_path: Path) -> None:
    shown = {"light": {"right": "1111"}, "cut_out": {"right": "1111"}} | FOG
    for seed, ece, base in ((1, 0.1, 0.2), (2, 0.2, 0.25)):
        write_probe(tmp_path, "a", seed, "1100", shown, ece=ece, brier=0.1)
        write_probe(tmp_path, "b", seed, "1100", shown, ece=base, brier=0.1)
    results = results_of(study, tmp_path, {})
    found = results["arms"]["a"]["measures"]
    half = 12.7062047 * 0.05  # t of one degree of freedom, times the standard error
    assert found["ECE, 15 bins"]["ci95"] == pytest.approx([0.15 - half, 0.15 + half])
    assert (found["ECE, 15 bins"]["n"], found["ECE, 15 bins"]["seeds"]) == (2, [0.1, 0.2])
    assert found["Brier score"]["ci95"] == [None, None]  # both say the same
    less = results["differences"]["of"]["a"]["ECE, 15 bins"]
    assert less["ci95"] == pytest.approx([-0.075 - half / 2, -0.075 + half / 2])
    rows = {row[0]: row[1] for row in tables(results)[2].rows}
    assert rows["Brier score"] == "0.100 (no interval) 2"
    json.dumps(results, allow_nan=False)
    alone = Study(study.settings.model_copy(update={"seeds": (1,)}), study.recipes)
    one = results_of(alone, tmp_path, {})["arms"]["a"]["measures"]["ECE, 15 bins"]
    assert (one["value"], one["n"], one["ci95"]) == (0.1, 1, [None, None])


def test_a_measure_that_a_seed_cannot_count_is_told(study: Study, tmp_path: Path) -> None:
    shown = {"light": {"right": "1111"}, "cut_out": {"right": "1111"}} | FOG
    unchanged = {"right": "1111", "changed": "0000"}
    for arm in ("a", "b"):
        write_probe(tmp_path, arm, 1, "1100", shown)
        write_probe(tmp_path, arm, 2, "1100", shown | ({"cut_out": unchanged} if arm == "a" else {}))
    results = results_of(study, tmp_path, {})
    assert results["arms"]["a"]["measures"]["valid ASR of cut_out"]["value"] is None
    assert results["warnings"] == [
        "a: with seed 2 there are no figures of these, which are left out: valid accuracy under cut_out, "
        "valid drop under cut_out, valid ASR of cut_out."
    ]


def test_what_speaks_against_figures_is_told(study: Study, tmp_path: Path) -> None:
    shown = {"light": {"right": "1111"}, "cut_out": {"right": "1111"}} | FOG
    write_probe(tmp_path, "a", 1, "1100", shown, brier=0.1, warnings=["few edits pass"])
    write_probe(tmp_path, "a", 2, "1100", shown, learned=False)
    write_probe(tmp_path, "b", 2, "1100", shown)
    results = results_of(study, tmp_path, {})
    assert results["warnings"] == [
        "a: with seed 2 the adaptive Attacker learned nothing: what it was measured against is the editor as "
        "it came.",
        "a: with seed 2 there are no figures of these, which are left out: Brier score.",
        "b: 1 of 2 seeds done; its figures are of these.",
    ]
    assert "Brier score" not in results["arms"]["a"]["measures"]
    assert results["warnings_of_probes"] == {"a-1": ["few edits pass"]}
    assert headline(results).endswith(" (1 of 2 seeds)")
    write_study_table(tmp_path / "study.md", results)
    assert "Probe a-1: few edits pass" in (tmp_path / "study.md").read_text()


def test_a_base_that_was_not_trained_has_no_training(study: Study, tmp_path: Path) -> None:
    arms = {**study.settings.arms, "b": ArmSettings(recipe="arena", round=0)}
    base = Study(study.settings.model_copy(update={"arms": arms}), study.recipes)
    write_probe(tmp_path, "b", 1, "1100", {"light": {"right": "1111"}, "cut_out": {"right": "1111"}} | FOG)
    assert results_of(base, tmp_path, {})["arms"]["b"]["training"] == [None]


def test_holms_family_is_every_difference_but_the_primary_one() -> None:
    def of(*means: float) -> Pooled:
        return Pooled(sum(means) / len(means), 1, None, None, means)

    found = with_p(
        {"a": {PRIMARY: of(1.0, 1.1), "x": of(1.0, 1.2)}, "b": {PRIMARY: of(0.1, -0.2)}}, ("a", PRIMARY)
    )
    assert "holm" not in found["a"][PRIMARY]
    assert found["a"]["x"]["holm"] == pytest.approx(2 * found["a"]["x"]["p"])
    assert found["b"][PRIMARY]["holm"] == pytest.approx(found["b"][PRIMARY]["p"])


def test_tables_page_and_picture_are_of_these_figures(study: Study, tmp_path: Path) -> None:
    shown = {"light": {"right": "1001"}, "cut_out": {"right": "0001"}} | FOG
    for seed in (1, 2):
        write_probe(tmp_path, "a", seed, "1110", shown)
        write_probe(tmp_path, "b", seed, "0110", shown)
    results = results_of(study, tmp_path, {Cell("game", "a", 3): "<b>bold</b> failure"})
    first, less, *_ = tables(results)
    assert first.header == ["arm", PRIMARY, "clean", "light", "fog", "cut_out", "worst case"]
    assert first.rows[0][2].startswith("0.750 (")
    assert less.rows[0][2].startswith("0.250 (")
    (tmp_path / "study.json").write_text(json.dumps(results))
    (tmp_path / "study.yaml").write_text("name: small\n")
    page = write_study_report(tmp_path).read_text()
    assert "&lt;b&gt;bold&lt;/b&gt; failure" in page
    assert "<b>bold" not in page
    assert first.rows[0][2] in page
    results["arms"]["an-arm-with-a-long-name"] = results["arms"].pop("a")
    (tmp_path / "study.json").write_text(json.dumps(results))
    assert "--letters:23" in write_study_report(tmp_path).read_text()  # names of rows do not run into figures
    with Image.open(tmp_path / "study.png") as picture:
        colors = {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in picture.getcolors(2**24)}  # type: ignore[misc, union-attr]
    heat = contents_of(results)["heat"]
    shares = [
        (cell.value - heat.low) / (heat.high - heat.low)
        for row in heat.cells
        for cell in row
        if cell.value is not None
    ]
    assert shares
    assert colors >= {color_of(share, ON_PAPER) for share in shares}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_picture_has_the_primary_difference_first_and_on_its_side_of_zero(
    study: Study, tmp_path: Path, sign: int
) -> None:
    shown = {"light": {"right": "1001"}, "cut_out": {"right": "0001"}} | FOG
    for seed in (1, 2):
        for arm in "ab":
            write_probe(tmp_path, arm, seed, "1110", shown)
    results = results_of(study, tmp_path, {})
    own = results["differences"]["of"]["a"][PRIMARY]
    own |= {"value": sign * 0.2, "ci95": sorted([sign * 0.1, sign * 0.3]), "p": 0.01}
    results["differences"]["of"] = {"other": {PRIMARY: own | {"holm": 1.0}}} | results["differences"]["of"]
    (tmp_path / "study.json").write_text(json.dumps(results))
    (tmp_path / "study.yaml").write_text("name: small\n")
    write_study_report(tmp_path)
    with Image.open(tmp_path / "study.png") as picture:
        top = MARGIN + GAINS_TOP
        row = [picture.getpixel((x, top + GAIN_HEIGHT // 2)) for x in range(picture.width)]
        edge = [picture.getpixel((x, top + 1)) for x in range(picture.width)]
    zero = edge.index(ImageColor.getrgb(SOFT))
    line = "".join("1" if color == ImageColor.getrgb(ACCENT) else "0" for color in row)
    longest = max(line.split("0"), key=len)
    begin = line.index(longest)
    assert (zero < begin) if sign > 0 else (begin + len(longest) < zero)


def test_a_cell_is_counted_once_for_everything_that_it_was_computed_with(
    study: Study, tmp_path: Path
) -> None:
    for seed in (1, 2):
        for arm in ("a", "b"):
            shown = {"light": {"right": "1111"}, "cut_out": {"right": "1111"}} | FOG
            write_probe(tmp_path, arm, seed, "1100", shown)
    here, there = {"processor": "here", "cores": 2}, {"processor": "there", "cores": 8}
    for name, noted in (("games/a-1", [here, there, here]), ("probes/b-2", [there])):
        (tmp_path / name / "environment.json").write_text(json.dumps(noted))
    assert environments_of(study, tmp_path) == [
        {"environment": here, "cells": 1},
        {"environment": there, "cells": 2},
        {"environment": None, "cells": 4},
    ]
    results = results_of(study, tmp_path, {})
    assert computed_with(results)[1].startswith("2 cells computed with")
    assert computed_with(results)[1].endswith("there, 8 cores")
    assert computed_with(results)[2] == "4 cells computed with what was not noted"
