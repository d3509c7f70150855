"""A run's folder: claimed by one process at a time, and bound to one set of settings."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sparring.config import EndpointSettings, Settings
from sparring.data.errors import RunError

PACE = EndpointSettings.model_fields.keys() - {"extra_body"}
"""Settings of an endpoint that decide when and how often it is asked, not what."""


@contextmanager
def run_folder(
    settings: Settings, out: Path, *, file: str = "recipe.yaml", kind: str = "recipe", resume: str = "sparring run --resume {out}"
) -> Iterator[Path]:
    """Claim a folder for the run of these settings, new or resumed, for this process alone.

    The resolved settings are kept as `out/file`. The lock goes with the process, however it ends. How fast and how patiently endpoints are asked
    may change between processes. Errors: RunError if another process works in the folder or if it holds the run of other settings.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{out} is in use by another process. Wait for it, or choose another folder with --out.") from error
        stored, resolved = out / file, json.loads(settings.model_dump_json())
        if stored.is_file():
            difference = _first_difference(yaml.safe_load(stored.read_text(encoding="utf-8")), resolved)
            if difference is not None:
                raise RunError(
                    f"{out} holds the run of another {kind} ({difference}). Resume it with `{resume.format(out=out)}`, or choose another folder."
                )
        elif (out / "ledger.sqlite").exists():
            raise RunError(f"{out} holds a ledger but no {file}, so its run cannot be continued. Choose another folder with --out.")
        else:
            partial = out / f"{file}.partial"
            partial.write_text(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), encoding="utf-8")
            partial.replace(stored)
        yield out


def _first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """Where two recipes differ, in words; None where they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        passed_over = PACE if where.endswith("endpoint") else ()
        for key in [*new, *(k for k in old if k not in new)]:
            if key in passed_over:
                continue
            found = _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return None
    return None if old == new else f"{where} is {old!r} there and {new!r} here"
