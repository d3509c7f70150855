"""Who faces whom in an update of the Attacker, who makes the curriculum, and what is said before a
training.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sparring.config import AttackerSettings, CurriculumSettings, EngineSettings, SelfplaySettings
from sparring.data.records import Verdict, VisualQuestion
from sparring.engine.crew import Alone
from sparring.engine.ranks import Ranks
from sparring.selfplay import phases, seats
from sparring.selfplay.phases import pair, train_attacker, weighted_edits, write_curriculum


def questions(first: int, last: int) -> list[VisualQuestion]:
    return [
        VisualQuestion(f"q{i}", Path(f"{i}.png"), "?", ("a", "b"), "A", (), None) for i in range(first, last)
    ]


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
        names = {
            "round2/curriculum": {"accepted": "abc", "effective": "b"},
            "round2/attacker": {"accepted": "de", "effective": "e"},
        }
        return [(name, tmp_path / name) for name in names[stage][only]]

    def counted(weight: int, training_edits: bool = False) -> Counter[str]:
        curriculum = SimpleNamespace(effective_weight=weight, training_edits=training_edits)
        recipe = SimpleNamespace(selfplay=SimpleNamespace(curriculum=curriculum))
        edits = weighted_edits(SimpleNamespace(ledger=SimpleNamespace(pictures=pictures), recipe=recipe), 2)  # type: ignore[arg-type]
        return Counter(name for name, _ in edits)

    assert counted(1) == {"a": 1, "b": 1, "c": 1}
    assert counted(3) == {"a": 1, "b": 3, "c": 1}
    assert counted(3, training_edits=True) == {"a": 1, "b": 3, "c": 1, "d": 1, "e": 3}


def stub_game(said: list[str], attacker: AttackerSettings, *, distilled: bool = False) -> Any:
    """As much of a game as the head of a phase asks for."""

    def stage(name: str) -> SimpleNamespace:
        nothing: Any = lambda *_, **__: None  # noqa: E731
        return SimpleNamespace(
            name=name, done=False, begin=nothing, finish=nothing, folder_written_whole=nothing
        )

    selfplay = SelfplaySettings(curriculum=CurriculumSettings(questions=4, clean_share=0.5))
    game = SimpleNamespace(
        stage=stage,
        recipe=SimpleNamespace(attacker=attacker, selfplay=selfplay, engine=EngineSettings()),
        seed=lambda *_: 0,
        league=SimpleNamespace(
            attacker=lambda name, keep=True: SimpleNamespace(name=name, step_distilled=distilled)
        ),
        screen=SimpleNamespace(warn=said.append),
        ledger=SimpleNamespace(unjudged=lambda stage: [], answers=lambda *_: []),
        train=questions(0, 8),
    )
    game.crew = lambda phase, host, *arguments, **_: nullcontext(Alone(host(game, *arguments)))
    return game


class NoTraining(Exception):
    """A phase has come to its trainer."""


@pytest.mark.parametrize(
    ("distilled", "algorithm", "warned"), [(True, "awm", 1), (True, "flow_grpo", 0), (False, "awm", 0)]
)
def test_a_distilled_editor_is_warned_of_before_it_trains(
    distilled: bool, algorithm: str, warned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trainer:
        def __init__(self, editor: Any, *_: object) -> None:
            self.editor = editor

    def train(*_: object, **__: object) -> None:
        raise NoTraining

    said: list[str] = []
    monkeypatch.setattr(phases, "right_when_clean", lambda game, n: questions(0, 8))
    monkeypatch.setattr(phases, "DriftWatch", lambda *_: SimpleNamespace(look=None))
    monkeypatch.setattr(phases, "drift_questions", lambda game: ([], []))
    monkeypatch.setattr(phases, "_phase", train)
    monkeypatch.setattr(seats, "AttackerTrainer", Trainer)
    monkeypatch.setattr(seats, "FrozenOpponent", lambda *_: None)
    with pytest.raises(NoTraining):
        train_attacker(
            stub_game(
                said,
                AttackerSettings.model_validate({"model": "m", "algorithm": algorithm}),
                distilled=distilled,
            ),
            1,
        )
    assert ["step-distilled" in text for text in said] == [True] * warned


@pytest.mark.parametrize("number", [1, 3])
def test_the_curriculum_is_made_by_the_rounds_own_attacker_against_the_defender_before_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int]] = []

    def edit_and_judge(
        game: Any, stage: Any, attacker: str, defender: int, asked: Any, *, title: str
    ) -> list[Verdict]:
        made.append((attacker, defender))
        return []

    monkeypatch.setattr(phases, "right_when_clean", lambda game, n: questions(10 * n, 10 * n + 8))
    monkeypatch.setattr(phases, "edit_and_judge", edit_and_judge)
    write_curriculum(stub_game([], AttackerSettings(model="m")), number)
    assert made == [(f"round{number}", number - 1)]


def test_every_defender_is_faced_on_what_it_gets_right_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one and two past ones; each with the edits of its own questions, whose rewards come back in
    the order of the update.
    """
    right = {n: questions(10 * n, 10 * n + 8) for n in range(3)}
    faced: list[tuple[int, list[str]]] = []

    class Opponent:
        def __init__(self, game: Any, stage: Any, number: int, *_: Any) -> None:
            self.number = number

        def hear(self, asked: Any, images: Any, edits: Any, step: int) -> list[int]:
            return [self.number for _ in asked]

        def face(
            self, attacker: str, asked: Any, images: Any, edits: Any, heard: Any, *, seed_of: Any
        ) -> Any:
            assert heard == [self.number] * len(asked)
            faced.append((self.number, [question.id for question in asked]))
            assert [[edit.getpixel((0, 0)) for edit in own] for own in edits] == [
                [int(q.id[1:])] * 2 for q in asked
            ]
            verdicts = [
                [Verdict(q.id, 1.0, True, False, 0.0, self.number + number / 10) for number in range(2)]
                for q in asked
            ]
            return SimpleNamespace(verdicts=verdicts, record=lambda *_: None)

    rewards = []

    class Trainer:
        ranks = Ranks()

        def __init__(self, *_: object) -> None: ...

        def update(self, asked: Any, images: Any, reward: Any, step: int, made: Any) -> dict[str, float]:
            pixel = [
                Image.fromarray(np.full((1, 1), int(question.id[1:]), dtype=np.uint8)) for question in asked
            ]
            rewards.append((asked, reward([[picture] * 2 for picture in pixel])))
            return {"dead_groups": 0.0}

        def settle(self) -> None: ...

    monkeypatch.setattr(phases, "right_when_clean", lambda game, n: right[n])
    monkeypatch.setattr(phases, "pictures_of", lambda asked: [question.id for question in asked])
    monkeypatch.setattr(seats, "FrozenOpponent", Opponent)
    monkeypatch.setattr(seats, "AttackerTrainer", Trainer)
    monkeypatch.setattr(seats, "save_attacker", lambda *_: None)
    monkeypatch.setattr(phases, "drift_questions", lambda game: ([], []))
    monkeypatch.setattr(phases, "is_step_distilled", lambda seat: False)
    monkeypatch.setattr(
        phases, "_phase", lambda game, stage, trainer, update, *_, **__: [update(step) for step in range(2)]
    )
    drift: list[int] = []
    monkeypatch.setattr(phases, "DriftWatch", lambda *_: SimpleNamespace(look=drift.append))
    train_attacker(stub_game([], settings(0.5, 4)), 3)
    assert drift == [2]  # at the end, too
    assert {number for number, _ in faced} == {0, 1, 2}
    for number, ids in faced:
        assert set(ids) <= {question.id for question in right[number]}
    for asked, rewards_PG in rewards:
        of = [int(question.id[1:]) // 10 for question in asked]
        torch.testing.assert_close(
            torch.tensor(rewards_PG), torch.tensor([[number, number + 0.1] for number in of])
        )
