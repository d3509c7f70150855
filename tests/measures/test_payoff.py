"""The payoff matrix on answers small enough to count by hand, and the gains as paired differences."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sparring.data.errors import DataError
from sparring.data.records import Verdict
from sparring.measures.payoff import Opponent, Payoff, attack_report, gains, play_off
from sparring.measures.statistics import mcnemar_exact, paired_bootstrap, wilson

T, F = True, False


def verdict(*, intact: bool = True, duplicate: bool = False, label_valid: bool | None = True) -> Verdict:
    return Verdict(
        "q", 0.9 if intact else 0.5, intact, duplicate, efficacy=0.0, reward=0.0, label_valid=label_valid
    )


OK, BROKEN, DOUBLED, FALSE = (
    verdict(),
    verdict(intact=False),
    verdict(duplicate=True),
    verdict(label_valid=False),
)
CLUSTERS = ("a", "a", "b", "c", "c", "d")


def six_items() -> Payoff:
    """Item: 0 fooled; 1 edit broken; 2 fooled by a false label; 3 rescued; 4 edit a duplicate; 5 stands."""
    attack = Opponent("round1", (OK, BROKEN, FALSE, OK, DOUBLED, OK))
    right = {
        ("base", "clean"): [T, T, T, F, T, T],
        ("base", "reencoded"): [T, F, T, F, T, T],
        ("base", "round1"): [F, F, F, T, F, T],
        ("new", "clean"): [T, T, T, T, F, T],
        ("new", "reencoded"): [T, T, T, T, T, T],
        ("new", "round1"): [T, None, T, T, None, F],
    }
    return play_off(["base", "new"], [Opponent("clean"), Opponent("reencoded"), attack], right, CLUSTERS)


def test_rejected_edits_are_played_on_the_clean_picture() -> None:
    payoff = six_items()
    assert payoff.right("base", "round1").tolist() == [F, T, F, T, T, T]
    assert payoff.right("new", "round1").tolist() == [T, T, T, T, F, F]
    assert payoff.right("base", "reencoded").tolist() == [T, F, T, F, T, T]


def test_the_matrix_has_defenders_as_rows_and_intervals() -> None:
    table = six_items().as_dict()
    assert table["defenders"] == ["base", "new"]
    assert table["opponents"] == ["clean", "reencoded", "round1"]
    assert [[cell["value"] for cell in row] for row in table["accuracy"]] == [
        [5 / 6, 4 / 6, 4 / 6],
        [5 / 6, 1.0, 4 / 6],
    ]
    assert table["accuracy"][0][1] == {"value": 4 / 6, "n": 6, "ci95": list(wilson(4, 6))}
    json.dumps(table, allow_nan=False)


def test_every_rate_of_an_attack_has_its_own_denominator() -> None:
    report = attack_report(six_items(), attacker="round1", defender="base")
    counted = {
        name: (cell["value"], cell["n"]) for name, cell in report.as_dict().items() if isinstance(cell, dict)
    }
    assert counted == {
        "integrity_rate": (5 / 6, 6),
        "accepted_rate": (4 / 6, 6),
        "label_valid_rate": (3 / 4, 4),
        "asr": (2 / 5, 5),
        "asr_unconditional": (2 / 6, 6),
        "valid_asr": (1 / 5, 5),
    }
    assert (report.harmed, report.rescued, report.net_flips) == (2, 1, 1)
    assert report.mcnemar == mcnemar_exact([T, T, T, F, T, T], [F, T, F, T, T, T])
    json.dumps(report.as_dict(), allow_nan=False)


def test_wrong_on_a_rejected_edit_is_no_success_of_the_attack() -> None:
    """The new Defender is wrong on item 4 when clean, and its edit was rejected: nobody fooled it there."""
    report = attack_report(six_items(), attacker="round1", defender="new")
    assert (report.asr.value, report.asr_unconditional.value) == (1 / 5, 1 / 6)


def test_worst_case_accuracy_is_right_everywhere() -> None:
    payoff = six_items()
    assert payoff.worst_case("base").value == 2 / 6
    assert payoff.worst_case("new").value == 4 / 6


def test_without_an_auditor_the_gate_decides_and_no_rate_is_made_up() -> None:
    silent = verdict(label_valid=None)
    opponents = [Opponent("clean"), Opponent("x", (silent, silent, verdict(intact=False, label_valid=None)))]
    right = {("base", "clean"): [T, T, T], ("base", "x"): [F, T, F]}
    report = attack_report(
        play_off(["base"], opponents, right, ["a", "b", "c"]), attacker="x", defender="base"
    )
    assert (report.valid_asr.value, report.valid_asr.n) == (1 / 3, 3)
    assert (report.label_valid_rate.value, report.label_valid_rate.n) == (None, 0)
    unsure = [Opponent("clean"), Opponent("x", (silent, OK, OK))]  # an auditor that cannot read item 0
    report = attack_report(play_off(["base"], unsure, right, ["a", "b", "c"]), attacker="x", defender="base")
    assert (report.asr.value, report.valid_asr.value) == (2 / 3, 1 / 3)
    assert report.label_valid_rate.n == 2


def test_gains_are_paired_differences_in_the_right_direction() -> None:
    rng = np.random.default_rng(0)
    n = 240
    clusters = [f"image{i // 2}" for i in range(n)]
    clean = rng.random(n) < 0.9
    weak, strong = Opponent("bootstrap", (OK,) * n), Opponent("round3", (OK,) * n)
    right = {
        ("base", "clean"): clean.tolist(),
        ("base", "bootstrap"): (clean & (rng.random(n) < 0.9)).tolist(),
        ("base", "round3"): (clean & (rng.random(n) < 0.4)).tolist(),
        ("round3", "clean"): clean.tolist(),
        ("round3", "bootstrap"): clean.tolist(),
        ("round3", "round3"): (clean & (rng.random(n) < 0.8)).tolist(),
    }
    payoff = play_off(["base", "round3"], [Opponent("clean"), weak, strong], right, clusters)
    result = gains(
        payoff,
        base="base",
        last="round3",
        first_attacker="bootstrap",
        last_attacker="round3",
        resamples=1000,
        seed=5,
    )
    robust, unchanged, attacker = result["robust"], result["clean"], result["attacker"]
    assert robust == paired_bootstrap(
        right["round3", "round3"], right["base", "round3"], clusters, resamples=1000, seed=5
    )
    assert robust.value > 0.2
    assert robust.low > 0
    assert robust.n == n
    assert (unchanged.value, unchanged.low, unchanged.high, unchanged.n) == (0.0, 0.0, 0.0, n)
    asr = {
        name: attack_report(payoff, attacker=name, defender="base").valid_asr
        for name in ("bootstrap", "round3")
    }
    assert attacker.n == clean.sum() == asr["round3"].n
    assert attacker.value == pytest.approx(asr["round3"].value - asr["bootstrap"].value)
    assert attacker.low > 0.3


def test_the_attackers_gain_counts_valid_edits_only_and_only_items_right_when_clean() -> None:
    weak, strong = Opponent("bootstrap", (OK, OK, OK, BROKEN)), Opponent("last", (OK, FALSE, OK, OK))
    right = {
        ("base", "clean"): [T, T, F, T],
        ("base", "bootstrap"): [F, T, F, F],
        ("base", "last"): [F, F, F, F],
    }
    payoff = play_off(["base"], [Opponent("clean"), weak, strong], right, list("abcd"))
    gain = gains(
        payoff,
        base="base",
        last="base",
        first_attacker="bootstrap",
        last_attacker="last",
        resamples=200,
        seed=0,
    )["attacker"]
    assert (gain.value, gain.n) == (1 / 3, 3)  # items 0 and 3 against item 0


def test_a_defender_that_forgets_has_a_negative_clean_gain() -> None:
    opponents = [Opponent("clean"), Opponent("x", (OK,) * 4)]
    right = {
        ("base", "clean"): [T, T, T, F],
        ("base", "x"): [F, F, F, F],
        ("new", "clean"): [T, F, F, F],
        ("new", "x"): [T, T, F, F],
    }
    result = gains(
        play_off(["base", "new"], opponents, right, list("abcd")),
        base="base",
        last="new",
        first_attacker="x",
        last_attacker="x",
        resamples=200,
        seed=0,
    )
    assert {name: gain.value for name, gain in result.items()} == {
        "robust": 0.5,
        "clean": -0.5,
        "attacker": 0.0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({("base", "x"): [T, None]}, "item 1 is in play but has no answer"),
        ({("base", "x"): [T]}, "1 answers for 2 items"),
        ({("base", "clean"): [None, T]}, "item 0"),
    ],
)
def test_answers_that_are_missing_are_errors(
    change: dict[tuple[str, str], list[bool | None]], message: str
) -> None:
    right: dict[tuple[str, str], list[bool | None]] = {("base", "clean"): [T, T], ("base", "x"): [T, F]}
    with pytest.raises(DataError, match=message):
        play_off(["base"], [Opponent("clean"), Opponent("x", (OK, OK))], right | change, ["a", "b"])


def test_games_that_are_missing_are_errors() -> None:
    right: dict[tuple[str, str], list[bool | None]] = {("base", "clean"): [T, T]}
    with pytest.raises(DataError, match="missing"):
        play_off(["base"], [Opponent("clean"), Opponent("x", (OK, OK))], right, ["a", "b"])
    with pytest.raises(DataError, match="'clean'"):
        play_off(["base"], [Opponent("x", (OK, OK))], right, ["a", "b"])
    with pytest.raises(DataError, match="1 verdicts for 2 items"):
        play_off(["base"], [Opponent("clean"), Opponent("x", (OK,))], right, ["a", "b"])
    payoff = six_items()
    with pytest.raises(DataError, match="nobody played"):
        payoff.right("base", "round9")
    with pytest.raises(DataError, match="no opponent"):
        payoff.fooled("base", "round9")
    with pytest.raises(DataError, match="attacks nobody"):
        attack_report(payoff, attacker="clean", defender="base")
