"""Processes that do work for another one, and do not outlive it."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from queue import SimpleQueue
from types import ModuleType
from typing import Any, TypeVar

import torch

from sparring.data.errors import RunError
from sparring.engine.stopping import SIGNALS, leave_signals_to_parent

Result = TypeVar("Result")


class WorkersLostError(RunError):
    """A worker or its machine has died, or cannot be reached: the phase may begin anew."""


class LocalWorker:
    """A process of this machine that does one call after the other, and ends with the process that began it.
    gpus: the ones that it sees, by number; none named: all there are.

    It does not import that process's main script, as `multiprocessing` has it: without a guard of its own
    the script would be run again. So what it is given to do must be importable from elsewhere.

    It has a pipe of its own: a `ProcessPoolExecutor` holds both ends of its pipes, and waits for ever for the
    rest of a result whose sender was killed.
    """

    def __init__(self, gpus: Sequence[int] = ()) -> None:
        try:
            self._process, self._pipe = _begun(gpus)
        except (EOFError, ConnectionError):  # the server that forks them has just died: begin another one
            self._process, self._pipe = _begun(gpus)
        self._calls = SimpleQueue[tuple[Future[Any], tuple[Any, ...]] | None]()
        self._ended, self._lock = False, threading.Lock()
        self._carrier = threading.Thread(target=self._carry, name="worker", daemon=True)
        self._carrier.start()
        self._watcher = threading.Thread(target=self._watch, name="worker's death", daemon=True)
        self._watcher.start()
        # At the end of this process `multiprocessing` waits for all others, but does this first.
        self._at_exit = Finalize(None, self.end, exitpriority=10)

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """What function(*arguments) gives or raises there; WorkersLostError where the process has died."""
        future = Future[Any]()
        with self._lock:
            if self._ended:
                raise RuntimeError("a worker that has been ended is asked to work")
            self._calls.put((future, (function, *arguments)))
        return future

    def share(self, value: Any) -> Any:
        return value

    def address(self) -> Callable[[], str]:
        return free_address

    def end(self) -> None:
        """Kill the process, whatever it does."""
        with self._lock:
            self._ended = True
            self._calls.put(None)
        self._process.kill()
        self._watcher.join()
        self._carrier.join()
        self._process.join()
        self._pipe.close()
        self._at_exit.cancel()

    def _watch(self) -> None:
        """End what is sent and read once the process has died: others that it forked may hold its pipe."""
        wait([self._process.sentinel])
        with suppress(OSError), socket.socket(fileno=os.dup(self._pipe.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    def _carry(self) -> None:
        while (task := self._calls.get()) is not None:
            future, call = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                done, result = self._exchanged(call)
            except BaseException as error:  # noqa: BLE001  what cannot be sent is the caller's to hear of
                future.set_exception(error)
            else:
                (future.set_result if done else future.set_exception)(result)

    def _exchanged(self, call: tuple[Any, ...]) -> tuple[bool, Any]:
        sent = pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
        try:
            self._pipe.send_bytes(sent)
            received = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise WorkersLostError(f"a worker process {self._fate()}") from error
        answer: tuple[bool, Any] = pickle.loads(received)  # noqa: S301  of a process of ours
        return answer

    def _fate(self) -> str:
        self._process.join(10)
        status = self._process.exitcode
        if status is None:
            self._process.kill()
            return "has closed its pipe"
        if status < 0:
            return f"has been killed by {_signal_name(-status)}"
        return f"has ended with status {status}"


def _begun(gpus: Sequence[int]) -> tuple[BaseProcess, Connection]:
    """A worker's process and this one's end of its pipe."""
    context = _beginning()
    ours, theirs = context.Pipe()
    with theirs:  # closed here, so that its death is the end of what can be read
        process = context.Process(target=_work, args=(dict(os.environ), gpus, theirs))
        with _no_main_script():
            process.start()
    return process, ours


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def _work(environment: dict[str, str], gpus: Sequence[int], calls: Connection) -> None:
    os.environ.clear()  # the server's, of when it began
    os.environ.update(environment)
    leave_signals_to_parent()
    end_with_parent()
    _see(gpus)
    while True:
        try:
            calls.send_bytes(_answer(calls.recv_bytes()))
        except (EOFError, OSError):  # nobody is there any more
            return


def _answer(sent: bytes) -> bytes:
    """What a call gives, or the error with where it was raised."""
    try:
        function, *arguments = pickle.loads(sent)  # noqa: S301  of the process that began this one
        return pickle.dumps((True, function(*arguments)), pickle.HIGHEST_PROTOCOL)
    except BaseException as raised:  # noqa: BLE001  whatever it is, the caller has it
        error = raised
        if not isinstance(raised, Exception):  # what would end this process must not end the caller's
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        try:
            told = pickle.dumps((False, error), pickle.HIGHEST_PROTOCOL)
            pickle.loads(told)  # noqa: S301  some errors cannot be made again from what they hold
        except Exception:  # noqa: BLE001
            told = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        return told


_starting = threading.Lock()


@contextmanager
def _no_main_script() -> Iterator[None]:
    with _starting:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


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


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does: after a kill nobody else would
    end it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def gpus_of(number: int, workers: int, each: float) -> Sequence[int]:
    """The GPUs of one of so many workers, by number; several may share one. A worker alone sees all."""
    first = int(number * each)
    return range(first, max(first + 1, math.ceil((number + 1) * each))) if each and workers > 1 else ()


def _see(gpus: Sequence[int]) -> None:
    if gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = seen.split(",") if seen else [str(gpu) for gpu in range(max(gpus) + 1)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] for gpu in gpus)


def free_address(host: str = "127.0.0.1") -> str:
    """An address of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind((host, 0))
        return f"{host}:{free.getsockname()[1]}"
