"""Processes that share work: order, errors, and scripts that are not run again."""

import operator
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparring.engine.pool import Workers, in_order


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_items(processes: int) -> None:
    done = in_order(operator.neg, range(9), processes=processes, begin=os.getpid, arguments=())
    assert list(done) == [-number for number in range(9)]


def test_what_work_raises_comes_through() -> None:
    done = in_order(operator.index, [1, "a"], processes=2, begin=os.getpid, arguments=())
    assert next(done) == 1
    with pytest.raises(TypeError):
        next(done)


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
