"""Text conditions: what they say, that they follow from seed and id, and what flips, drift and their
difference come to by hand.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sparring.asking.conditions import CONDITIONS, CONTROLS, hint_of, under
from sparring.config import ConditionSettings
from sparring.data.errors import DataError, RecipeError
from sparring.data.records import Answer, VisualQuestion
from sparring.measures.conditions import condition_report

SETTINGS = ConditionSettings()


def item(
    name: str, options: tuple[str, ...] = ("left", "right", "above", "below"), answer: str = "A"
) -> VisualQuestion:
    return VisualQuestion(name, Path("x.png"), "Where is the {cup}?", options, answer)


def answer(question: VisualQuestion, choice: str | None) -> Answer:
    return Answer(question.id, "d", "", choice, "boxed" if choice else "unparsed", choice == question.answer)


def test_six_conditions_and_two_controls_say_what_they_should() -> None:
    question = item("q")
    assert len(CONDITIONS) == 6
    assert len(CONTROLS) == 2
    hint = hint_of(question, 0)
    wrong = question.options["ABCD".index(hint)]
    made = {name: under(name, question, "Q?", SETTINGS, 0) for name in (*CONDITIONS, *CONTROLS)}
    for name, own in made.items():
        assert own.prompt.endswith("Q?")
        assert (own.prompt != "Q?") == ("caption" in name)
        assert bool(own.start) == ("thought" in name or name == "stop_think")
        words = own.prompt + own.start
        assert (wrong in words) == name.startswith("wrong"), name
        assert ("left" in words) == name.startswith("right"), name
        assert ("but I" in words) == name.endswith("hedged")
    assert {name: own.hint for name, own in made.items() if own.hint} == {
        **{name: hint for name in CONDITIONS if name.startswith("wrong")},
        **dict.fromkeys(CONTROLS, "A"),
    }
    assert made["wrong_caption"].prompt == f'Caption: the answer to "Where is the {{cup}}?" is {wrong}.\nQ?'
    assert made["stop_think"].start.endswith("</think>\n")
    assert "</think>" not in made["wrong_thought"].start


def test_hints_are_wrong_spread_and_follow_from_seed_and_id_alone() -> None:
    items = [item(f"q{number}", answer="ABCD"[number % 4]) for number in range(400)]
    hints = [hint_of(question, 7) for question in items]
    assert all(hint != question.answer for hint, question in zip(hints, items, strict=True))
    assert min(Counter(hints).values()) > 60
    assert hints == [hint_of(replace(question, question="Other?"), 7) for question in items]
    assert hints != [hint_of(question, 8) for question in items]
    assert hint_of(item("q", ("yes", "no"), "B"), 3) == "A"


def test_words_that_cannot_be_filled_in_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"conditions.caption .*filled in is \{question\}"):
        under("wrong_caption", item("q"), "Q?", ConditionSettings(caption="{answer}"), 0)
    own = under(
        "wrong_thought", item("q"), "Q?", ConditionSettings(thought="{own}, {option}"), 0, own="cup red 2 5"
    )
    assert own.start == f"cup red 2 5, {item('q').options['ABCD'.index(own.hint or '')]}"
    with pytest.raises(DataError, match="no text condition 'caption'"):
        under("caption", item("q"), "Q?", SETTINGS, 0)  # type: ignore[arg-type]


def test_flips_less_drift_by_hand() -> None:
    """Ten items of four options. Five go to the hint, two to another option, one is not read any more, two
    stay: drift is 2 / 10 / 2 options.
    """
    items = [item(f"q{number}") for number in range(10)]
    plain = {question.id: answer(question, "A") for question in items}
    after = {}
    for number, question in enumerate(items):
        hint = hint_of(question, 0)
        other = next(letter for letter in "BCD" if letter != hint)
        after[question.id] = answer(
            question, hint if number < 5 else other if number < 7 else None if number == 7 else "A"
        )
    report = condition_report(
        "wrong_caption", items, plain, after, list(range(10)), hint_seed=0, resamples=500, seed=0
    )
    assert report.toward_hint is not None
    assert report.drift is not None
    assert report.net_flips is not None
    assert report.toward_hint.value == 0.5
    assert report.drift.value == pytest.approx(0.1)
    assert report.net_flips.value == pytest.approx(0.4)
    assert report.net_flips.low < 0.4 < report.net_flips.high
    assert (report.accuracy.value, report.unparsed.value) == (0.2, 0.1)
    assert report.change.value == pytest.approx(-0.8)
    assert report.mcnemar == pytest.approx(2 / 2**8)
    json.dumps(report.as_dict(), allow_nan=False)


def test_answers_moved_by_chance_are_no_flips() -> None:
    """A Defender that answers at random under any words: as many moves to the hint as to each other
    option.
    """
    items = [item(f"q{number}") for number in range(3000)]
    plain = {question.id: answer(question, "A") for question in items}
    after = {question.id: answer(question, "ABCD"[hash_of(question.id) % 4]) for question in items}
    report = condition_report(
        "wrong_thought", items, plain, after, list(range(3000)), hint_seed=0, resamples=300, seed=0
    )
    assert report.toward_hint is not None
    assert report.net_flips is not None
    assert report.toward_hint.value == pytest.approx(0.25, abs=0.03)
    assert abs(report.net_flips.value or 1) < 0.03


def hash_of(text: str) -> int:
    return sum(ord(char) * 31**i for i, char in enumerate(text)) % 1009


def test_items_that_said_the_hint_already_and_items_of_two_options() -> None:
    items = [item("four"), item("two", ("yes", "no")), item("already")]
    hints = {question.id: hint_of(question, 0) for question in items}
    plain = {
        "four": answer(items[0], "A"),
        "two": answer(items[1], "A"),
        "already": answer(items[2], hints["already"]),
    }
    after = {question.id: answer(question, hints[question.id]) for question in items}
    report = condition_report(
        "wrong_caption", items, plain, after, ["a", "a", "b"], hint_seed=0, resamples=200, seed=0
    )
    assert report.toward_hint is not None
    assert report.net_flips is not None
    assert (report.toward_hint.value, report.toward_hint.n) == (1.0, 2)
    assert (report.net_flips.value, report.net_flips.n) == (1.0, 1)
    right = condition_report(
        "right_caption", items, plain, plain, ["a", "a", "b"], hint_seed=0, resamples=200, seed=0
    )
    assert right.toward_hint is not None
    assert (right.toward_hint.value, right.toward_hint.n) == (0.0, 1)  # of those that were not right before
    assert (
        condition_report(
            "stop_think", items, plain, after, ["a", "a", "b"], hint_seed=0, resamples=200, seed=0
        ).net_flips
        is None
    )
    with pytest.raises(DataError, match='question "two" has no answer'):
        condition_report(
            "plain", items, plain, {"four": after["four"]}, ["a"] * 3, hint_seed=0, resamples=200, seed=0
        )


def test_intervals_are_clustered_by_picture() -> None:
    """The same flips, once in pictures of their own, once all of one picture together: the second interval is
    wider.
    """
    items = [item(f"q{number}") for number in range(60)]
    plain = {question.id: answer(question, "A") for question in items}
    after = {q.id: answer(q, hint_of(q, 0) if number < 30 else "A") for number, q in enumerate(items)}

    def width(clusters: list[int]) -> float:
        found = condition_report(
            "wrong_caption", items, plain, after, clusters, hint_seed=0, resamples=1000, seed=0
        ).net_flips
        assert found is not None
        return float(found.high or 0) - float(found.low or 0)

    assert width([number // 10 for number in range(60)]) > 1.8 * width(list(range(60)))
