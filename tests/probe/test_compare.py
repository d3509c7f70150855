"""Defenders beside each other that do not face the same attackers: an endpoint gives no gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparring.asking.conditions import PLAIN
from sparring.data.records import Answer, VisualQuestion
from sparring.measures.robustness import Played, robustness_report
from sparring.probe.asking import Said
from sparring.probe.attackers import Attacker
from sparring.probe.compare import Found, differences
from sparring.probe.table import tables

QUESTIONS = [VisualQuestion(f"q{n}", Path("x.png"), "Where?", ("left", "right"), "A") for n in range(4)]
FOG, PGD = Attacker("fog", "corruption:fog:3"), Attacker("pgd", "pgd:eps=8", against="local")


def played(name: str, right: str) -> Played:
    right_SN = np.array([[mark == "1" for mark in right]])
    return Played(name, right_SN, np.ones_like(right_SN))


def found(*names: str) -> Found:
    """Both know all when clean and fall to fog alike; PGD is made against the local one, and put to both."""
    said = [Said(Answer(one.id, "d", "A", "A", "letter", True), None, "p") for one in QUESTIONS]
    own = [(FOG, played("fog", "1110")), (PGD, played("pgd", "0000"))]
    return Found(
        QUESTIONS, [FOG, PGD], [], {name: {PLAIN: said} for name in names}, dict.fromkeys(names, own)
    )


def test_robust_is_told_of_the_attackers_that_both_face() -> None:
    for names in (("hosted", "local"), ("local", "hosted")):
        less = differences(found(*names), ["p"] * 4, resamples=100, seed=0)["of"][names[1]]
        assert list(less) == ["plain", "fog", "robust"]
        assert (less["robust"]["value"], less["robust"]["n"]) == (0, 4)
    alike = differences(found("local", "other"), ["p"] * 4, resamples=100, seed=0)["of"]["other"]
    assert alike["robust"]["value"] == 0


def test_the_table_has_the_rows_of_every_defender() -> None:
    def figures(*names: str) -> dict[str, object]:
        report = robustness_report(
            [True] * 4, [played(name, "1100") for name in names], ["p"] * 4, resamples=100, seed=0
        )
        rate = report["clean_accuracy"]
        own = {"clean_accuracy": rate, "robust_accuracy": rate, "asr": dict.fromkeys(names, rate)}
        return {
            "clean_accuracy": rate,
            "unparsed": rate,
            "robustness": report,
            "hallucination": None,
            "by_category": {"position": own},
        }

    results = {
        "questions": 4,
        "pictures": 1,
        "defenders": {"hosted": figures("fog"), "local": figures("fog", "pgd")},
        "transfer": {},
        "differences": {"less": "hosted", "of": {}},
    }
    told, by_category = tables(results)
    rows = {row[0]: row[1:] for row in told.rows}
    assert [row for row in rows if row.startswith("ASR of")] == ["ASR of fog", "ASR of pgd"]
    hosted, local = rows["ASR of pgd"]
    assert hosted == "-"
    assert local.startswith("0.500 (")
    assert [row[0] for row in by_category.rows][-1] == "position: ASR of pgd"
