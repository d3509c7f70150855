"""Trials that stop at the first right answer, and the dense term."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sparring.data.records import Answer, VisualQuestion
from sparring.judging.rewards import ask_until_right, efficacy, frontier, relative_fall


def question(number: int) -> VisualQuestion:
    return VisualQuestion(f"q{number}", Path("q.png"), "?", ("left", "right"), "A")


def answer(right: bool) -> Answer:
    return Answer("q", "base", "", "A" if right else "B", "boxed", right)


class Stubborn:
    """Fails a given number of times on each item, and records which were asked, with which seed."""

    def __init__(self, failures: Sequence[int]) -> None:
        self.failures = list(failures)
        self.asked: list[list[int]] = []
        self.seeds: list[int] = []

    def __call__(self, places: Sequence[int], seed: int) -> list[Answer]:
        self.asked.append(list(places))
        self.seeds.append(seed)
        replies = []
        for place in places:
            replies.append(answer(self.failures[place] == 0))
            self.failures[place] -= 1
        return replies


def run(failures: list[int], *, trials: int, greedy: bool, seed: int = 0) -> tuple[Stubborn, list[float]]:
    player = Stubborn(failures)
    answers = ask_until_right(player, len(failures), trials=trials, greedy=greedy, seed=seed)
    return player, [efficacy(own, trials) for own in answers]


def test_each_trial_asks_those_that_have_always_failed() -> None:
    player, efficacies = run([0, 1, 2, 5], trials=3, greedy=False)
    assert player.asked == [[0, 1, 2, 3], [1, 2, 3], [2, 3]]
    assert efficacies == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert len(set(player.seeds)) == 3
    assert player.seeds == run([0, 1, 2, 5], trials=3, greedy=False)[0].seeds
    assert not set(player.seeds) & set(run([0, 1, 2, 5], trials=3, greedy=False, seed=1)[0].seeds)


def test_no_further_trial_once_all_are_right() -> None:
    player, efficacies = run([0, 1], trials=5, greedy=False)
    assert len(player.asked) == 2
    assert efficacies == pytest.approx([0, 0.2])


def test_a_greedy_reply_stands_for_all_trials() -> None:
    player, efficacies = run([0, 1], trials=3, greedy=True)
    assert player.asked == [[0, 1]]
    assert efficacies == [0, 1]


def test_one_trial_is_right_or_wrong() -> None:
    assert run([0, 1], trials=1, greedy=False)[1] == [0, 1]
    assert run([], trials=3, greedy=False)[1] == []


@pytest.mark.parametrize(
    ("clean", "edited", "expected"),
    [(0.8, 0.2, 0.75), (0.8, 0.8, 0.0), (0.4, 0.9, 0.0), (0.5, 0.0, 1.0), (0.0, 0.0, 0.0), (1e-9, 0.0, 1e-3)],
)
def test_relative_fall(clean: float, edited: float, expected: float) -> None:
    assert relative_fall(clean, edited) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wrong", "trials", "expected"),
    [(0, 4, 0), (1, 4, 0.5), (2, 4, 1), (3, 4, 0.5), (4, 4, 0), (1, 3, 2 / 3), (2, 3, 2 / 3)],
)
def test_the_frontier_is_where_half_the_trials_fail(wrong: int, trials: int, expected: float) -> None:
    answers = [answer(trial >= wrong) for trial in range(trials)]
    assert frontier(answers) == frontier(answers[::-1]) == pytest.approx(expected)
    assert frontier([]) == 0


def test_all_trials_can_be_asked_and_efficacy_still_counts_up_to_the_first_right_answer() -> None:
    player = Stubborn([0, 2])
    answers = ask_until_right(player, 2, trials=3, greedy=False, seed=0, go_on=True)
    assert player.asked == [[0, 1]] * 3
    assert [len(own) for own in answers] == [3, 3]
    assert [efficacy(own, 3) for own in answers] == pytest.approx([0, 2 / 3])
