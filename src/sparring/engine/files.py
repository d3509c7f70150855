"""Folders of results, and files in them that are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sparring.data.errors import RunError
from sparring.data.records import RULES_VERSION

OPENING = 60.0
"""Seconds in which several processes have made the tables of a file that they share."""


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there. RunError where a file has its name, or where none may be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        taken = next((place for place in (folder, *folder.parents) if place.is_file()), None)
        why = f"{taken} is a file" if taken is not None else error.strerror
        raise RunError(
            f"{folder} cannot be a folder of results: {why}. Name another one with --out."
        ) from error
    return folder


@contextmanager
def unless_refused(out: Path, name: str) -> Iterator[Path]:
    """The place `out/name` for what is written while data are read. Where anything is raised, as for data
    that are refused, it goes again, and so does `out`, if they were not there before.

    Raises RunError where `out` cannot be a folder.
    """
    folder = out.resolve() / name
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder.parent)
    try:
        yield folder
    except BaseException:
        if folder in new:
            shutil.rmtree(folder, ignore_errors=True)
        for place in new[1:]:
            with suppress(OSError):  # somebody has put something there
                place.rmdir()
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is there whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that is there whole or not at all; text in UTF-8."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


def named_by_content(path: Path) -> Path:
    """Put a hash of its content into a file's name, before the suffix, and give the new path.

    `datasets` keys its cache by the files that a card names, not by the folder: of two data sets whose files
    have the same names it would hand out the one that was loaded first.
    """
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return path.rename(path.with_name(f"{path.stem}-{digest}{path.suffix}"))


def open_database(path: Path | None, schema: str, **options: Any) -> sqlite3.Connection:
    """A SQLite file with these tables (without a path, in memory), whose transactions outlive the death of
    the process that wrote them.

    RunError where the file is none, or cannot be written.
    """
    try:
        database: sqlite3.Connection = sqlite3.connect(path or ":memory:", **options)
        _prepare(database, schema)
    except sqlite3.Error as error:
        raise RunError(
            f"{path}: cannot be used ({error}). Restore it, remove it, or choose another folder with --out."
        ) from error
    return database


def _prepare(database: sqlite3.Connection, schema: str) -> None:
    """Set a file's modes and make its tables. Of several processes that do so to a new file at once SQLite
    turns some away without waiting, whatever its timeout: they try again.
    """
    last = time.monotonic() + OPENING
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(schema)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                raise
        time.sleep(0.01)


def has_other_rules(path: Path) -> bool:
    """Were the answers of a ledger read by other rules than today's? False where there is no ledger."""
    if not path.is_file():
        return False
    with closing(sqlite3.connect(path)) as database, suppress(sqlite3.Error):
        return _rules_of(database) not in (None, RULES_VERSION)
    return False


def require_rules(database: sqlite3.Connection, folder: Path, *, answers: str) -> None:
    """Note in a ledger's table `meta` by which rules its answers are read.

    answers: a query that gives a row where there are any. Raises RunError, and closes the file, where they
    were read by other rules.
    """
    known = _rules_of(database)
    if known == RULES_VERSION:
        return
    if database.execute(answers).fetchone() is not None:
        database.close()
        raise RunError(
            f"the answers in {folder} were read by "
            f"{'other rules' if known is None else f'version {known:g} of the rules'}, and this "
            f"is version {RULES_VERSION}: one run may not mix them. Begin another with --out, or resume "
            f"with the version that began it."
        )
    with database:
        database.execute("INSERT OR REPLACE INTO meta VALUES ('rules_version', ?)", (RULES_VERSION,))


def _rules_of(database: sqlite3.Connection) -> float | None:
    """The version of the rules that is noted in a ledger; None where none is."""
    row = database.execute("SELECT value FROM meta WHERE key = 'rules_version'").fetchone()
    return None if row is None else float(row[0])
