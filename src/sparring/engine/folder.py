"""A run's folder: claimed by one process at a time, and bound to one set of settings once something was
computed."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sparring.config.base import EndpointSettings, Settings
from sparring.data.errors import RunError
from sparring.engine.environment import ENVIRONMENT, note_environment
from sparring.engine.files import make_folder, write_whole

PACE = EndpointSettings.model_fields.keys() - {"extra_body"}
"""Settings of an endpoint that decide when and how often it is asked, not what."""
KINDS = {
    "recipe.yaml": "game",
    "attack.yaml": "attack",
    "eval.yaml": "evaluation",
    "probe.yaml": "probe",
    "sft.yaml": "fine-tuning",
    "forge.yaml": "forge",
    "study.yaml": "study",
}
"""File of the resolved settings -> kind of the work in a folder that holds it. "attack.yaml" is of an earlier
version: an attack is a probe now.
"""
RESULTS = ("summary.json", "results.json", "funnel.json", "items.parquet", "games")
"""Files, and of a study the folder, that are there once something has come of the work."""
COMPUTED = {
    "ledger.sqlite": ("edits", "answers", "verdicts", "updates"),
    "forge.sqlite": ("candidates", "records WHERE outcome != 'refused'"),
    "answers.sqlite": ("answers",),
}
"""Database -> its rows of what models did; the others say what was to be done."""


def kind_of(folder: Path) -> str | None:
    """What a folder holds the work of, by its settings; None where there are none."""
    return next((kind for file, kind in KINDS.items() if (folder / file).is_file()), None)


def a_kind(folder: Path) -> str:
    """What a folder holds the work of, in words."""
    kind = kind_of(folder) or "a run"
    return kind if kind == "a run" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


@contextmanager
def run_folder(
    settings: Settings,
    out: Path,
    *,
    file: str = "recipe.yaml",
    resume: str = "`sparring run --resume {out}`",
    grows: bool = False,
) -> Iterator[Path]:
    """Claim a folder for the work of these settings, new or resumed, for this process alone.

    The resolved settings are kept as `out/file`, where it was computed in `out/environment.json`. The lock
    goes with the process, however it ends. A folder in which nothing was computed yet belongs to nobody,
    whatever a failed try left in it. How fast and how patiently endpoints are asked, on which engine is
    computed, and who is told of it, may change between processes; of what `grows`, everything: each part of
    it answers for itself. Errors: RunError if no such folder can be made, if another process works in it, if
    it holds the work of other settings, or if its settings cannot be read.
    """
    out = make_folder(out.resolve())
    stored, lock_file = out / file, out / ".lock"
    claimed_before = lock_file.exists()
    with open(lock_file, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"{out} is in use by another process. Wait for it, or choose another folder with --out."
            ) from error
        resolved, computed = json.loads(settings.model_dump_json()), is_computed(out)
        if claimed_before and not computed:
            _clear(out)
        kept, difference = read_settings(stored) if stored.is_file() else None, None
        if kept is not None:
            difference = difference_of(settings, kept)
            if difference is not None and not grows:
                raise RunError(
                    f"{out} holds the run of another {KINDS[file]} ({difference}). Resume it with "
                    f"{resume.format(out=out)}, or choose another folder with --out."
                )
        elif computed and not (grows and kind_of(out) is None):
            raise RunError(
                f"{out} holds the results of {a_kind(out)} but no {file}, so they cannot be continued here. "
                "Choose another folder with --out."
            )
        if kept is not None and difference is None:
            resolved = _paced_as(kept, resolved)
        if resolved != kept:
            write_whole(stored, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        note_environment(out)
        yield out


def difference_of(
    settings: Settings, stored: dict[str, Any], seen_as: Callable[[Any], Any] = lambda value: value
) -> str | None:
    """Where settings differ from those that a folder keeps, in words; None where what is computed does not
    depend on it. seen_as: what is compared of both.
    """
    now = json.loads(settings.model_dump_json())
    return _first_difference(seen_as(_as_of_now(stored, settings)), seen_as(now))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a folder keeps. RunError where the file is damaged."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(
            f"{path} is no YAML ({error}). Restore it, or choose another folder with --out."
        ) from error
    if not isinstance(value, dict):
        raise RunError(
            f"{path} holds no settings: a mapping is expected. Restore it, or choose another folder with "
            f"--out."
        )
    return value


def is_computed(out: Path) -> bool:
    """Has a model done anything here?"""
    if any((out / name).exists() for name in RESULTS):
        return True
    return any(_holds_rows(out / name, rows) for name, rows in COMPUTED.items())


def _holds_rows(path: Path, kinds: tuple[str, ...]) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    try:
        with closing(sqlite3.connect(path)) as database:
            there = {
                name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            return any(
                database.execute(f"SELECT 1 FROM {rows} LIMIT 1").fetchone()
                for rows in kinds
                if rows.split()[0] in there
            )
    except sqlite3.Error:  # not to be taken for empty: it may hold what somebody has paid for
        return True


def _clear(out: Path) -> None:
    """Remove what a try that computed nothing has noted: its settings, its questions. What endpoints have
    cost stays.
    """
    paid = {name for name in COMPUTED if _holds_rows(out / name, ("spending WHERE requests > 0",))}
    databases = [name + end for name in COMPUTED.keys() - paid for end in ("", "-wal", "-shm")]
    for name in (*KINDS, *databases, ENVIRONMENT, "data/done.json"):
        (out / name).unlink(missing_ok=True)


def _paced_as(kept: Any, now: Any, where: str = "") -> Any:
    """Settings as they are kept, with the pace at which endpoints are asked now."""
    if not (isinstance(kept, dict) and isinstance(now, dict)):
        return kept
    pace = {name: now[name] for name in PACE & now.keys()} if where.endswith("endpoint") else {}
    return {key: _paced_as(value, now.get(key), key) for key, value in kept.items()} | pace


def _as_of_now(stored: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What an earlier version kept, with the defaults of settings that it did not know. What is no longer a
    setting stays, and is a difference.
    """
    try:
        known: dict[str, Any] = json.loads(type(settings).model_validate(stored).model_dump_json())
    except ValidationError:
        return stored
    return known


def _first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """Where two recipes differ, in words; None where they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        passed_over = PACE if where.endswith("endpoint") else () if where else ("engine", "track")
        for key in [*new, *(k for k in old if k not in new)]:
            if key in passed_over:
                continue
            found = _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return None
    return None if old == new else f"{where} is {old!r} there and {new!r} here"
