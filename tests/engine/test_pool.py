"""Processes that do work: scripts that are not run again."""

import operator
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparring.engine.pool import Workers

SCRIPT = """
import operator, os, pathlib
pathlib.Path("runs").open("a").write("x")
from sparring.engine.pool import Workers
workers = Workers(2, os.getpid)
print(list(workers.map(operator.neg, range(5))), __name__)
workers.shutdown()
"""


@pytest.mark.parametrize("started", [["script.py"], ["-m", "script"], ["-c", SCRIPT]])
def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path, started: list[str]) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *started], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0, -1, -2, -3, -4] __main__\n"
    assert (tmp_path / "runs").read_text() == "x"


def test_the_main_module_is_given_back() -> None:
    main = sys.modules["__main__"]
    with Workers(1, os.getpid) as workers:
        assert workers.submit(operator.neg, 1).result() == -1
        assert sys.modules["__main__"] is main


ALL_AT_ONCE = """
import operator, os, signal, time
from sparring.engine.pool import Workers
workers = Workers(1, os.getpid)
first = workers.submit(time.sleep, 1.0)
workers.submit(operator.neg, 1)
time.sleep(0.3)
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
os.killpg(0, signal.SIGTERM)
print(first.result(), workers.submit(operator.neg, 2).result())
again = Workers(1, os.getpid)
print(again.submit(operator.neg, 3).result())
again.shutdown()
workers.shutdown()
"""


def test_what_a_scheduler_sends_to_all_processes_is_left_to_the_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "heard\nNone -2\n-3\n"


def test_workers_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    with Workers(1, os.getpid) as workers:
        assert workers.submit(os.getenv, "SPARRING_TEST").result() is None
    monkeypatch.setenv("SPARRING_TEST", "set later")
    with Workers(1, os.getpid) as workers:
        assert workers.submit(os.getenv, "SPARRING_TEST").result() == "set later"
