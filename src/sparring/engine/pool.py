"""Processes that do work for another one, and do not outlive it."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from types import ModuleType
from typing import Any, TypeVar

import torch

from sparring.data.errors import RunError
from sparring.engine.stopping import SIGNALS, leave_signals_to_parent

Result = TypeVar("Result")


class WorkersLostError(RunError):
    """A worker or its machine has died, or cannot be reached: the phase may begin anew."""


class Workers(ProcessPoolExecutor):
    """Processes that call begin(*arguments) first, and end with the process that started them.

    They do not import that process's main script, as `multiprocessing` has it: without a guard of its own
    the script would be run again by each. So what they are given to do must be importable from elsewhere.
    """

    def __init__(self, processes: int, begin: Callable[..., None], arguments: tuple[Any, ...] = ()) -> None:
        super().__init__(processes, _beginning(), _begin, (dict(os.environ), begin, arguments))

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """As `ProcessPoolExecutor.submit`, which starts a process where none is idle."""
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            sys.modules["__main__"] = main

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `ProcessPoolExecutor.shutdown`. Where a process has died, that asks the others to end by a
        signal that they leave to their parent, and waits for ever: they are killed.
        """
        if self._broken:
            for process in list((self._processes or {}).values()):
                process.kill()
        super().shutdown(wait, cancel_futures=cancel_futures)


def _beginning() -> SpawnContext | ForkServerContext:
    """How processes begin. Each imports anew what it needs, which takes seconds; on Linux they are forked
    from a server that has imported what this process has. Forking this process is not safe once it has run
    torch's threads; nor is forking the server where an import may have looked for GPUs.
    """
    if sys.platform != "linux" or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    ours = [name for name in list(sys.modules) if name.startswith("sparring.")]
    # What is set after the server has begun is not heard.
    context.set_forkserver_preload(["torch", *(name for name in ours if not name.endswith("__main__"))])
    try:
        _begin_server()
    except OSError:  # the folder for temporary files cannot have its socket
        return multiprocessing.get_context("spawn")
    return context


def _begin_server() -> None:
    """Begin the server that forks, unless there is one. A scheduler signals all processes of a job: the
    server leaves that to this process, as workers do, for what is blocked while it begins stays so. And it
    imports from where this process does, never from the folder that it happens to be in.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    resource_tracker.ensure_running()  # which unblocks signals where it has to begin
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.environ |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _begin(environment: dict[str, str], begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()  # the server's, of when it began
    os.environ.update(environment)
    leave_signals_to_parent()
    end_with_parent()
    begin(*arguments)


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does: after a kill nobody else would
    end it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


class LocalWorker:
    """A process of this machine, which sees those GPUs alone; none named: all there are."""

    def __init__(self, gpus: Sequence[int] = ()) -> None:
        self._pool = Workers(1, _see, (gpus,))
        self._process: int | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self._process is None:
            self._process = self._pool.submit(os.getpid).result()
        try:
            return relayed(self._pool.submit(function, *arguments), BrokenExecutor)
        except BrokenExecutor as error:
            failed = Future[Any]()
            failed.set_exception(WorkersLostError(f"a worker process has died: {error}"))
            return failed

    def share(self, value: Any) -> Any:
        return value

    def address(self) -> Callable[[], str]:
        return free_address

    def end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
        self._pool.shutdown(cancel_futures=True)


def gpus_of(number: int, workers: int, each: float) -> Sequence[int]:
    """The GPUs of one of so many workers, by number; several may share one. A worker alone sees all."""
    first = int(number * each)
    return range(first, max(first + 1, math.ceil((number + 1) * each))) if each and workers > 1 else ()


def _see(gpus: Sequence[int]) -> None:
    if gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = seen.split(",") if seen else [str(gpu) for gpu in range(max(gpus) + 1)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] for gpu in gpus)


def relayed(source: Future[Any], lost: type[Exception]) -> Future[Any]:
    """The same future, in which an error of that kind is the loss of the worker."""
    target = Future[Any]()

    def pass_on(done: Future[Any]) -> None:
        if done.cancelled():
            target.cancel()
            return
        error = done.exception()
        if isinstance(error, lost):
            told = WorkersLostError(f"a worker has died: {error}")
            told.__cause__ = error
            target.set_exception(told)
        elif error is not None:
            target.set_exception(error)
        else:
            target.set_result(done.result())

    source.add_done_callback(pass_on)
    return target


def free_address(host: str = "127.0.0.1") -> str:
    """An address of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind((host, 0))
        return f"{host}:{free.getsockname()[1]}"
