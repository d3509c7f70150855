"""A game whose Attacker makes room for the Defender. "cpu:0" stands for the accelerator, "cpu" for where
parts rest.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from small_game import game_recipe
from sparring.config import Recipe
from sparring.engine.screen import Screen
from sparring.models.editors import FlowEditor
from sparring.models.vlms.local import LocalVLM
from sparring.selfplay import loop
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
    answered = 0
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
            assert editor is None or transformer_at[id(editor)] == "cpu"
            answered += editor is not None
            return method(self, *arguments, **options)

        return answer

    def velocity(self: FlowEditor, *arguments: Any, **options: Any) -> Any:
        assert transformer_at[id(self)] == "cpu:0"
        assert self.transformer.gradient_checkpointing
        return own_velocity(self, *arguments, **options)

    own_velocity = FlowEditor.velocity_at
    monkeypatch.setattr(FlowEditor, "_move", move)
    monkeypatch.setattr(FlowEditor, "velocity_at", velocity)
    monkeypatch.setattr(League, "__init__", init)
    for name in ("generate", "option_probabilities"):
        monkeypatch.setattr(LocalVLM, name, guarded(getattr(LocalVLM, name)))
    monkeypatch.setattr(loop, "begin_computing", lambda device, threads: torch.device("cpu:0"))
    assert play(recipe(offload=True, gradient_checkpointing=True), tmp_path / "frugal") == expected
    assert answered > 10


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
