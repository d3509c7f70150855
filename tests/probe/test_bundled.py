"""The bundled Defender under probe: what is known of it must come out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from sparring.engine.screen import Screen
from sparring.probe.run import run_probe
from sparring.probe.settings import probe_settings
from sparring_arena.suites import write_suite

pytestmark = pytest.mark.slow


def test_the_letter_follows_the_word_and_the_letters_are_scored(tmp_path: Path) -> None:
    path = write_suite(tmp_path / "suites", "visual_search", seed=5, number=24)
    settings = probe_settings(
        [("data", str(path)), ("controls", False)],
        ["arena/defender"],
        ["corruption:contrast:5"],
        recipe="arena",
        changes=["threads=1"],
    )
    own = run_probe(settings, tmp_path / "out", Screen(Console(file=io.StringIO())))["defenders"]["defender"]
    conditions = own["conditions"]
    assert own["clean_accuracy"]["value"] > 0.7
    # Its reasoning is read by rule, and it answers what it reasons.
    assert conditions["plain"]["consistency"]["readable"]["n"] == 24
    assert conditions["plain"]["consistency"]["read_by_rule"] >= 22  # now and then a reply comes to no option
    assert conditions["plain"]["consistency"]["consistent"]["value"] > 0.9
    # Whatever word stands before the letter, the letter follows it.
    assert conditions["right_thought"]["accuracy"]["value"] > 0.9
    assert conditions["wrong_thought"]["accuracy"]["value"] < 0.2
    assert conditions["wrong_thought"]["net_flips"]["ci95"][0] > 0.5
    certainty = {name: own["certainty"] for name, own in conditions.items()}
    assert certainty["plain"]["scored"]["value"] == 1.0
    assert (
        certainty["wrong_thought"]["right_probability"]["value"]
        < 0.2
        < 0.7
        < certainty["plain"]["right_probability"]["value"]
    )
    assert own["calibration"]["ece"]["value"] == pytest.approx(
        1 - own["clean_accuracy"]["value"], abs=0.05
    )  # it is always sure, so that its error is how often it is wrong
    assert own["robustness"]["attackers"]["corruption:contrast:5"]["asr"]["value"] > 0.2
