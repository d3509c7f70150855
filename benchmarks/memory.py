"""Processor time and peak memory of a short game of the recipe `arena` on one thread of a CPU, with the
memory that was freed kept for what comes next, and with glibc's own rule, which gives large blocks back to
the system. Both play the same game to the last digit. Processes take turns; the first of each is not counted.

python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file

PLAY = "from sparring.engine import device; {rule}; from sparring.cli import app; app()"
RULES = {"ours": "pass", "rival": "device.keep_freed_memory = lambda: None"}
SETTINGS = [
    "threads=1",
    "data.generator.arguments={train: 300, held_out: 40}",
    "data.held_out=40",
    "bootstrap.questions=32",
    "attacker.steps=2",
    "defender.steps=6",
    "selfplay.rounds=1",
    "selfplay.require_skill=false",
    "selfplay.curriculum.questions=96",
    "evaluation.rivals={}",
]


def play(rule: str, out: Path) -> float:
    """Seconds of processor time, user's and system's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    changes = [word for change in SETTINGS for word in ("--set", change)]
    command = [sys.executable, "-c", PLAY.format(rule=RULES[rule]), "-q", "run", "arena", "--out", str(out)]
    subprocess.run([*command, *changes], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def same(one: Path, other: Path) -> bool:
    """Whether both games left the same weights, to the last digit."""
    names, others = (
        [path.relative_to(game) for path in sorted(game.rglob("*.safetensors"))] for game in (one, other)
    )
    if names != others:
        return False
    for name in names:
        ours, theirs = load_file(one / name), load_file(other / name)
        if ours.keys() != theirs.keys() or not all(ours[key].equal(theirs[key]) for key in ours):
            return False
    return bool(names)


def peak(game: Path) -> float:
    """The most memory that a game's process held, in megabytes, as its summary tells."""
    summary = json.loads((game / "summary.json").read_text(encoding="utf-8"))
    return float(summary["peak_rss_mb"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="games of each that are counted")
    repeats: int = parser.parse_args().repeats
    taken: dict[str, list[float]] = {rule: [] for rule in RULES}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            for rule, seconds in taken.items():
                seconds.append(play(rule, Path(folder) / f"{rule}-{turn}"))
            if not same(Path(folder) / f"ours-{turn}", Path(folder) / f"rival-{turn}"):
                sys.exit("The two games differ: memory that is kept must change no digit.")
            peaks = {rule: peak(Path(folder) / f"{rule}-{turn}") for rule in RULES}
    ours, rival = (statistics.median(taken[rule][1:]) for rule in RULES)
    case = {"recipe": "arena", "settings": SETTINGS, "repeats": repeats, "cores": os.cpu_count()}
    case |= {"peak_rss_mb": peaks}
    case |= {"runs": {rule: [round(run, 2) for run in runs[1:]] for rule, runs in taken.items()}}
    line = {"benchmark": "memory", "case": case, "ours": round(ours, 2), "rival": round(rival, 2)}
    print(json.dumps(line | {"ratio": round(rival / ours, 3), "unit": "s"}))


if __name__ == "__main__":
    main()
