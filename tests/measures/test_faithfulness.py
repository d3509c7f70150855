"""Where the answer's letter stands, what it says of certainty, what a reasoning argues for, and the four
quadrants.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import entropy
from statsmodels.stats.inter_rater import cohens_kappa as statsmodels_kappa

from endpoint_server import question as text_of
from endpoint_server import serving
from sparring.asking.answers import parse_answer
from sparring.asking.questions import letter_place
from sparring.config import ConsistencySettings, EndpointSettings
from sparring.data.errors import DataError
from sparring.data.records import Answer, VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge, reasoning_of, verdict_of
from sparring.measures.faithfulness import (
    cohens_kappa,
    consistency_report,
    letter_score,
    premises_of,
)
from sparring.models.vlms.endpoint import EndpointVLM
from sparring_arena.dataset import draw
from sparring_arena.questions import reasoning

SIDES = ("left", "right", "above", "below")


@pytest.mark.parametrize(
    ("text", "letter", "before"),
    [
        ("cup red 2 5, left \\boxed{A}", "A", "cup red 2 5, left \\boxed{"),
        ("A bad guess. \\boxed{\\text{B}}", "B", "A bad guess. \\boxed{\\text{"),
        ("\\boxed{(C) above}", "C", "\\boxed{("),
        (
            "<think>Is it A? \\boxed{A}</think> The answer is B.",
            "B",
            "<think>Is it A? \\boxed{A}</think> The answer is ",
        ),
        ("B. right", "B", ""),
        ("The answer is a red car, option (C)", "C", "The answer is a red car, option ("),
        (
            "<thinking>So B? \\boxed{B}</thinking>\\boxed{B}",
            "B",
            "<thinking>So B? \\boxed{B}</thinking>\\boxed{",
        ),
        (
            "\u25c1think\u25b7B fits\u25c1/think\u25b7Answer: B",
            "B",
            "\u25c1think\u25b7B fits\u25c1/think\u25b7Answer: ",
        ),
        ("A is a car. B is a dog. The answer is B.", "B", "A is a car. B is a dog. The answer is "),
        ("The answer is (B). Why B? A is a car, B is a dog.", "B", "The answer is ("),
        ("A is a car and B is a dog. Looking at it, B", "B", "A is a car and B is a dog. Looking at it, "),
        ("<think>A</think>B <answer>B</answer>", "B", "<think>A</think>B <answer>"),
    ],
)
def test_the_place_of_the_letter(text: str, letter: str, before: str) -> None:
    place = letter_place(text, SIDES)
    assert place == len(before)
    assert text[place] == letter


@pytest.mark.parametrize("text", ["It is left.", "", "<think>A", "\\boxed{A} or \\boxed{B}"])
def test_no_letter_no_place(text: str) -> None:
    assert letter_place(text, SIDES) is None


def test_certainty_over_the_letters_alone() -> None:
    """Logits restricted to the letters and renormalised: the same as dividing their probabilities by their
    sum.
    """
    logprobs = np.log([0.3, 0.1, 0.05, 0.05])
    found = letter_score(logprobs.tolist(), "B")
    assert found.probabilities == pytest.approx((0.6, 0.2, 0.1, 0.1))
    assert found.right_probability == pytest.approx(0.2)
    assert found.entropy == pytest.approx(entropy([0.6, 0.2, 0.1, 0.1]))
    assert letter_score([0.0, -math.inf], "A").entropy == 0.0
    assert letter_score([-2000.0, -2000.0], "A").probabilities == (0.5, 0.5)
    with pytest.raises(DataError, match="every option letter"):
        letter_score([-math.inf, -math.inf], "A")


def argued(text: str, options: tuple[str, ...]) -> tuple[str | None, str]:
    verdict = verdict_of(reasoning_of(text), options)
    return verdict.letter, verdict.rule


def test_the_bundled_replies_are_read_by_rule() -> None:
    for index in range(60):
        scene, asked = draw(5, "train", index)
        said = reasoning(scene, asked)
        assert argued(said, asked.options) == ("ABCD"[asked.right], "whole")
        # With the word of another option before the same letter, the reasoning argues for that one.
        wrong = (asked.right + 1) % len(asked.options)
        twisted = said.replace(f", {asked.answer} \\boxed", f", {asked.options[wrong]} \\boxed")
        assert argued(twisted, asked.options)[0] == "ABCD"[wrong]
        assert parse_answer(twisted, asked.options)[0] == "ABCD"[asked.right]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("<think>The cup stands to the left of it. So the answer is B.</think> \\boxed{A}", "B"),
        ("<think>It could be A.\nThe answer is (C)</think>\\boxed{C}", "C"),
        ("<think>so \\boxed{D}</think> \\boxed{A}", "D"),
        ("It is hard to tell, but it is above. \\boxed{C}", "C"),
        ("<think>The cup is left of the box, though the box is above it</think> \\boxed{A}", None),
        ("\\boxed{A}", None),
        ("left", None),
        ("Option not A. \\boxed{A}", None),
    ],
)
def test_other_reasoning_is_read_as_training_reads_it(text: str, letter: str | None) -> None:
    assert argued(text, SIDES)[0] == letter


def test_reasoning_is_what_stands_before_the_answer() -> None:
    assert reasoning_of("a, b \\boxed{A} c") == "a, b"
    assert reasoning_of("<think>\nx\n</think>\ny \\boxed{A}") == "x"
    assert reasoning_of("<think> never ends \\boxed{A}") == "never ends \\boxed{A}"
    assert reasoning_of("A") == ""
    assert premises_of("cup red 2 5, bottle blue 6 4, left \\boxed{A}") == "cup red 2 5, bottle blue 6 4"
    assert premises_of("<think>\nIt is red. So B.\n</think>") == "It is red"
    assert premises_of("left \\boxed{A}") == premises_of("\\boxed{A}") == ""


def test_kappa_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for kinds in (2, 4):
        a = rng.integers(kinds, size=200)
        b = np.where(rng.random(200) < 0.6, a, rng.integers(kinds, size=200))
        table = np.zeros((kinds, kinds))
        np.add.at(table, (a, b), 1)
        assert cohens_kappa(a.tolist(), b.tolist()) == pytest.approx(
            statsmodels_kappa(table).kappa, abs=1e-12
        )
    assert cohens_kappa(["A", "B"], ["A", "B"]) == 1.0
    assert cohens_kappa(["A", "A"], ["A", "A"]) is None  # chance alone would agree
    assert cohens_kappa([], []) is None


def answers() -> tuple[list[VisualQuestion], list[Answer]]:
    """Two right and consistent, one right and inconsistent, one wrong and consistent, one wrong and
    inconsistent, two that no rule reads.
    """
    texts = [
        "x, left \\boxed{A}",
        "y, left \\boxed{A}",
        "x, right \\boxed{A}",
        "x, above \\boxed{C}",
        "x, left \\boxed{D}",
        "a long story \\boxed{A}",
        "\\boxed{A}",
    ]
    questions = [VisualQuestion(f"q{i}", Path("x.png"), "Where?", SIDES, "A") for i in range(len(texts))]
    read = [parse_answer(text, SIDES) for text in texts]
    return questions, [
        Answer(question.id, "d", text, choice, rule, choice == "A")
        for question, text, (choice, rule) in zip(questions, texts, read, strict=True)
    ]


def test_quadrants_by_hand() -> None:
    questions, own = answers()
    report = consistency_report(questions, own, list(range(7)), resamples=200, seed=0)
    assert report.quadrants == {
        "right_consistent": 2,
        "right_inconsistent": 1,
        "wrong_consistent": 1,
        "wrong_inconsistent": 1,
    }
    assert (report.readable.value, report.consistent.value, report.consistent.n) == (5 / 7, 3 / 5, 5)
    assert (report.by_rule, report.by_judge, report.agreement) == (5, 0, {})
    json.dumps(report.as_dict(), allow_nan=False)


def test_a_judge_reads_what_no_rule_does_and_sees_neither_picture_nor_answer() -> None:
    questions, own = answers()
    said = {
        "x, left": "A",
        "y, left": "B",
        "x, right": "B",
        "x, above": "C",
        "a long story": "The answer is D.",
    }
    seen = []

    def judge(image: object, body: dict[str, object]) -> dict[str, object]:
        text = text_of(body)  # type: ignore[arg-type]
        story = text.split("Somebody thinks about it:\n")[1].split("\n")[0]
        seen.append((text, image.getcolors()))  # type: ignore[attr-defined]
        return {"text": said.get(story, "none")}

    with serving(judge) as server:  # type: ignore[arg-type]
        judge_model = ConsistencyJudge(
            ConsistencySettings(model="judge"), EndpointVLM(f"{server.url}#judge", EndpointSettings())
        )
        letters = [verdict.letter for verdict in judge_model.verdicts(questions, [a.text for a in own])]
    assert letters == ["A", "B", "B", "C", "A", "D", None]
    assert all("boxed" not in text and len(colors) == 1 for text, colors in seen)
    report = consistency_report(
        questions, own, list(range(7)), [letters, [*letters[:5], None, None]], resamples=200, seed=0
    )
    # Rules go first: item 1 counts as consistent though the judge misreads it.
    assert report.quadrants == {
        "right_consistent": 2,
        "right_inconsistent": 2,
        "wrong_consistent": 1,
        "wrong_inconsistent": 1,
    }
    assert (report.by_rule, report.by_judge) == (5, 1)
    kappa, n = report.agreement["rule_judge1"]
    assert n == 5
    assert kappa == pytest.approx(cohens_kappa(["A", "A", "B", "C", "A"], ["A", "B", "B", "C", "A"]))
    assert report.agreement["judge1_judge2"] == (1.0, 5)
