"""Signals to a real process that trains: what is under way is finished and saved, and a second signal does not
wait for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from small_game import game_recipe, write_game_questions, write_players

TRAINING = """
import json, sys, time
from pathlib import Path
import typer
from sparring.console import stoppable
from sparring.engine.ledger import Ledger
from sparring.engine.stages import Schedule, Stage, train

out, seconds = Path(sys.argv[1]), float(sys.argv[2])

class Walker:
    value = 1.0
    def save(self, folder):
        (folder / "walker.json").write_text(json.dumps(self.value))
    def load(self, folder):
        self.value = json.loads((folder / "walker.json").read_text())

walker, stage = Walker(), Stage(out, "round1/attacker", Ledger(out))
stage.begin(resumes=True)

def update(step):
    print(f"update {step}", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:  # in short sleeps: one is cut by a signal, computing is not
        time.sleep(0.05)
    walker.value = (walker.value * 1.7 + step) % 3.1
    return {"value": walker.value}

def main():
    with stoppable("Go on with: the same."):
        print("begun", flush=True)
        if len(sys.argv) > 3:
            time.sleep(30)
        history = train(stage, walker, update, Schedule(4, 100), on_update=lambda metrics: None)
    print(json.dumps([metrics["value"] for metrics in history]), flush=True)

try:
    main()
except typer.Exit as end:
    sys.exit(end.exit_code)
"""

PLAYING = """
from pathlib import Path
import typer
from sparring.cli import _play
from sparring.config import Recipe
from sparring.console import clean_errors

def play(recipe: Path, out: Path):
    with clean_errors():
        _play(Recipe.model_validate_json(recipe.read_text()), out)

typer.run(play)
"""


@contextmanager
def training(out: Path, seconds: float, *more: str) -> Iterator[subprocess.Popen[str]]:
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-c", TRAINING, str(out), str(seconds), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def whole(out: Path) -> list[float]:
    with training(out, 0.0) as process:
        assert process.stdout is not None
        values: list[float] = json.loads(process.stdout.read().splitlines()[-1])
    return values


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_update_under_way_is_finished_and_its_state_saved(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    out = tmp_path / "cut"
    with training(out, 2.0) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(2)] == ["update 0\n", "update 1\n"]
        time.sleep(0.2)
        process.send_signal(number)
        process.send_signal(number)  # as `timeout` does: to the process, and to its group
        assert process.stdout.read() == ""
        errors = process.stderr.read()
        assert process.wait() == status
    assert [folder.name for folder in (out / "round1/attacker/state").iterdir()] == ["000002"]
    assert errors.count("Go on with: the same.") == 1
    assert f"{number.name}: what is under way is finished" in errors
    assert "Traceback" not in errors
    assert whole(out) == whole(tmp_path / "undisturbed")


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with training(tmp_path, 60.0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "update 0\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(3)  # later than what counts as the same wish
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert time.monotonic() - began < 5
    assert not (tmp_path / "round1/attacker/state").exists()


def test_outside_of_an_update_it_stops_where_it_is(tmp_path: Path) -> None:
    with training(tmp_path, 0.0, "wait") as process:
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 143
    assert errors == "Stopped. Go on with: the same.\n"


@pytest.mark.slow
def test_a_run_that_is_terminated_goes_on_to_the_same_summary(tmp_path: Path) -> None:
    """What `sparring run` calls, terminated as soon as each player trains."""
    players = tmp_path / "players"
    write_players(players)
    questions = write_game_questions(tmp_path / "questions", 40)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(game_recipe(players, questions, rounds=1).model_dump_json(), encoding="utf-8")
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"

    def playing(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PLAYING, str(recipe), str(folder)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    for stage in ("attacker", "defender"):
        with playing(out) as process:
            while not (out / "round1" / stage).is_dir():
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.01)
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            errors = process.communicate(timeout=120)[1]
        assert process.returncode == 143, errors
        assert f"Stopped. Go on with: sparring run --resume {out}" in errors
        assert not (out / "round1" / stage / "done.json").exists()
    for folder in (out, undisturbed):
        with playing(folder) as process:
            errors = process.communicate()[1]
        assert process.returncode == 0, errors
    figures = [json.loads((folder / "summary.json").read_text()) for folder in (out, undisturbed)]
    for own in figures:
        for name in ("wall_seconds", "peak_rss_mb"):
            del own[name]
    assert figures[0] == figures[1]
