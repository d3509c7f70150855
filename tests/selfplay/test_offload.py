"""A game whose Attacker makes room for the Defender, and the Defender for a frozen Attacker. "cpu:0" stands
for the accelerator, "cpu" for where parts rest.
"""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from small_game import game_recipe
from sparring.config import Recipe
from sparring.config.engine import Phase
from sparring.engine.crew import Engine
from sparring.engine.screen import Screen
from sparring.measures.payoff import CLEAN
from sparring.models.editors import FlowEditor
from sparring.models.vlms.local import LocalVLM
from sparring.selfplay import loop
from sparring.selfplay.game import at_the_table
from sparring.selfplay.heldout import make_pictures, play_cell
from sparring.selfplay.league import League


def play(recipe: Recipe, out: Path) -> dict[str, Any]:
    summary = loop.run_game(recipe, out, Screen(Console(file=io.StringIO())))
    return {key: value for key, value in summary.items() if key not in ("wall_seconds", "peak_rss_mb")}


@pytest.mark.slow
def test_while_a_vlm_answers_the_editor_rests_and_the_game_is_the_same(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(**attacker: object) -> Recipe:
        return game_recipe(
            players,
            questions,
            attacker={"steps": 2, **attacker},
            bootstrap={"questions": 4, "steps": 1},
            forge={"implant": "whole"},
            defender={"steps": 1, "max_refills": 1},
            selfplay={"rounds": 1, "curriculum": {"questions": 4}},
            data={"held_out": 4},
        )

    expected = play(recipe(), tmp_path / "plain")

    leagues: list[League] = []
    transformer_at: dict[int, str] = {}
    answered, edited, vlms_at_rest = 0, 0, set[int]()
    own_move, own_init = FlowEditor._move, League.__init__

    def move(self: FlowEditor, device: torch.device, *names: str) -> None:
        own_move(self, device, *names)
        if "transformer" in names:
            transformer_at[id(self)] = str(device)

    def init(self: League, *arguments: Any) -> None:
        own_init(self, *arguments)
        leagues.append(self)

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def answer(self: LocalVLM, *arguments: Any, **options: Any) -> Any:
            nonlocal answered
            editor = leagues[0]._editor
            assert id(self) not in vlms_at_rest
            assert editor is None or transformer_at[id(editor)] == "cpu"
            answered += editor is not None
            return method(self, *arguments, **options)

        return answer

    def velocity(self: FlowEditor, *arguments: Any, **options: Any) -> Any:
        nonlocal edited
        assert transformer_at[id(self)] == "cpu:0"
        if (league := leagues[0])._editor_is is not None:  # nobody trains it
            edited += 1
            held = [
                vlm
                for vlm in (
                    league._defender and league._defender[1],
                    league._duplicates and league._duplicates.judge,
                )
                if vlm
            ]
            assert held
            assert vlms_at_rest == set(map(id, held))
        assert self.transformer.gradient_checkpointing
        return own_velocity(self, *arguments, **options)

    @contextmanager
    def resting(self: LocalVLM) -> Iterator[None]:
        with own_rest(self):
            vlms_at_rest.add(id(self))
            yield
            vlms_at_rest.remove(id(self))

    own_velocity, own_rest = FlowEditor.velocity_at, LocalVLM.resting
    monkeypatch.setattr(LocalVLM, "resting", resting)
    monkeypatch.setattr(FlowEditor, "_move", move)
    monkeypatch.setattr(FlowEditor, "velocity_at", velocity)
    monkeypatch.setattr(League, "__init__", init)
    for name in ("generate", "option_probabilities"):
        monkeypatch.setattr(LocalVLM, name, guarded(getattr(LocalVLM, name)))
    monkeypatch.setattr(loop, "begin_computing", lambda device, threads: torch.device("cpu:0"))
    assert play(recipe(offload=True, gradient_checkpointing=True), tmp_path / "frugal") == expected
    assert answered > 10
    assert edited > 10


def test_the_league_hands_an_editor_what_the_recipe_says_and_lets_it_rest(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"offload": True, "gradient_checkpointing": True, "embedded_guidance": 4.0}
    league = League(game_recipe(players, questions, attacker=settings), tmp_path, torch.device("cpu:0"))
    with league.defenders_turn():  # nobody there to rest
        pass
    editor = league.attacker("untuned", keep=False)  # lent to a trainer, it rests all the same
    assert (editor.offload, editor.transformer.gradient_checkpointing, editor.embedded_guidance) == (
        True,
        True,
        4.0,
    )
    moves = []
    monkeypatch.setattr(editor.transformer, "to", lambda device: moves.append(str(device)))
    with league.defenders_turn():
        assert moves == ["cpu"]
    assert moves == ["cpu", "cpu:0"]
    league.rest_attacker()
    with league.defenders_turn():
        pass
    assert len(moves) == 2


def test_a_frozen_attacker_leaves_once_for_all_cells(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = game_recipe(
        players,
        questions,
        attacker={"offload": True},
        data={"held_out": 6},
        evaluation={"batch": 2, "rivals": {"blots": "tests.small_game:blot"}},
    )
    monkeypatch.setattr(loop, "begin_computing", lambda device, threads: torch.device("cpu:0"))
    with loop.open_game(recipe, tmp_path, Screen(Console(file=io.StringIO()))) as game:
        editor, moves = game.league.attacker("untuned"), list[str]()
        monkeypatch.setattr(editor.transformer, "to", lambda device: moves.append(str(device)))
        with game.crew("play", at_the_table, defenders=["base"]) as crew:
            make_pictures(game, "blots", crew)
            for opponent in (CLEAN, "blots"):
                play_cell(game, "base", opponent, crew)
        assert moves == ["cpu"]
        assert game.league.attacker("untuned") is editor
        assert moves == ["cpu", "cpu:0"]


@pytest.mark.parametrize("offload", [True, False])
def test_vlms_rest_while_a_frozen_attacker_edits(
    offload: bool, players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = game_recipe(players, questions, attacker={"offload": offload})
    league = League(recipe, tmp_path, torch.device("cpu:0"))
    with league.attackers_turn():  # nobody there to rest
        pass
    moves: list[tuple[str, str]] = []
    vlms = {"defender": league.defender("base"), "judge": league.duplicate_check().judge}  # type: ignore[union-attr]
    for name, vlm in vlms.items():
        move = lambda device, name=name: moves.append((name, str(device)))  # noqa: E731
        monkeypatch.setattr(vlm.model, "to", move)  # type: ignore[attr-defined]
    expected = [("defender", "cpu"), ("judge", "cpu")] if offload else []
    with pytest.raises(KeyError), league.attackers_turn():  # noqa: PT012
        assert moves == expected
        raise KeyError
    assert moves == expected + expected[::-1]


@pytest.mark.parametrize(("phase", "stays"), [("defender", False), ("attacker", False), ("play", True)])
def test_frozen_players_leave_this_process_before_others_train(
    players: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: Phase, stays: bool
) -> None:
    engine: dict[str, object] = {"attacker": {"workers": 2}, "defender": {"workers": 2}}
    monkeypatch.setattr(Engine, "crew", lambda *given: nullcontext())
    recipe = game_recipe(players, questions, engine=engine)
    with loop.open_game(recipe, tmp_path, Screen(Console(file=io.StringIO()))) as game:
        seen = [weakref.ref(game.league.defender("base")), weakref.ref(game.league.duplicate_check())]
        gc.disable()
        try:
            with game.crew(phase, at_the_table):
                assert [one() is not None for one in seen] == [stays, stays]
        finally:
            gc.enable()
