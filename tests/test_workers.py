"""Verbs that go over many records, on the bundled players: what worker processes write, some of which die, and
what actors of a Ray cluster write, is what one process writes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from small_cluster import three_machines
from small_workers import contents
from sparring.cli import app
from sparring_arena.dataset import write_questions

pytestmark = pytest.mark.slow
VERBS = {
    "forge": ["--limit", "12", "--set", "batch=2"],
    "attack": ["--attacker", "arena/editor", "--judge", "arena/judge", "--set", "batch=2"],
    "probe": ["--attacker", "pgd:eps=8:steps=1", "--no-text", "--set", "batch=2"],
    "eval": ["--suite", "custom", "--batch", "1", "--profile", "vlmevalkit"],
}
PROGRESS = {
    "ledger.sqlite": "SELECT count(*) FROM edits",
    "answers.sqlite": "SELECT count(*) FROM answers",
    "forge.sqlite": "SELECT count(*) FROM batches",
}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, _ = write_questions(tmp_path_factory.mktemp("questions"), seed=5, train=12, held_out=1)
    return path


def run(verb: str, questions: Path, out: Path, *options: str) -> str:
    """Give the command; what it says to standard error."""
    common = ["--data", str(questions), "--recipe", "arena", "--out", str(out), "--set", "threads=1"]
    result = CliRunner().invoke(app, [verb, *common, *VERBS[verb], *options])
    assert result.exit_code == 0, result.output
    return result.stderr


@pytest.fixture(scope="module")
def alone(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What a verb writes by one process."""
    known: dict[str, dict[str, Any]] = {}

    def written(verb: str) -> dict[str, Any]:
        if verb not in known:
            out = tmp_path_factory.mktemp(verb)
            run(verb, questions, out)
            known[verb] = contents(out)
        return known[verb]

    return written


def progress(out: Path) -> int:
    """How much there is in a folder."""
    done = 0
    for name, query in PROGRESS.items():
        if (out / name).is_file():
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(out / name)) as database:
                done += database.execute(query).fetchone()[0]
    return done


@pytest.mark.parametrize("verb", VERBS)
def test_worker_processes_that_die_write_what_one_process_writes(
    verb: str, alone: Callable[[str], dict[str, Any]], questions: Path, tmp_path: Path
) -> None:
    killed, over = threading.Event(), threading.Event()

    def kill() -> None:
        while not progress(tmp_path) or not (workers := multiprocessing.active_children()):
            if over.wait(0.01):
                return
        for worker in workers:
            os.kill(worker.pid or 0, signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    try:
        said = run(verb, questions, tmp_path, "--workers", "2")
    finally:
        over.set()
    assert killed.is_set()
    assert "It goes on (1 of 3)" in said
    assert contents(tmp_path) == alone(verb)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    with three_machines() as machines:
        yield machines


@pytest.mark.parametrize("verb", ["forge", "probe", "eval"])  # an attack is a probe with other defaults
def test_actors_of_a_cluster_write_what_one_process_writes(
    verb: str, alone: Callable[[str], dict[str, Any]], questions: Path, tmp_path: Path, cluster: Any
) -> None:
    run(verb, questions, tmp_path, "--engine", "ray", "--workers", "3")
    assert contents(tmp_path) == alone(verb)
