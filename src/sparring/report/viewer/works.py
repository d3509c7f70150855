"""What lies below a folder of runs, and whether it is under way: found by looking, never by locking."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sparring.data.errors import RunError
from sparring.engine.folder import KINDS, kind_of, read_settings
from sparring.probe.settings import SHARED
from sparring.report.run import open_ledger

DEEPEST = 6
"""Folders below the given one that are looked into."""
RESCANNED = 2.0
"""Seconds for which what was found is taken to be all that there is."""
LOCKS = Path("/proc/locks")
NESTED_FORGE = "round0/forge"
"""Where a game keeps the forge of its bootstrap."""
WRITTEN = ("ledger.sqlite", "forge.sqlite", "answers.sqlite", f"{NESTED_FORGE}/forge.sqlite")
FINISHED = {
    "game": "summary.json",
    "attack": "summary.json",
    "evaluation": "results.json",
    "probe": "results.json",
    "forge": "funnel.json",
    "fine-tuning": "summary.json",
    "study": "study.json",
}
"""Kind of work -> the file that is written last."""
State = Literal["under way", "finished", "stopped"]


@dataclass(frozen=True)
class Work:
    """A folder with the work of one verb. `name` is its path below the folder of runs, and its address."""

    name: str
    folder: Path
    kind: str

    @property
    def finished(self) -> bool:
        names = (FINISHED[self.kind], SHARED) if self.kind == "probe" else (FINISHED[self.kind],)
        return any((self.folder / name).is_file() for name in names)

    @property
    def state(self) -> State:
        """Under way while a process of this machine holds its lock."""
        if is_locked(self.folder / ".lock"):
            return "under way"
        return "finished" if self.finished else "stopped"

    @property
    def written(self) -> float:
        """When something was last written, in seconds since 1970."""
        return max(stamp[1] for stamp in self._stamps()) / 1e9

    @property
    def version(self) -> str:
        """Changes whenever what a page shows may have changed."""
        return f"{hash((self.state, *self._stamps())) & 2**64 - 1:x}"

    def _stamps(self) -> Iterator[tuple[str, int, int]]:
        names = [name + end for name in WRITTEN for end in ("", "-wal")]
        settings = next(file for file, kind in KINDS.items() if kind == self.kind)
        logs = self.folder.glob("logs/*.txt") if self.kind == "study" else ()
        for file in (*(self.folder / name for name in (*names, FINISHED[self.kind], settings)), *logs):
            try:
                found = file.stat()
            except OSError:
                continue
            yield file.name, found.st_mtime_ns, found.st_size
        yield "", 0, 0

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The resolved settings; a forge inside a game has none of its own. RunError where the file is
        damaged."""
        path = self.folder / next(file for file, kind in KINDS.items() if kind == self.kind)
        return read_settings(path) if path.is_file() else {}

    def results(self) -> dict[str, Any] | None:
        """The figures at the end; None while there are none."""
        path = self.folder / FINISHED[self.kind]
        if not path.is_file():
            return None
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise RunError(f"{path} holds no figures: a mapping is expected")
        return value

    @contextmanager
    def database(self, name: str = "ledger.sqlite") -> Iterator[sqlite3.Connection | None]:
        """A database of this work, opened for one question and read-only; None where it is not there yet."""
        path = self.folder / name
        if not path.is_file() or path.stat().st_size == 0:
            yield None
            return
        db = open_ledger(path)
        try:
            yield db
        finally:
            db.close()


class Works:
    """The works below a folder. Only what was found there has a name, so no other folder can be asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._found: dict[str, Work] = {}
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def all(self) -> dict[str, Work]:
        """Name -> work, what was last written first."""
        with self._lock:
            if time.monotonic() - self._looked > RESCANNED:
                found = sorted(self._look(), key=lambda work: -work.written)
                self._found = {work.name: work for work in found}
                self._looked = time.monotonic()
            return dict(self._found)

    def _look(self) -> Iterator[Work]:
        for folder in folders_of_work(self.root):
            kind = kind_of(folder)
            if kind is None:  # removed in between
                continue
            place = folder.relative_to(self.root).as_posix()
            # A name that is no UTF-8 is shown, and asked for, with its odd bytes spelled out.
            name = os.fsencode(place if place != "." else self.root.name).decode(errors="backslashreplace")
            yield Work(name, folder, kind)
            if kind == "game" and (folder / NESTED_FORGE / "forge.sqlite").is_file():
                yield Work(f"{name}/{NESTED_FORGE}", folder / NESTED_FORGE, "forge")

    def get(self, name: str) -> Work | None:
        """The work of that name, if there is one."""
        return self.all().get(name)


def folders_of_work(root: Path) -> Iterator[Path]:
    """Folders that hold settings of a verb, from `root` down; links are not followed, and what lies in such a
    folder is part of it, but for a study's games and probes, which are works of their own."""
    for place, folders, files in os.walk(root):
        here = Path(place)
        if not KINDS.keys().isdisjoint(files):
            yield here
            if kind_of(here) != "study":
                folders.clear()
                continue
        if len(here.relative_to(root).parts) >= DEEPEST:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def is_locked(path: Path) -> bool:
    """Does a process hold the lock on this file, by the word of the kernel? Trying to take it would keep a
    run from starting. Where the kernel does not say (macOS), False."""
    try:
        found, table = path.stat(), LOCKS.read_text()
    except OSError:
        return False
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(
        " FLOCK " in line and " WRITE " in line and f" {place} " in line for line in table.splitlines()
    )
