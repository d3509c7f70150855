"""Processes that do work: scripts that are not run again."""

import operator
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

import sparring
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


def test_a_worker_that_dies_does_not_hold_up_the_end() -> None:
    workers = Workers(2, os.getpid)
    waiting = [workers.submit(time.sleep, 60) for _ in range(2)]
    victim, *_ = workers._processes
    time.sleep(0.5)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(BrokenExecutor):
        waiting[0].result(timeout=30)
    began = time.monotonic()
    workers.shutdown()
    assert time.monotonic() - began < 10


FROM_ELSEWHERE = """
import sys
sys.path[0] = sys.argv[1]
import whereabouts
from sparring.engine.pool import Workers
with Workers(1, whereabouts.pool) as workers:
    print(workers.submit(whereabouts.pool).result())
"""


def test_workers_import_from_where_the_command_does_and_not_from_its_folder(tmp_path: Path) -> None:
    """A file of the user's that is called like a module is none of theirs."""
    package = Path(sparring.__file__).parent
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "sparring").symlink_to(package)
    here = tmp_path / "here"
    here.mkdir()
    (here / "torch.py").write_text("raise SystemExit('the wrong torch')")
    (checkout / "whereabouts.py").write_text(
        "import sys\ndef pool(): return sys.modules['sparring.engine.pool'].__file__"
    )
    done = subprocess.run(
        [sys.executable, "-c", FROM_ELSEWHERE, str(checkout)],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(checkout / "sparring/engine/pool.py")
