"""Several processes that share work out among them: results come in the order of the items, and no process
outlives the one that started it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2
"""Items that are under way or done for every process before the first of them is given back: bounds memory,
and what a kill can cost.
"""


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    processes: int,
    begin: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Iterator[Result]:
    """work(item) of every item, in order. Every process calls begin(*arguments) first; with one process, this
    one does all.

    Both functions must be importable by name. What `work` raises comes through, when its turn is.
    """
    if processes == 1:
        begin(*arguments)
        yield from map(work, items)
        return
    pool = Workers(processes, begin, arguments)
    try:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Workers(ProcessPoolExecutor):
    """Processes that call begin(*arguments) first, and end with the process that started them.

    They do not import that process's main script, as `multiprocessing` has it: without a guard of its own
    the script would be run again by each. So what they are given to do must be importable from elsewhere.
    """

    def __init__(self, processes: int, begin: Callable[..., None], arguments: tuple[Any, ...] = ()) -> None:
        # Forking a process that has run torch's threads is not safe.
        super().__init__(processes, multiprocessing.get_context("spawn"), _begin, (begin, arguments))

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """As `ProcessPoolExecutor.submit`, which starts a process where none is idle."""
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            sys.modules["__main__"] = main


def _begin(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
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
