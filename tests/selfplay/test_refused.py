"""A game against a Defender behind an endpoint that filters some questions: they are left out, the rest goes
on.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from endpoint_server import question, serving
from small_checkpoints import tiny_flux2_klein
from small_forge import is_light
from small_game import game_recipe, write_game_questions
from sparring.config import Recipe
from sparring.data.errors import ModelError
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.report.page import write_report
from sparring.selfplay.loop import run_game

FILTERED: dict[str, Any] = {"text": None, "finish_reason": "content_filter"}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_game_questions(tmp_path_factory.mktemp("q"), 24)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps(own | {"question": f"Light {i}?"}) + "\n" for i, own in enumerate(lines))
    )
    return path


def recipe_of(folder: Path, questions: Path, url: str) -> Recipe:
    tiny_flux2_klein(folder / "editor")
    return game_recipe(
        folder,
        questions,
        rounds=1,
        defender={
            "model": f"{url}#shy",
            "prompt": "{question} {options}",
            "endpoint": {"retries": 1, "first_wait": 0.01},
            "final_interpolation": 1.0,
        },
        judge={
            "model": None,
            "dense_weight": 0.0,
            "integrity_threshold": -1.0,
            "trials": 1,
            "trial_temperature": 0.0,
        },
        attacker={"steps": 4, "questions_per_step": 3, "group_size": 2},
        bootstrap={"questions": 4, "steps": 1},
        evaluation={"audit": None, "resamples": 100},
    )


def test_filtered_questions_are_left_out_told_once_and_counted(numbered: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    cleans = {Image.open(numbered.parent / f"{i}.png").tobytes() for i in range(24)}

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        number = int(question(body).split()[1].rstrip("?"))
        if number == 7 or (number % 4 == 0 and image.tobytes() not in cleans):
            return FILTERED
        return {"text": f"\\boxed{{{'AB'[is_light(image)]}}}"}

    log = io.StringIO()
    with serving(answer) as server:
        recipe = recipe_of(tmp_path, numbered, server.url)
        summary = run_game(recipe, tmp_path / "out", Screen(Console(file=log, width=400)))
    ledger = Ledger(tmp_path / "out")
    lost = set(ledger.unjudged("round1/attacker"))
    assert lost <= {f"q{i}" for i in (0, 4, 8, 12, 16, 20)}
    assert lost
    updates = ledger.updates("round1/attacker")
    assert len(updates) == 4
    assert sum(metrics.get("left_out", 0) for metrics in updates) >= len(lost)
    judged = {
        (step, name) for step in range(4) for name, _ in ledger.keys("verdicts", "round1/attacker", step)
    }
    assert not {name for _, name in judged} & lost
    assert judged
    assert summary["rounds"][0]["attacker"]["left_out"] == sorted(lost)
    told = [
        line for line in log.getvalue().splitlines() if "gets no answer" in line and "evaluation" not in line
    ]
    # by the forge's silence (its funnel tells), once by the Attacker's training, once by the curriculum
    for name in lost:
        assert 1 <= sum(f'"{name}"' in line for line in told) <= 2
    assert any(text.startswith("round1/attacker: the Defender refused") for text in summary["warnings"])
    # Every cell of the matrix is of the same held-out questions.
    held_out = [row["id"] for row in ledger._db.execute("SELECT id FROM questions WHERE split = 'held_out'")]
    counted = [name for name in held_out if name != "q7" and int(name[1:]) % 4]
    assert len(counted) < len(held_out)
    assert {cell["n"] for row in summary["payoff"]["accuracy"] for cell in row} == {len(counted)}
    write_report(tmp_path / "out")


def test_a_defender_that_refuses_everything_ends_the_game_with_its_reason(
    numbered: Path, tmp_path: Path
) -> None:
    with serving(lambda image, body: FILTERED) as server:
        recipe = recipe_of(tmp_path, numbered, server.url)
        with pytest.raises(ModelError, match="refuses all"):
            run_game(recipe, tmp_path / "out", Screen(Console(file=io.StringIO())))
