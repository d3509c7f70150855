"""A curriculum of static distractors: whose edits it holds, what the gate sees of them, and that the Defender
learns from it.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from small_game import game_recipe
from sparring.config import Recipe
from sparring.data.images import load_image
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.selfplay.loop import open_game, run_game
from sparring.selfplay.phases import train_defender, write_curriculum


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cutouts")
    for name, color in (("star", (250, 240, 30, 255)), ("hat", (30, 30, 200, 255))):
        Image.new("RGBA", (16, 16), color).save(folder / f"{name}.png")
    # Cut-outs have a transparent part.
    for path in folder.iterdir():
        picture = Image.open(path)
        picture.putpixel((0, 0), (0, 0, 0, 0))
        picture.save(path)
    return folder


def recipe(players: Path, questions: Path, cutouts: Path, **defender: Any) -> Recipe:
    rivals = [f"paste:{mode}:folder={cutouts}" for mode in ("add", "insert")]
    curriculum = {"questions": 8, "clean_share": 0.25, "rivals": rivals}
    changes: dict[str, Any] = {
        "selfplay": {"rounds": 1, "curriculum": curriculum},
        "judge": {"model": None},
        "defender": defender,
    }
    return game_recipe(players, questions, rounds=1, **changes)


@pytest.mark.parametrize("algorithm", ["dapo", "sft"])
def test_the_defender_learns_from_what_rivals_paste(
    players: Path, questions: Path, cutouts: Path, tmp_path: Path, algorithm: str
) -> None:
    with open_game(
        recipe(players, questions, cutouts, algorithm=algorithm),
        tmp_path,
        Screen(Console(file=io.StringIO())),
    ) as game:
        by_id = {question.id: question for question in game.train}
        write_curriculum(game, 1)
        ledger, stage = game.ledger, "round1/curriculum"
        edits, verdicts = (
            ledger.edits(stage),
            {verdict.question_id: verdict for verdict in ledger.verdicts(stage)},
        )
        assert len(edits) == len(verdicts) == game.stage(stage).result["edits"] > 4
        modes = {"add": 0, "insert": 0}
        for edit in edits:
            mode = edit["attacker"].split(":")[1]
            modes[mode] += 1
            clean, picture = load_image(by_id[edit["question_id"]].image), load_image(edit["picture"])
            grown = (picture.width > clean.width) + (picture.height > clean.height)
            assert grown == (mode == "insert")
            if mode == "insert":
                assert picture.crop((0, 0, *clean.size)).tobytes() == clean.tobytes()
            # Nothing is pasted over a target, so what the gate sees of every edit is whole.
            verdict = verdicts[edit["question_id"]]
            assert verdict.accepted
            assert verdict.integrity > (0.999 if mode == "insert" else 0.5)
        assert min(modes.values()) >= 2
        fooled = {verdict.question_id for verdict in verdicts.values() if verdict.efficacy > 0}
        assert fooled == {answer.question_id for answer in ledger.answers(stage, "base") if not answer.right}
        assert len(ledger.answers(stage, "base")) == len(edits)
        train_defender(game, 1)
        updates = ledger.updates("round1/defender")
        assert len(updates) == 3
        if algorithm == "sft":
            assert all(metrics["loss"] > 0 for metrics in updates)
            assert game.stage("round1/defender").result["rollouts"] == 0
        else:
            assert all("reward_accuracy" in metrics for metrics in updates)
            row = ledger._db.execute(
                "SELECT notes FROM answers WHERE stage = 'round1/defender' LIMIT 1"
            ).fetchone()
            assert {"reward_accuracy", "reward_format"} == json.loads(row["notes"]).keys()
        assert (tmp_path / "round1" / "defender" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_whole_game_with_a_supervised_defender_and_its_report(
    players: Path, questions: Path, cutouts: Path, tmp_path: Path
) -> None:
    from sparring.report.page import write_report

    summary = run_game(
        recipe(players, questions, cutouts, algorithm="sft"), tmp_path, Screen(Console(file=io.StringIO()))
    )
    assert summary["rounds"][0]["defender"]["algorithm"] == "sft"
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Loss of the fine-tuning" in page
    ledger = Ledger(tmp_path)
    assert ledger.updates("round1/defender")
    ledger.close()
