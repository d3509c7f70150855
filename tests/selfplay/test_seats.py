"""An Attacker whose edits are judged while it makes more of them learns what one learns whose edits are judged
afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from small_game import game_recipe
from sparring.config import Recipe
from sparring.data.images import pictures_of
from sparring.data.questions import read_questions
from sparring.judging.hearing import Hearing
from sparring.models.editors import FlowEditor
from sparring.selfplay.game import Table
from sparring.selfplay.league import League
from sparring.selfplay.seats import AttackerSeat
from sparring.selfplay.turns import Faced


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe_of(players: Path, questions: Path, *, overlap: bool) -> Recipe:
    return game_recipe(
        players,
        questions,
        attacker={"questions_per_step": 4, "micro_batch": 4, "learning_rate": 3e-4, "past_share": 0.5},
        judge={"variety_weight": 0.2, "diversity_weight": 0.2, "dense_weight": 0.5},
        engine={"attacker": {"overlap": overlap}},
    )


def seat_of(recipe: Recipe, out: Path) -> AttackerSeat:
    """Attacker 1, an editor that has learned nothing yet, against the base Defender under two numbers."""
    league = League(recipe, out, torch.device("cpu"))
    folder = league.attacker_folder("bootstrap")
    if not folder.exists():
        editor = league.attacker("untuned", keep=False)
        editor.add_lora(2, 4, 0)
        editor.save_lora(folder)
        base = league.defender("base")
        base.save(league.defender_folder("round1"))  # type: ignore[attr-defined]
    table = Table(recipe, league, None, lambda text: None)  # type: ignore[arg-type]
    return AttackerSeat(table, "round1/attacker", 1, {0: {}, 1: {}})


def update(seat: AttackerSeat, questions: Path) -> tuple[dict[str, float], list[Faced]]:
    asked = list(read_questions(questions))[:4]
    # the places of the two Defenders' questions lie in the same batches of edits
    return seat.update(0, {0: asked[:1], 1: asked[1:]}, pictures_of(asked))


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments, **options)

    return slow


@pytest.mark.slow
def test_edits_are_judged_while_others_are_made_to_the_same_end(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(*, overlap: bool) -> tuple[dict[str, float], list[Faced], dict[str, torch.Tensor]]:
        seat = seat_of(recipe_of(players, questions, overlap=overlap), tmp_path)
        metrics, faced = update(seat, questions)
        return metrics, faced, {n: p.detach().clone() for n, p in seat.trainer.optimizer.parameters.items()}

    after, faced_after, weights_after = play(overlap=False)
    beside, faced_beside, weights_beside = play(overlap=True)
    assert after["dead_groups"] + after["grad_norm"] > 0
    assert beside == pytest.approx(after, rel=1e-4, abs=1e-6)
    for one, other in zip(faced_after, faced_beside, strict=True):
        assert one.samples == other.samples
        for own, same in zip(one.judgements, other.judgements, strict=True):
            assert [judgement.answers for judgement in own] == [judgement.answers for judgement in same]
            for first, second in zip(own, same, strict=True):
                assert second.verdict.notes == pytest.approx(first.verdict.notes, rel=1e-4, abs=1e-6)
    for name, weight in weights_after.items():
        assert (weight - weights_beside[name]).abs().max() <= 1e-5, name

    # Whoever is faster, the figures are the same to the last digit.
    hear, velocity = Hearing.hear, FlowEditor.velocity
    for patched, name, slow in (
        (Hearing, "hear", slowed(hear, 0.2)),
        (FlowEditor, "velocity", slowed(velocity, 0.02)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(patched, name, slow)
            again, faced_again, weights_again = play(overlap=True)
        assert again == beside
        assert [one.verdicts for one in faced_again] == [one.verdicts for one in faced_beside]
        assert all(torch.equal(weight, weights_again[name]) for name, weight in weights_beside.items())


def test_the_judge_begins_before_the_last_edit_and_its_errors_and_signals_come_through(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat = seat_of(recipe_of(players, questions, overlap=True), tmp_path)
    happened: list[str] = []
    hear, velocity = Hearing.hear, FlowEditor.velocity

    def heard(self: Hearing, asked: Any, *arguments: Any, **options: Any) -> Any:
        happened.append("judge" if threading.current_thread() is not threading.main_thread() else "main")
        if len(happened) > 30:
            raise ValueError("the judge is broken")
        return hear(self, asked, *arguments, **options)

    def made(*arguments: Any) -> Any:
        happened.append("edit")
        time.sleep(0.05)
        return velocity(*arguments)

    monkeypatch.setattr(Hearing, "hear", heard)
    monkeypatch.setattr(FlowEditor, "velocity", made)
    update(seat, questions)
    assert "main" not in happened
    assert "edit" in happened[happened.index("judge") :]
    happened += ["edit"] * 31
    with pytest.raises(ValueError, match="the judge is broken"):
        update(seat, questions)

    def interrupted(*arguments: Any) -> Any:
        if threading.active_count() > before:
            raise KeyboardInterrupt
        return velocity(*arguments)

    before, happened[:] = threading.active_count(), []
    monkeypatch.setattr(FlowEditor, "velocity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update(seat, questions)
    assert threading.active_count() == before
    assert happened.count("judge") <= 1  # what had not been begun was left
