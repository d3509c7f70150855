"""On what a job computes: what figures may depend on that no setting says."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparring import __version__
from sparring.data.words import plural
from sparring.engine.files import write_json

ENVIRONMENT = "environment.json"
LIBRARIES = ("torch", "transformers", "diffusers", "peft")


def versions() -> dict[str, str | None]:
    """Of Sparring and of the libraries that decide what a run computes; None of one that is not installed."""
    found: dict[str, str | None] = {"sparring": __version__}
    for library in LIBRARIES:
        found[library] = None
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


@cache
def environment() -> dict[str, Any]:
    """JSON values: versions, the commit of a checkout (`-dirty` where files were changed; None of an
    installed package), Python, the processor, its cores, NVIDIA's GPUs.
    """
    checkout = Path(__file__).parents[3]
    git = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return {
        "versions": versions(),
        "commit": _said(git) if (checkout / ".git").exists() else None,
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": (_said(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "").splitlines(),
    }


def in_words(found: dict[str, Any]) -> str:
    """What `environment` gave, as a line to be read."""
    own = ", ".join(f"{name} {number}" for name, number in found.get("versions", {}).items() if number)
    commit = f" (commit {found['commit']})" if found.get("commit") else ""
    cores = plural(found.get("cores") or 0, "core")
    machine = ", ".join([str(found.get("processor")), cores, *found.get("gpus", [])])
    return f"{own}{commit}, Python {found.get('python')}; {machine}"


def note_environment(folder: Path) -> None:
    """Add where this process computes to the folder's list, unless it is the last there."""
    before = environments(folder)
    if before[-1:] != [environment()]:
        write_json(folder / ENVIRONMENT, [*before, environment()])


def environments(folder: Path) -> list[dict[str, Any]]:
    """Where a folder's job was computed, a try after the other; nothing where that was not noted."""
    with suppress(OSError, ValueError):
        noted = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        if isinstance(noted, list):
            return [one for one in noted if isinstance(one, dict)]
    return []


def _said(command: list[str]) -> str | None:
    """What a command of the system says; None where there is none, or nothing comes of it."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip() or None
    return None


def _processor() -> str:
    with suppress(OSError):
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if named := re.search(r"^model name\s*:\s*(.+)$", said, re.MULTILINE):
            return named[1]
    return platform.processor() or platform.machine()
