"""An attack in miniature: a few questions, an editor of random weights, players behind an endpoint."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from sparring.config import AttackSettings
from sparring.engine.screen import Screen
from sparring.redteam.attack import run_attack
from sparring.redteam.settings import attack_settings


def attack_of(editor: Path, questions: Path, url: str, *changes: str, **given: Any) -> AttackSettings:
    """Settings of an attack on "toy" at that URL, with "count" as the judge; `given` are dotted fields, with
    __ for the dots.
    """
    basics: dict[str, Any] = {
        "data": str(questions),
        "attacker.model": str(editor),
        "attacker.evaluation_steps": 2,
        "defender.model": f"{url}#toy",
        "judge.model": f"{url}#count",
        "judge.count_prompt": "{name}s?",
        "judge.integrity_threshold": 0.04,
        "audit": {"call": "small_game:audit"},
        "samples": 2,
        "limit": 11,
        "batch": 4,
        "seed": 3,
        "device": "cpu",
        "threads": 1,
    }
    return attack_settings(
        [*basics.items(), *((name.replace("__", "."), value) for name, value in given.items())],
        changes=changes,
    )


def attack(settings: AttackSettings, out: Path) -> dict[str, Any]:
    """Attack without a word."""
    return run_attack(settings, out, Screen(Console(file=io.StringIO())))
