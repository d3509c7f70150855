"""SIGTERM (a scheduler's warning) and SIGINT (Ctrl-C) as wishes: what is under way is finished and saved,
then the process ends.

Work that is worth finishing stands inside `finished_first`; everything else stops where it is, as after a
kill. A second signal ends the process at once, even where Python itself is not reached, deep in a long
computation: a thread reads what the interpreter writes down of every signal (`signal.set_wakeup_fd`).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_WISH_SECONDS = 1.0
"""Signals that follow so soon are one: `timeout` and some schedulers send theirs to a process and to its
group.
"""
SHOW_CURSOR = b"\x1b[?25h"  # which a bar in a terminal hides


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end. `exit_status` is what a shell would show of one that died of it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


class _Wishes:
    """What signals have asked of this process. `held`: how many blocks are to be finished first."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.held = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if not self.held:
            raise Stopped(self.number)


_wishes = _Wishes()


def stop_wanted() -> bool:
    """Has a signal asked for an end that `finished_first` holds back?"""
    return _wishes.number is not None


@contextmanager
def finished_first() -> Iterator[None]:
    """What stands inside is finished before a signal that came meanwhile is followed: then Stopped is raised,
    at the block's end. Without `heeding_signals` around it, nothing is held back.
    """
    _wishes.held += 1
    try:
        yield
    finally:
        _wishes.held -= 1
    if _wishes.number is not None and not _wishes.held:
        raise Stopped(_wishes.number)


@contextmanager
def heeding_signals(say: Callable[[str], None]) -> Iterator[None]:
    """Inside, a first signal raises Stopped as soon as nothing is to be finished first, and a second one ends
    the process. say: is told, from another thread, what a signal that must wait is waiting for.

    Signals are Python's main thread's: elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _wishes.handle) for number in SIGNALS}
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, say), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        writing.close()
        _wishes.number = None


def _watch(reading: socket.socket, say: Callable[[str], None]) -> None:
    """End the process at the second wish. Ends itself when nobody writes any more."""
    first: float | None = None
    with reading:
        while arrived := reading.recv(1):
            if arrived[0] not in SIGNALS:
                continue
            now = time.monotonic()
            if first is None:
                first = now
                if _wishes.held:
                    name = signal.Signals(arrived[0]).name
                    say(f"{name}: what is under way is finished and saved first. Once more: stop at once.")
            elif now - first >= SAME_WISH_SECONDS:
                if sys.stderr.isatty():
                    os.write(2, SHOW_CURSOR)
                os._exit(128 + arrived[0])


def leave_signals_to_parent() -> None:
    """For worker processes, which a terminal or a scheduler signals too: they end with the process that
    started them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
