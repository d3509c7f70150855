"""Figures that a change of code must not change: a short game, a forge, an evaluation, a probe, an attack and
a fine-tuning.

    python tests/golden.py            compares with tests/golden.json, where this kind of machine is in it
    python tests/golden.py --write    writes them there

Weights by the SHA-256 of every tensor, results by that of their JSON without times, memory and paths. Digits
depend on the processor and on torch, so the file holds one set for each of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import sparring
import sparring_arena
from sparring_arena.dataset import write_questions

PACKAGES = [str(Path(package.__file__).parent) for package in (sparring, sparring_arena)]
FIGURES = Path(__file__).with_name("golden.json")
TOO_PERSONAL = (
    "wall_seconds",
    "peak_rss_mb",
    "seconds",
    "version",
    "spending",
    "data",
    "path",
    "source",
    "machine",
    "environment",
    "settings",
)
LATER = ("by_category", "edits")
"""Figures of a probe that its hash does not know; those of an attack are hashed with them."""


def machine() -> str:
    """What the digits depend on: torch and the kind of processor."""
    said = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else platform.processor()
    model = [
        line.split(":")[1].strip()
        for line in said.split("\n\n")[0].splitlines()
        if re.match("vendor|cpu family|model|stepping", line)
    ]
    return (
        f"torch {torch.__version__.split('+')[0]}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{' '.join(model)}"
    )


def sparring(*arguments: str) -> None:
    """One command of the program, in one thread."""
    command = [sys.executable, "-c", "from sparring.cli import app; app()", *arguments]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )


def settings(**changes: object) -> list[str]:
    return [
        text for name, value in changes.items() for text in ("--set", f"{name.replace('__', '.')}={value}")
    ]


def weights_of(folder: Path) -> str:
    """SHA-256 over the names and bytes of all tensors under a folder."""
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in sorted(tensors.keys()):
                whole.update(f"{file.relative_to(folder)} {name}".encode())
                whole.update(tensors.get_tensor(name).contiguous().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def plain(value: Any, without: tuple[str, ...] = ()) -> Any:
    """JSON without what differs from one run of the same code to the next."""
    if isinstance(value, dict):
        return {
            key: plain(inner, without)
            for key, inner in value.items()
            if key not in without and not any(word in key for word in TOO_PERSONAL)
        }
    if isinstance(value, list):
        return [plain(inner, without) for inner in value]
    return value


def json_of(file: Path, root: Path, without: tuple[str, ...] = ()) -> str:
    text = json.dumps(plain(json.loads(file.read_text()), without), sort_keys=True)
    for folder in (str(root), *PACKAGES):
        text = text.replace(folder, "")
    return hashlib.sha256(text.encode()).hexdigest()


def figures(root: Path) -> dict[str, str]:
    """Play everything in `root` and say what came out."""
    train, held_out = write_questions(root / "questions", seed=5, train=96, held_out=24)
    game = settings(
        threads=1, data__held_out=24, selfplay__rounds=1,
        data__generator__arguments="{train: 96, held_out: 24}",
        attacker__steps=2, attacker__questions_per_step=4, defender__steps=2, defender__prompts_per_step=8,
        selfplay__curriculum="{questions: 16, clean_share: 0.5, replay_share: 0.2, "
        "effective_weight: 3, training_edits: true}",
        bootstrap__questions=12, bootstrap__steps=1, bootstrap__batch=4,
    )  # fmt: skip
    one = settings(threads=1)
    sparring("run", "arena", "--out", str(root / "game"), "--seed", "3", *game)
    sparring(
        "forge",
        "--recipe",
        "arena",
        "--data",
        str(train),
        "--limit",
        "16",
        "--out",
        str(root / "forge"),
        *one,
    )
    data = ["--data", str(held_out), "--recipe", "arena"]
    sparring("eval", "--suite", "custom", *data, "--defender", "arena/defender", "--out", str(root / "eval"))
    probed = ["--attacker", "paste:add", "--attacker", "drawn=arena/editor", "--limit", "12"]
    sparring("probe", *data, "--defender", "arena/defender", *probed, "--out", str(root / "probe"), *one)
    attacked = [
        "--attacker",
        "arena/editor",
        "--defender",
        "arena/defender",
        "--samples",
        "2",
        "--limit",
        "12",
    ]
    sparring("attack", *data, *attacked, "--out", str(root / "attack"), *one)
    sparring("sft", "--defender", "arena/defender", *data, "--out", str(root / "sft"), *one)
    return {
        "game weights": weights_of(root / "game"),
        "game summary": json_of(root / "game/summary.json", root),
        "forge funnel": json_of(root / "forge/funnel.json", root),
        "eval results": json_of(root / "eval/results.json", root),
        "probe results": json_of(root / "probe/results.json", root, LATER),
        "attack results": json_of(root / "attack/results.json", root),
        "sft weights": weights_of(root / "sft"),
    }


def is_known() -> bool:
    """Are there figures of this kind of machine?"""
    return machine() in json.loads(FIGURES.read_text())


def differences(made: dict[str, str]) -> list[str]:
    """What is not as it was on this kind of machine."""
    known = json.loads(FIGURES.read_text())[machine()]
    return [name for name in known if made.get(name) != known[name]]


if __name__ == "__main__":
    write = "--write" in sys.argv
    if not write and not is_known():
        raise SystemExit(f"golden.json has no figures of this kind of machine: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        made = figures(Path(folder))
    if write:
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        FIGURES.write_text(json.dumps({**known, machine(): made}, indent=2) + "\n")
    else:
        changed = differences(made)
        print(f"changed: {', '.join(changed) or 'nothing'}")
        sys.exit(bool(changed))
