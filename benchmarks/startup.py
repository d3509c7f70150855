"""Processor time of verbs that need no model, each in a process of its own, beside the bare interpreter, and
the wall time until the first line of what they say. One JSON line a verb; the bounds are on processor time,
because wall time tells something only where nothing else runs.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
MAIN = "from sparring.cli import app; app()"
VERBS = {
    "nothing (python -c pass)": None,
    "--help": ["--help"],
    "attack --help": ["attack", "--help"],
    "recipes": ["recipes"],
    "fields": ["fields"],
    "version": ["version"],
    "plan arena": ["plan", "arena"],
    "plan arena-static-both": ["plan", "arena-static-both"],
    "run, no such recipe": ["run", "nowhere.yaml", "--out", "out"],
    "run, bad data": ["run", "arena", "--set", "data.path=bad.jsonl", "--out", "out"],
    "attack, bad data": ["attack", "--recipe", "arena", "--data", "bad.jsonl", "--out", "out"],
    "probe, bad data": ["probe", "--recipe", "arena", "--data", "bad.jsonl", "--out", "out"],
    "sft, bad data": ["sft", "--recipe", "arena", "--data", "bad.jsonl", "--out", "out"],
    "eval, bad data": [
        "eval",
        "--recipe",
        "arena",
        "--suite",
        "custom",
        "--data",
        "bad.jsonl",
        "--out",
        "out",
    ],
    "forge, no such source": ["forge", "--recipe", "arena", "--data", "nothing.jsonl", "--out", "out"],
    "report of an empty folder": ["report", "."],
    "compare of empty folders": ["compare", ".", "."],
}
BOUNDS = {"--help": 0.6, "attack --help": 0.6}
BOUND = 1.5
"""Seconds of processor time that a verb may take."""


def seconds(arguments: list[str] | None, folder: Path) -> tuple[float, float]:
    """User and system time of one run, its children included; wall time until its first line."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-c", *(["pass"] if arguments is None else [MAIN, *arguments])]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        assert run.stdout is not None
        run.stdout.readline()
        first_line = time.monotonic() - began
        run.stdout.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, first_line


def main() -> None:
    """Every verb, its fastest and its median run after one to warm up; exit code 1 where a bound is
    passed."""
    late = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bad.jsonl").write_text('{"id": 1', encoding="utf-8")
        for title, arguments in VERBS.items():
            seconds(arguments, folder)
            runs = [seconds(arguments, folder) for _ in range(REPEATS)]
            times = sorted(processor for processor, _ in runs)
            bound = BOUNDS.get(title, BOUND)
            late |= times[0] > bound
            told = {"benchmark": "startup", "verb": title, "processor_seconds": round(times[0], 3)}
            told |= {
                "median": round(times[len(times) // 2], 3),
                "first_line_seconds": round(min(first for _, first in runs), 3),
                "bound": bound,
                "runs": REPEATS,
                "cores": os.cpu_count(),
            }
            print(json.dumps(told), flush=True)
    sys.exit(int(late))


if __name__ == "__main__":
    main()
