"""An attack in miniature: a few questions, an editor of random weights, players behind an endpoint."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sparring.config import EngineSettings, ProbeSettings
from sparring.engine.screen import Screen
from sparring.probe.run import run_probe
from sparring.probe.settings import probe_settings

PRESET = {"text": False, "letters": False, "controls": False, "shown": "accepted", "dataset": True}
"""As `sparring attack` has them."""


def attack_settings(
    given: Sequence[tuple[str, Any]],
    defenders: Sequence[str] = (),
    attackers: Sequence[str] = (),
    **more: Any,
) -> ProbeSettings:
    """As `probe_settings`, under the presets of `sparring attack`."""
    return probe_settings([*PRESET.items(), *given], defenders, attackers, verb="attack", **more)


def attack_of(editor: Path, questions: Path, url: str, *changes: str, **given: Any) -> ProbeSettings:
    """Settings of an attack on "toy" at that URL, with "count" as the judge; `given` are dotted fields, with
    __ for the dots, and `defender`.
    """
    defender = given.pop("defender", f"{url}#toy")
    basics: dict[str, Any] = {
        "data": str(questions),
        "attacker.evaluation_steps": 2,
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
    if ":" in str(editor):
        del basics["attacker.evaluation_steps"]  # no editor, and none that it could say this of
    return attack_settings(
        [*basics.items(), *((name.replace("__", "."), value) for name, value in given.items())],
        [f"victim={defender}"],
        [f"it={editor}"],
        changes=changes,
    )


def attack(settings: ProbeSettings, out: Path, engine: EngineSettings | None = None) -> dict[str, Any]:
    """Attack without a word."""
    return run_probe(settings, out, Screen(Console(file=io.StringIO())), engine=engine)


def figures_of(results: dict[str, Any]) -> dict[str, Any]:
    """The figures of the one attack on the one Defender."""
    own: dict[str, Any] = results["defenders"]["victim"]["robustness"]["attackers"]["it"]
    return own
