"""Processes that do work: scripts that are not run again."""

import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparring
from small_workers import process
from sparring.engine.pool import LocalWorker, WorkersLostError

SCRIPT = """
import operator, os, pathlib
pathlib.Path("runs").open("a").write("x")
from sparring.engine.pool import LocalWorker
workers = [LocalWorker(), LocalWorker()]
asked = [worker.submit(operator.neg, number) for number in range(3) for worker in workers]
print([answer.result() for answer in asked], __name__)
for worker in workers:
    worker.end()
"""


@pytest.mark.parametrize("started", [["script.py"], ["-m", "script"], ["-c", SCRIPT]])
def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path, started: list[str]) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *started], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0, 0, -1, -1, -2, -2] __main__\n"
    assert (tmp_path / "runs").read_text() == "x"


@pytest.fixture
def worker() -> Iterator[LocalWorker]:
    worker = LocalWorker()
    yield worker
    worker.end()


def test_the_main_module_is_given_back() -> None:
    main = sys.modules["__main__"]
    worker = LocalWorker()
    assert sys.modules["__main__"] is main
    worker.end()


ALL_AT_ONCE = """
import operator, os, signal, time
from sparring.engine.pool import LocalWorker
worker = LocalWorker()
first = worker.submit(time.sleep, 1.0)
worker.submit(operator.neg, 1)
time.sleep(0.3)
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
os.killpg(0, signal.SIGTERM)
print(first.result(), worker.submit(operator.neg, 2).result())
again = LocalWorker()
print(again.submit(operator.neg, 3).result())
"""  # which ends neither


def test_what_a_scheduler_sends_to_all_processes_is_left_to_the_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE],
        capture_output=True,
        text=True,
        timeout=240,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "heard\nNone -2\n-3\n"


def test_workers_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch, worker: LocalWorker) -> None:
    assert worker.submit(os.getenv, "SPARRING_TEST").result() is None
    monkeypatch.setenv("SPARRING_TEST", "set later")
    later = LocalWorker()
    assert later.submit(os.getenv, "SPARRING_TEST").result() == "set later"
    later.end()


def test_what_goes_wrong_in_a_call_is_raised_here_and_the_next_one_is_done(worker: LocalWorker) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        worker.submit(operator.truediv, 1, 0).result()
    assert "In a worker process:" in raised.value.__notes__[0]
    for wrong in (
        worker.submit(operator.neg, threading.Lock()),  # cannot be sent there
        worker.submit(threading.Lock),  # nor back
        worker.submit(_raise_what_cannot_be_sent),
        worker.submit(sys.exit, 3),
    ):
        assert wrong.exception(timeout=30) is not None
    assert worker.submit(operator.neg, 1).result() == -1


class _Awkward(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def _raise_what_cannot_be_sent() -> None:
    raise _Awkward(1, 2)


@pytest.mark.parametrize("moment", [0.0, 0.003, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("large", ["argument", "result"])
def test_killed_while_much_is_on_its_way_it_is_told_as_lost(large: str, moment: float) -> None:
    worker = LocalWorker()
    process = worker.submit(os.getpid).result()
    much = 1 << 26
    call = (len, bytes(much)) if large == "argument" else (bytes, much)
    under_way, waiting = worker.submit(*call), worker.submit(time.sleep, 60)  # not done by then, however fast
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    with pytest.raises(WorkersLostError, match="a worker process has been killed by SIGKILL"):
        waiting.result(timeout=30)
    assert under_way.done()
    with pytest.raises(WorkersLostError):
        worker.submit(operator.neg, 1).result(timeout=30)
    worker.end()


def test_one_that_ends_by_itself_is_told_with_its_status(worker: LocalWorker) -> None:
    with pytest.raises(WorkersLostError, match="a worker process has ended with status 7"):
        worker.submit(os._exit, 7).result(timeout=30)


def _leave_a_child_behind() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_worker_leaves_behind_holds_up_nothing(killed: bool) -> None:
    """A process that it forked holds its pipe."""
    worker = LocalWorker()
    child = worker.submit(_leave_a_child_behind).result()
    try:
        busy = worker.submit(time.sleep, 60)
        began = time.monotonic()
        if killed:
            os.kill(worker._process.pid or 0, signal.SIGKILL)
            with pytest.raises(WorkersLostError):
                busy.result(timeout=30)
        worker.end()
        assert time.monotonic() - began < 10
        assert isinstance(busy.exception(), WorkersLostError)
    finally:
        os.kill(child, signal.SIGKILL)


def _begin_one_and_leave_it() -> None:
    LocalWorker().submit(operator.neg, 1).result()


def test_a_process_that_ends_without_ending_its_worker_does_end() -> None:
    with process(_begin_one_and_leave_it) as begun:
        begun.join(240)
        assert begun.exitcode == 0


def test_ended_in_the_middle_of_a_call_it_says_so_and_takes_no_other() -> None:
    worker = LocalWorker()
    busy = worker.submit(time.sleep, 60)
    began = time.monotonic()
    worker.end()
    assert time.monotonic() - began < 10
    assert isinstance(busy.exception(), WorkersLostError)
    with pytest.raises(RuntimeError, match="has been ended"):
        worker.submit(operator.neg, 1)
    worker.end()


FROM_ELSEWHERE = """
import sys
sys.path[0] = sys.argv[1]
import whereabouts
from sparring.engine.pool import LocalWorker
print(LocalWorker().submit(whereabouts.pool).result())
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
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(checkout / "sparring/engine/pool.py")
