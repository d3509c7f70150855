"""Dynamic sampling: which groups are kept, how often it refills, what it counts. The players here say what
their question tells them to.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from random import Random
from threading import Barrier
from typing import Any

import pytest
from PIL import Image

from small_vlms import collect
from sparring.config import DefenderSettings
from sparring.data.errors import TrainingError
from sparring.data.records import VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge
from sparring.defenders.rollout import Item, Rollout, add_batches
from sparring.engine.ranks import Ranks
from sparring.models.vlms.base import Completion, Sampling

PICTURE = Image.new("RGB", (8, 8))


class Scripted:
    """Of n replies, as many are right as the first word of the question says; each is as long as the
    second.
    """

    name = "scripted"

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def generate(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        starts: Sequence[str],
    ) -> list[list[Completion]]:
        numbers = range(len(prompts)) if sampling.numbers is None else sampling.numbers
        assert len(images) == len(prompts) == len(starts)
        self.seeds.append(sampling.seed)
        return [self.replies(*one, sampling) for one in zip(prompts, numbers, strict=True)]

    def replies(self, prompt: str, number: int, sampling: Sampling) -> list[Completion]:
        """The replies to one prompt, the number-th of its batch."""
        right, length = (int(word) for word in prompt.split()[:2])
        return [
            Completion(r"\boxed{A}" if i < right else r"\boxed{B}", (7,) * length, (-0.5,) * length, True)
            for i in range(sampling.n)
        ]


def settings(**fields: Any) -> DefenderSettings:
    return DefenderSettings(
        model="none", **({"prompts_per_step": 3, "group_size": 4, "max_new_tokens": 16} | fields)
    )


def items(*right: int, length: int = 5) -> list[Item]:
    return [
        (PICTURE, VisualQuestion(f"q{i}", Path("q.png"), f"{r} {length}", ("yes", "no"), "A"))
        for i, r in enumerate(right)
    ]


def test_keeps_exactly_the_groups_with_signal() -> None:
    rollout = collect(
        Scripted(),
        lambda _: items(0, 1, 4, 2, 3, 4),
        settings(prompts_per_step=6, max_refills=1),
        seed=0,
        step=0,
    )  # type: ignore[arg-type]
    assert rollout.kept == [1, 3, 4]
    assert (rollout.thrown_low, rollout.thrown_high, rollout.surplus, rollout.batches) == (1, 2, 0, 1)
    sampled = rollout.sampled()
    assert [s.kept for s in sampled[::4]] == [False, True, False, True, True, False]
    assert [s.reward for s in sampled[4:8]] == [1.0, 0.0, 0.0, 0.0]
    assert [s.answer.right for s in sampled[12:16]] == [True, True, False, False]
    assert (sampled[4].answer.question_id, sampled[4].answer.choice, sampled[4].answer.tokens) == (
        "q1",
        "A",
        5,
    )


def test_the_bounds_are_the_settings() -> None:
    rollout = collect(
        Scripted(),  # type: ignore[arg-type]
        lambda _: items(0, 1, 2, 3, 4),
        settings(prompts_per_step=5, max_refills=1, keep_reward_above=0.3, keep_reward_below=0.7),
        seed=0,
        step=0,
    )
    assert rollout.kept == [2]


def test_refills_until_full_and_no_further() -> None:
    player = Scripted()
    batches = [items(4, 2, 0), items(0, 0, 1), items(3, 3, 3), items(2, 2, 2)]
    rollout = collect(player, lambda i: batches[i], settings(), seed=3, step=1)  # type: ignore[arg-type]
    assert rollout.batches == 3
    assert rollout.kept == [1, 5, 6]
    assert rollout.surplus == 2
    assert len(rollout.groups) == 9
    assert len(set(player.seeds)) == 3
    again, other = Scripted(), Scripted()
    collect(again, lambda i: batches[i], settings(), seed=3, step=1)  # type: ignore[arg-type]
    collect(other, lambda i: batches[i], settings(), seed=3, step=2)  # type: ignore[arg-type]
    assert again.seeds == player.seeds
    assert not set(other.seeds) & set(player.seeds)


def test_refills_are_bounded() -> None:
    asked: list[int] = []

    def draw(batch: int) -> list[Item]:
        asked.append(batch)
        return items(4, 4, 0)

    rollout = collect(Scripted(), draw, settings(max_refills=4), seed=0, step=0)  # type: ignore[arg-type]
    assert asked == [0, 1, 2, 3]
    assert (rollout.kept, rollout.thrown_low, rollout.thrown_high) == ([], 4, 8)


class Dicing(Scripted):
    """A reply is right by chance: of the call's seed, and of the numbers of its prompt and of itself."""

    def replies(self, prompt: str, number: int, sampling: Sampling) -> list[Completion]:
        assert sampling.numbers is not None
        dice = (Random(f"{sampling.seed} {number} {i}").randrange(3) for i in range(sampling.n))
        return [Completion(rf"\boxed{{{'AAB'[thrown]}}}", (7,), (-1.0,), True) for thrown in dice]


class Together(Ranks):
    """Processes that are threads here."""

    def __init__(self, number: int, meeting: Barrier, parts: list[list[Any]]) -> None:
        super().__init__(2, number)
        self.meeting, self.parts = meeting, parts

    def gather(self, own: Sequence[Any]) -> list[Any]:
        self.parts[self.number] = list(own)
        self.meeting.wait(60)
        return [thing for part in self.parts for thing in part]


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_batches_that_are_sampled_at_once_by_several_give_what_they_give_one_by_one(noise: float) -> None:
    """Two are enough: the third is not wanted, and does not count."""
    batches = [[items(*[0] * 5)[i] for i in range(5)] for _ in range(3)]
    chosen = settings(prompts_per_step=6, max_refills=2, noisy={"share": noise})
    alone, moved = Dicing(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparring.defenders.rollout._move_to_clean", lambda *arguments: moved.append(arguments))
        want = collect(alone, lambda i: batches[i], chosen, seed=3, step=1)  # type: ignore[arg-type]
        assert want.batches == 2
        meeting, parts = Barrier(2), list[list[Any]]([[], []])

        def sample(number: int) -> tuple[Rollout, Dicing]:
            rollout, player = Rollout(), Dicing()
            ranks = Together(number, meeting, parts)
            done = add_batches(rollout, player, batches, chosen, seed=3, step=1, ranks=ranks)  # type: ignore[arg-type]
            assert done
            return rollout, player

        with ThreadPoolExecutor(2) as threads:
            (first, one), (second, two) = threads.map(sample, range(2))
    assert first == second == want
    assert 0 < len(want.kept) < len(want.groups) == 10
    # A process has whole batches, as far as they can be shared out so.
    calls = 2 if noise else 1
    assert (len(one.seeds), len(two.seeds)) == (2 * calls, 2 * calls)
    assert len(moved) == 3 * bool(noise)


class Reasoning(Scripted):
    """Of four right answers, as many are reasoned for as the second word of the question says."""

    def replies(self, prompt: str, number: int, sampling: Sampling) -> list[Completion]:
        right, reasoned = (int(word) for word in prompt.split()[:2])
        texts = (
            rf"{'yes' if i < reasoned else 'no'} \boxed{{{'A' if i < right else 'B'}}}"
            for i in range(sampling.n)
        )
        return [Completion(text, (7,), (-0.5,), True) for text in texts]


def test_consistency_is_judged_recorded_and_paid_for() -> None:
    def sampled(role: str) -> Rollout:
        chosen = settings(prompts_per_step=1, max_refills=1, consistency={"role": role})
        judge = ConsistencyJudge(chosen.consistency) if role != "off" else None
        return collect(Reasoning(), lambda _: items(3, length=2), chosen, seed=0, step=0, judge=judge)  # type: ignore[arg-type]

    (off,), (recorded,), (paid,) = (sampled(role).groups for role in ("off", "record", "factor"))
    assert [answer.notes for answer in off.answers[:1]] == [{"reward_accuracy": 0.8, "reward_format": 0.2}]
    # Answers A A A B, reasoned for A A B B.
    assert [answer.notes["consistent"] for answer in recorded.answers] == [1, 1, 0, 1]
    assert [answer.notes["verdict_unread"] for answer in recorded.answers] == [0] * 4
    assert off.rewards == recorded.rewards == (1, 1, 1, 0)
    assert paid.rewards == (1, 1, 0, 0)
    for group in (off, recorded, paid):
        for answer, reward in zip(group.answers, group.rewards, strict=True):
            assert sum(
                value for name, value in answer.notes.items() if name.startswith("reward_")
            ) == pytest.approx(reward)


def test_an_endless_iterator_feeds_it_too() -> None:
    endless = (item for i in count() for item in items(i % 5))
    rollout = collect(Scripted(), endless, settings(), seed=0, step=0)  # type: ignore[arg-type]
    assert [group.question.question[0] for group in rollout.groups] == ["0", "1", "2", "3", "4", "0"]
    assert rollout.kept == [1, 2, 3]
    with pytest.raises(TrainingError, match="nothing to train on"):
        collect(Scripted(), iter([]), settings(), seed=0, step=0)  # type: ignore[arg-type]


def test_overlong_answers_are_punished_but_do_not_decide_what_is_kept() -> None:
    rollout = collect(
        Scripted(),  # type: ignore[arg-type]
        lambda _: items(2, 4, length=14),
        settings(prompts_per_step=2, max_refills=1, overlong_cache=4),
        seed=0,
        step=0,
    )
    assert rollout.groups[0].rewards == pytest.approx((0.5, 0.5, -0.5, -0.5))
    assert rollout.groups[0].answers[0].notes == {
        "reward_accuracy": 0.8,
        "reward_format": 0.2,
        "reward_length": -0.5,
    }
    assert rollout.kept == [0]
    assert rollout.thrown_high == 1
