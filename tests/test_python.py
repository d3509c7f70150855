"""`import sparring`, as docs/python.md and the notebook show it."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

import sparring
from report.fake_run import write_fake_run
from small_checkpoints import picture
from sparring.config import AttackerSettings, JudgeSettings
from sparring.data.errors import RecipeError, RunError
from sparring.data.records import Edit, Target, VisualQuestion

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")


def test_importing_it_loads_nothing_and_a_recipe_no_models() -> None:
    code = "import sys, sparring; {}; print(*[name for name in ('torch', 'pydantic', 'pandas') if name in sys.modules])"
    for then, loaded in (("dir(sparring)", set()), ("sparring.load_recipe('arena')", {"pydantic"})):
        done = subprocess.run(
            [sys.executable, "-c", code.format(then)], capture_output=True, text=True, check=True
        )
        assert set(done.stdout.split()) == loaded


def test_what_type_checkers_are_told_is_what_there_is() -> None:
    stub = ast.parse((ROOT / "src/sparring/__init__.pyi").read_text(encoding="utf-8"))
    told = {n.names[0].name: n.module for n in stub.body if isinstance(n, ast.ImportFrom)}
    assert told == sparring.HOMES
    for name in sparring.HOMES:
        assert getattr(sparring, name).__doc__
    with pytest.raises(AttributeError, match=r"no attribute 'load_recipes'; it offers .*load_recipe"):
        _ = sparring.load_recipes  # type: ignore[attr-defined]


def test_every_name_stands_in_the_page() -> None:
    table = PAGE.partition("## All names")[2]
    rows = "".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) == sparring.HOMES.keys()


def run(blocks: list[str]) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "shown"}
    for block in blocks:
        exec(block, names)
    return names


@pytest.mark.slow
def test_the_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    said = capsys.readouterr().out
    assert all(f"held-out-{number:06d} " in said for number in range(8))
    assert (tmp_path / "runs/tiny/report.html").is_file()
    # an Attacker that is loaded by its name makes the edits that the run has judged
    questions, made = names["questions"], names["edits"]
    rows = sparring.read_ledger(tmp_path / "runs/tiny", "verdicts")
    rows = rows[rows["stage"] == "evaluation/round1"].set_index("question_id")
    for question, verdict in zip(questions, names["verdicts"], strict=True):  # type: ignore[call-overload]
        assert rows.loc[question.id, "integrity"] == pytest.approx(verdict.integrity, abs=1e-3)
        assert rows.loc[question.id, "accepted"] == verdict.accepted
    assert len(made) == 8  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs/quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code), "its outputs are nobody's but its reader's"
    names = run(["".join(cell["source"]) for cell in code])
    assert len(names["after"]) == 8  # type: ignore[arg-type]


def test_a_ledger_is_read_as_it_is(tmp_path: Path) -> None:
    write_fake_run(tmp_path)
    updates = sparring.read_ledger(tmp_path, "updates")
    assert {"stage", "step", "reward_mean"} <= set(updates.columns)
    assert updates["reward_mean"].dtype == float
    verdicts = sparring.read_ledger(tmp_path, "verdicts")
    assert verdicts["accepted"].dtype == pd.BooleanDtype()
    assert isinstance(verdicts["notes"][0], dict)
    edits = sparring.read_ledger(tmp_path, "edits")
    assert all(Path(name).is_file() for name in edits["picture"])
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db, db:
        db.execute("UPDATE stages SET status = 'running', result = NULL WHERE name = 'data'")
    stages = sparring.read_ledger(tmp_path, "stages").set_index("name")["result"]
    assert pd.isna(stages["data"])
    assert isinstance(stages["round1/watch"], dict)
    with pytest.raises(RunError, match=r'no table "update", but .*updates'):
        sparring.read_ledger(tmp_path, "update")
    with pytest.raises(RunError, match=r"holds no ledger\.sqlite"):
        sparring.read_ledger(tmp_path / "pictures", "updates")


def test_the_judge_needs_no_model_where_the_recipe_names_none() -> None:
    question = VisualQuestion("q", Path("q.png"), "?", ("a", "b"), "A", (Target("cup", (8, 8, 40, 40)),))
    clean = picture()
    spoiled, apart = clean.copy(), clean.copy()
    spoiled.paste((0, 0, 0), (8, 8, 40, 40))
    apart.paste((0, 0, 0), (48, 48, 64, 64))
    edits = [Edit("q", "me", "paste", 0, image) for image in (spoiled, apart, clean)]
    verdicts = sparring.load_judge(JudgeSettings(), "cpu")([question] * 3, [clean] * 3, edits)
    assert [verdict.accepted for verdict in verdicts] == [False, True, False]


def test_an_attacker_that_needs_a_defender_is_refused() -> None:
    with pytest.raises(RecipeError, match="takes the gradients of a Defender"):
        sparring.load_attacker(AttackerSettings(model="pgd:eps=8"), "cpu")
