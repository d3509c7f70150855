"""A judge model, called by the league, reads reasoning that no rule can read; its verdicts are in the ledger
and in the rewards.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from small_game import game_recipe, picture, teach
from small_vlms import tiny_llava
from sparring.defenders.consistency import EMPTY, reasoning_of, verdict_of
from sparring.engine.screen import Screen
from sparring.selfplay.loop import open_game
from sparring.selfplay.phases import train_defender, write_curriculum

READ = {"d": "A", "l": "B"}  # dark: no, it is not light; light: yes
"""What the Defender's reasoning, a single letter, arrives at."""


@pytest.fixture(scope="module")
def thinkers(players: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Defender that thinks one letter before it answers, and in a quarter of the cases answers something
    else; a reader of such thoughts.
    """
    folder, rng = tmp_path_factory.mktemp("thinkers"), np.random.default_rng(7)
    shutil.copytree(players / "defender", folder / "defender")
    tiny_llava(folder / "judge", scale=1.0)
    images, light = zip(*(picture(rng) for _ in range(64)), strict=True)
    replies = [
        f"{'dl'[is_light]} \\boxed{{{'AB'[is_light != (number % 4 == 0)]}}}"
        for number, is_light in enumerate(light)
    ]
    teach(folder / "defender", replies, list(images), "Light?", steps=60)
    teach(
        folder / "judge",
        list(READ.values()) * 8,
        [EMPTY] * 16,
        [f"{thought}?" for thought in READ] * 8,
        steps=80,
    )
    return folder


@pytest.mark.parametrize("role", ["factor", "constraint"])
def test_reasoning_that_no_rule_reads(thinkers: Path, questions: Path, tmp_path: Path, role: str) -> None:
    assert all(verdict_of(thought, ("no", "yes")).letter is None for thought in READ)
    consistency = {"role": role, "model": str(thinkers / "judge"), "prompt": "{reasoning}?"}
    sections: dict[str, Any] = {
        "defender": {"max_new_tokens": 16, "steps": 2, "prompts_per_step": 8, "consistency": consistency},
        "selfplay": {"rounds": 1, "curriculum": {"questions": 8, "clean_share": 1.0}},
        "judge": {"model": None},
    }
    recipe = game_recipe(thinkers, questions, rounds=1, **sections)
    with open_game(recipe, tmp_path, Screen(Console(file=io.StringIO()))) as game:
        write_curriculum(game, 1)
        train_defender(game, 1)
        answers = game.ledger._db.execute(
            "SELECT text, choice, notes FROM answers WHERE stage = 'round1/defender'"
        ).fetchall()
        updates = game.ledger.updates("round1/defender")
    read: list[bool] = []
    for answer in answers:
        notes, thought = json.loads(answer["notes"]), reasoning_of(answer["text"])
        if thought not in READ:
            continue  # it is sampled: now and then it thinks something else
        assert notes["verdict_unread"] == 0
        read.append(READ[thought] == answer["choice"])
        assert notes["consistent"] == float(read[-1])
        if role == "factor":
            taken = 0.0 if read[-1] else -(notes["reward_accuracy"] + notes["reward_format"])
            assert notes["reward_inconsistency"] == pytest.approx(taken)
    assert len(read) > 0.6 * len(answers)
    assert 0.05 < sum(read) / len(read) < 0.95
    assert len(updates) == 2
    for metrics in updates:
        assert 0 < metrics["consistent"] < 1
    if role == "constraint":
        assert 0 == updates[0]["consistency_weight"] < updates[1]["consistency_weight"]
