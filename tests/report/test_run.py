"""Reading a run: what is not finished is worked out from the ledger, and equals what the summary
says later.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from report.fake_run import FakeRun, write_fake_run
from sparring.config import Recipe
from sparring.report.run import Run, read_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeRun, Path]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return write_fake_run(out, held_out=32, rounds=2, steps=3), out


def test_without_the_summary_the_matrix_is_the_same(made: tuple[FakeRun, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(made[1], out)
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").unlink()
    payoff = read_run(out).payoff
    for name in ("defenders", "opponents", "accuracy"):
        assert payoff[name] == summary["payoff"][name]


def test_a_cell_half_played_is_not_shown(made: tuple[FakeRun, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(made[1], out)
    (out / "summary.json").unlink()
    with sqlite3.connect(out / "ledger.sqlite") as db:
        db.execute("UPDATE stages SET status = 'running' WHERE name = 'evaluation/round1/round2'")
    run = read_run(out)
    assert [[cell is None for cell in row] for row in run.payoff["accuracy"]] == [
        [False] * 5,
        [False] * 5,
        [False, False, False, True, False],
    ]
    assert run.running == "evaluation/round1/round2"


def test_exhibits_are_what_was_recorded(made: tuple[FakeRun, Path]) -> None:
    fake, out = made
    run: Run = read_run(out)
    assert run.last_defender == "round2"
    assert len(run.exhibits) == 3 * 32
    order = {question.id: i for i, question in enumerate(fake.questions)}
    for exhibit in run.exhibits:
        i = order[exhibit.question_id]
        verdict = fake.verdicts[f"evaluation/{exhibit.attacker}"][i]
        assert exhibit.targets == fake.questions[i].targets
        assert exhibit.accepted == verdict.accepted
        assert exhibit.label_valid == verdict.label_valid
        assert exhibit.clean_right == fake.right["base", "clean"][i]
        base, last = fake.right["base", exhibit.attacker][i], fake.right["round2", exhibit.attacker][i]
        assert exhibit.outcome == {None: "rejected", True: "held", False: "fooled"}[base]
        assert exhibit.won_back == (base is False and last is True)
        assert (exhibit.base is None, exhibit.last is None) == (base is None, last is None)
        assert exhibit.image.is_file()
        assert exhibit.picture.is_file()
    assert {e.outcome for e in run.exhibits} == {"rejected", "held", "fooled"}


def test_an_edit_that_came_back_unchanged_is_shown_as_rejected(
    made: tuple[FakeRun, Path], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(made[1], tmp_path / "run"))
    with closing(sqlite3.connect(out / "ledger.sqlite")) as db, db:
        stage, item = db.execute("SELECT stage, question_id FROM verdicts WHERE accepted LIMIT 1").fetchone()
        where = "WHERE stage = ? AND question_id = ?"
        unchanged = "json_set(notes, '$.unchanged', 1.0)"
        db.execute(f"UPDATE verdicts SET accepted = 0, notes = {unchanged} {where}", (stage, item))
        db.execute(f"DELETE FROM answers {where}", (stage, item))
    exhibits = read_run(out).exhibits
    assert len(exhibits) == 3 * 32
    (own,) = [e for e in exhibits if e.question_id == item and stage == f"evaluation/{e.attacker}"]
    assert own.intact
    assert own.outcome == "rejected"
    assert own.unchanged


def test_a_ledger_is_read_while_a_run_writes_it(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, held_out=2, rounds=1)
    run.ledger.record_update("round1/attacker", 0, {"reward_mean": 0.5})
    assert read_run(tmp_path).histories == {"round1/attacker": [(0, {"reward_mean": 0.5})]}
    run.ledger.record_update("round1/attacker", 1, {"reward_mean": 0.6})
    assert len(read_run(tmp_path).histories["round1/attacker"]) == 2
    run.ledger.close()


def test_the_number_of_rounds_without_a_recipe(made: tuple[FakeRun, Path], tmp_path: Path) -> None:
    shutil.copy(made[1] / "ledger.sqlite", tmp_path / "ledger.sqlite")
    assert read_run(tmp_path).rounds == 2


def test_the_made_up_summary_is_what_the_game_writes(made: tuple[FakeRun, Path], tmp_path: Path) -> None:
    """The other tests are worth what this one says: the real summary has the same fields and, but for drawn
    intervals, the same figures.
    """
    # These import torch and the model libraries, which no other test of the report needs.
    from sparring.engine.ledger import Ledger
    from sparring.selfplay.game import Game
    from sparring.selfplay.summary import summarise

    fake, out = made
    shutil.copytree(out, tmp_path / "run")
    expected = json.loads((out / "summary.json").read_text())
    recipe = Recipe.model_validate(yaml.safe_load((out / "recipe.yaml").read_text()))
    with closing(Ledger(tmp_path / "run")) as ledger:
        absent = cast("Any", None)  # no players, screen or auditor are needed to sum up
        players = recipe, absent, absent, absent
        found = summarise(
            Game(*players, tmp_path / "run", ledger, absent, absent, [], fake.questions, absent)
        )

    def fields(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: fields(inner) for name, inner in value.items()}
        return fields(value[0]) if isinstance(value, list) and value and isinstance(value[0], dict) else None

    assert fields(found) == fields(expected)
    assert found["payoff"] == expected["payoff"]
    assert {name: gain["value"] for name, gain in found["gains"].items()} == {
        name: gain["value"] for name, gain in expected["gains"].items()
    }
    assert read_run(tmp_path / "run").summary == found
