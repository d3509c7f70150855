"""Workers that are this process, for tests that cannot wait for others to begin: all that they are told and
give back goes through bytes, as between processes. Processes that begin at once, to be killed. And what a
folder of results holds, to be compared.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from sparring.engine.crew import Engine


class Hand:
    """A worker that is this process."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        function, arguments = _sent((function, arguments))
        done = Future[Any]()
        done.set_result(_sent(function(*arguments)))
        return done

    def share(self, value: Any) -> Any:
        return value

    def address(self) -> Callable[[], str]:
        raise AssertionError("they are not ranks")

    def end(self) -> None:
        pass


def _sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301  its own bytes


def use_hands(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on local workers are hands; gives the sizes of the crews that are made."""
    made = list[int]()

    @contextmanager
    def hands(engine: Engine, phase: str, count: int) -> Iterator[list[Hand]]:
        made.append(count)
        yield [Hand() for _ in range(count)]

    monkeypatch.setattr(Engine, "_workers", hands)
    return made


@contextmanager
def process(target: Callable[..., object], *arguments: Any) -> Iterator[ForkServerProcess]:
    """target(*arguments) in a process of its own, which does not outlive the block. A server that has imported
    everything forks it: importing anew would take most of the time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["sparring.selfplay.loop", "sparring.forge.run", "sparring.benchmarks.run"]
    )
    begun = context.Process(target=target, args=arguments)
    begun.start()
    try:
        yield begun
    finally:
        begun.kill()
        begun.join()


VARYING = (b'"wall_seconds"', b'"peak_rss_mb"', b'"seconds"')
TABLES = {
    "ledger.sqlite": ("questions", "edits", "answers", "verdicts"),
    "answers.sqlite": ("answers",),
    "forge.sqlite": ("records", "candidates"),
}


def contents(out: Path) -> dict[str, Any]:
    """Every file below a folder with its bytes, every table with its rows, but for times and memory, which a
    report tells too.
    """
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(path)) as database:
                for table in TABLES[name]:
                    found[f"{name}/{table}"] = sorted(database.execute(f"SELECT * FROM {table}"), key=repr)
        elif name not in (".lock", "report.html") and not name.endswith(("-wal", "-shm")):
            lines = path.read_bytes().splitlines()
            found[name] = [line for line in lines if not any(varying in line for varying in VARYING)]
    return found
