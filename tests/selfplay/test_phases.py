"""Who faces whom in an update of the Attacker."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparring.config import AttackerSettings
from sparring.data.records import VisualQuestion
from sparring.selfplay.phases import pair, weighted_edits


def questions(first: int, last: int) -> list[VisualQuestion]:
    return [VisualQuestion(f"q{i}", Path(f"{i}.png"), "?", ("a", "b"), "A", (), None) for i in range(first, last)]


def settings(share: float, count: int = 6) -> AttackerSettings:
    return AttackerSettings(model="m", past_share=share, questions_per_step=count)


def test_without_past_defenders_all_face_the_last() -> None:
    assert {n: len(own) for n, own in pair({0: questions(0, 40)}, 0, settings(0.5), 3, 7).items()} == {0: 6}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_past_defenders_take_turns(share: float) -> None:
    right = {0: questions(0, 40), 1: questions(20, 60), 2: questions(30, 70)}
    faced: Counter[int] = Counter()
    for step in range(10):
        pairing = pair(right, 2, settings(share, 5), step, 7)
        ids = [question.id for own in pairing.values() for question in own]
        assert len(ids) == len(set(ids)) == 5
        for n, own in pairing.items():
            assert {question.id for question in own} <= {question.id for question in right[n]}
            faced[n] += len(own)
        assert pairing == pair(right, 2, settings(share, 5), step, 7)
    assert faced[2] == 10 * (5 - round(5 * share))
    assert abs(faced[0] - faced[1]) <= 5


def test_a_question_is_put_to_one_defender_only() -> None:
    same = questions(0, 4)
    pairing = pair({0: same, 1: same}, 1, settings(0.5, 4), 0, 7)
    ids = [question.id for own in pairing.values() for question in own]
    assert len(ids) == len(set(ids)) == 4


def test_effective_edits_come_as_often_as_they_weigh(tmp_path: Path) -> None:
    def pictures(stage: str, *, only: str) -> list[tuple[str, Path]]:
        names = {"round2/curriculum": {"accepted": "abc", "effective": "b"}, "round2/attacker": {"accepted": "de", "effective": "e"}}
        return [(name, tmp_path / name) for name in names[stage][only]]

    def counted(weight: int, training_edits: bool = False) -> Counter[str]:
        curriculum = SimpleNamespace(effective_weight=weight, training_edits=training_edits)
        recipe = SimpleNamespace(selfplay=SimpleNamespace(curriculum=curriculum))
        edits = weighted_edits(SimpleNamespace(ledger=SimpleNamespace(pictures=pictures), recipe=recipe), 2)  # type: ignore[arg-type]
        return Counter(name for name, _ in edits)

    assert counted(1) == {"a": 1, "b": 1, "c": 1}
    assert counted(3) == {"a": 1, "b": 3, "c": 1}
    assert counted(3, training_edits=True) == {"a": 1, "b": 3, "c": 1, "d": 1, "e": 3}
