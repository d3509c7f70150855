"""Rivals that nobody trained in held-out play: by the Attackers' path, in the matrix and in the summary."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from small_game import game_recipe
from sparring.config import Recipe
from sparring.data.errors import DataError
from sparring.data.images import load_image, pictures_of
from sparring.data.questions import read_questions
from sparring.engine.screen import Screen
from sparring.judging.kinds import KINDS
from sparring.report.page import write_report
from sparring.report.run import read_run
from sparring.selfplay.heldout import opponents_edits
from sparring.selfplay.loop import run_game

Played = tuple[Path, dict[str, Any]]


def recipe(players: Path, questions: Path) -> Recipe:
    return game_recipe(
        players,
        questions,
        rounds=1,
        judge={"light_level": 0.08, "light_spread": 0.2},
        evaluation={
            "rivals": {"light": "light:0.75", "blots": "tests.small_game:blot", "faint": "light:0.97"}
        },
    )


@pytest.fixture(scope="module")
def played(players: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Played:
    out = tmp_path_factory.mktemp("rivals").resolve()
    return out, run_game(recipe(players, questions), out, Screen(Console(file=io.StringIO())))


def rows(out: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(out / "ledger.sqlite")) as db:
        return db.execute(query).fetchall()


def test_rivals_are_columns_beside_the_attackers(played: Played) -> None:
    out, summary = played
    payoff = summary["payoff"]
    assert payoff["opponents"] == ["clean", "reencoded", "bootstrap", "round1", "light", "blots", "faint"]
    assert all(len(row) == 7 and all(cell["n"] == 12 for cell in row) for row in payoff["accuracy"])
    assert all(cell is not None for row in payoff["valid_asr"] for cell in row[2:])
    for name in ("light", "blots", "faint"):
        assert len(rows(out, f"SELECT * FROM verdicts WHERE stage = 'evaluation/{name}'")) == 12
        made = rows(
            out, f"SELECT attacker, instruction, picture FROM edits WHERE stage = 'evaluation/{name}'"
        )
        assert {attacker for attacker, _, _ in made} == {name}
        assert all(load_image(out / picture).size == (64, 64) for *_, picture in made)


def test_the_gate_refuses_the_light_rival_and_says_why(played: Played) -> None:
    out, summary = played
    light, faint = summary["rivals"]["light"], summary["rivals"]["faint"]
    assert light["rival"] == "light:0.75"
    assert light["rejected_rate"]["value"] == light["relit_rate"]["value"] == 1.0
    assert light["valid_asr"]["value"] == 0
    assert faint["relit_rate"]["value"] == 0.0
    notes = [
        json.loads(text)
        for (text,) in rows(out, "SELECT notes FROM verdicts WHERE stage = 'evaluation/light'")
    ]
    assert all(note["relit"] == 1 and note["light_level"] > 0.2 for note in notes)


def test_the_attacker_and_transfer_are_measured_beside_every_rival(played: Played) -> None:
    _, summary = played
    payoff = summary["payoff"]
    base, last = (dict(zip(payoff["opponents"], row, strict=True)) for row in payoff["accuracy"])
    success = dict(zip(payoff["opponents"], payoff["valid_asr"][0], strict=True))
    for name, rival in summary["rivals"].items():
        assert rival["transfer"]["value"] == pytest.approx(last[name]["value"] - base[name]["value"])
        assert rival["attacker"]["value"] == pytest.approx(
            success["round1"]["value"] - success[name]["value"]
        )
        for difference in (rival["transfer"], rival["attacker"]):
            assert difference["ci95"][0] <= difference["value"] <= difference["ci95"][1]


def test_strategies_count_valid_successes_by_kind(played: Played) -> None:
    _, summary = played
    success = dict(zip(summary["payoff"]["opponents"], summary["payoff"]["valid_asr"][0], strict=True))
    assert list(summary["strategies"]) == ["bootstrap", "round1", "light", "blots", "faint"]
    for name, kinds in summary["strategies"].items():
        assert list(kinds) == list(KINDS)
        hits = round(success[name]["value"] * success[name]["n"])
        assert {kind["n"] for kind in kinds.values()} == {hits}
        if hits:
            assert sum(kind["value"] for kind in kinds.values()) == pytest.approx(1)
    blots = summary["strategies"]["blots"]
    assert blots["imperceptible"]["value"] in (0, None)


def test_the_page_shows_rivals_and_strategies(played: Played) -> None:
    out, _ = played
    page = write_report(out).read_text(encoding="utf-8")
    assert "Successful edits by what they did" in page
    assert "light:0.75" in page
    assert "blots Attacker" not in page  # the gallery shows Attackers


def test_a_page_of_a_run_under_way_has_the_rivals_columns(played: Played, tmp_path: Path) -> None:
    out = shutil.copytree(played[0], tmp_path / "run")
    (out / "summary.json").unlink()
    run = read_run(out)
    assert run.payoff["opponents"][-3:] == ["light", "blots", "faint"]
    assert [row[-1]["n"] for row in run.payoff["accuracy"]] == [12, 12]
    page = write_report(out).read_text(encoding="utf-8")
    assert "blots" in page
    assert "Successful edits by what they did" not in page


def test_a_rival_that_widens_pictures_is_named_with_the_question(players: Path, questions: Path) -> None:
    played = game_recipe(players, questions, evaluation={"rivals": {"blots": "tests.small_game:widened"}})
    asked = read_questions(questions).records[:2]
    with pytest.raises(DataError, match=rf'blots: tests.small_game:widened .* question "{asked[0].id}" from'):
        opponents_edits(SimpleNamespace(recipe=played), "blots", asked, pictures_of(asked))  # type: ignore[arg-type]
