"""A run's folder is one recipe's and one process's; recipes name callables; devices."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from sparring.config import AttackerSettings, CallSettings, DataSettings, DefenderSettings, Recipe
from sparring.data.errors import RecipeError, RunError
from sparring.engine.calls import import_call
from sparring.engine.device import choose_device
from sparring.engine.folder import run_folder


def recipe(**changes: object) -> Recipe:
    parts = {
        "data": DataSettings(path="q.jsonl"),
        "attacker": AttackerSettings(model="editor"),
        "defender": DefenderSettings(model="vlm"),
    }
    return Recipe.model_validate({"name": "test", **parts, **changes})


def test_the_resolved_recipe_is_kept_and_read_back_the_same(tmp_path: Path) -> None:
    with run_folder(recipe(seed=7), tmp_path / "run") as out:
        stored = Recipe.model_validate(yaml.safe_load((out / "recipe.yaml").read_text()))
    assert stored == recipe(seed=7)
    with run_folder(stored, tmp_path / "run"):
        pass


def test_another_recipe_is_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    with run_folder(recipe(), tmp_path):
        (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(RunError, match="seed is 0 there and 1 here"), run_folder(recipe(seed=1), tmp_path):
        pass
    with (
        pytest.raises(RunError, match=r"attacker\.steps is 30 there"),
        run_folder(recipe(attacker={"model": "editor", "steps": 2}), tmp_path),
    ):
        pass


def test_a_ledger_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        ledger.execute("CREATE TABLE edits (question_id)")
        ledger.execute("INSERT INTO edits VALUES ('q')")
    with pytest.raises(RunError, match=r"no recipe\.yaml"), run_folder(recipe(), tmp_path):
        pass


def test_two_processes_never_share_a_folder_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    hold = (
        f"import fcntl, sys, time; f = open({str(tmp_path / '.lock')!r}, 'a'); fcntl.flock(f, "
        f"fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(RunError, match="in use by another process"), run_folder(recipe(), tmp_path):
        pass
    process.kill()
    process.wait()
    with run_folder(recipe(), tmp_path):
        pass


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        ("no_colon", {}, "not of the form"),
        ("no_such_package_here:f", {}, "cannot be imported"),
        ("math:no_such_function", {}, "cannot be imported"),
        ("math:pi", {}, "is not a function"),
        ("sparring.seeds:derive_seed", {"colour": 1}, "arguments do not fit"),
    ],
)
def test_a_wrong_callable_is_an_error_that_names_the_field(
    call: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        import_call(CallSettings(call=call, arguments=arguments), "evaluation.audit")
    assert "evaluation.audit" in str(error.value)


def test_a_right_callable_is_given_back() -> None:
    assert import_call(CallSettings(call="math:floor"), "data.generator")(1.5) == 1


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(RecipeError, match="no CUDA device"):
            choose_device("cuda")
