"""Edits that do not depend on who is probed, made once for several probes of the same questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sparring.config import EngineSettings, ProbeSettings
from sparring.data.errors import RunError
from sparring.data.records import VisualQuestion
from sparring.engine.crew import Engine
from sparring.engine.device import begin_computing
from sparring.engine.files import write_json
from sparring.engine.folder import difference_of, read_settings, run_folder
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.judging.validity import Auditor, load_duplicate_check
from sparring.probe.asking import ANSWERS
from sparring.probe.attackers import attackers_of
from sparring.probe.attacks import Workshop
from sparring.probe.settings import DECIDE, SHARED


def make_shared_edits(
    settings: ProbeSettings,
    out: Path,
    read: Callable[[Path, Ledger], Sequence[VisualQuestion]],
    screen: Screen,
) -> None:
    """Make and check, below `out`, the edits of every attacker and control of a probe that is made against no
    Defender; nobody is asked about them. A call that was cut off goes on. read: gives the questions, and may
    write below `out` what belongs to them.

    Errors: RunError if the folder is in use or holds the edits of other settings; those of `load_attacker`.
    """
    (out / SHARED).unlink(missing_ok=True)  # all that is left of edits that were deleted
    device = begin_computing(settings.device, settings.threads)
    with (
        run_folder(settings, out, file="probe.yaml", resume="the command that began it") as folder,
        closing(Ledger(folder)) as ledger,
        closing(Auditor(settings.audit, settings.threads or 1)) as auditor,
        closing(Engine(EngineSettings(), device, screen.warn)) as engine,
    ):
        questions = read(folder, ledger)
        duplicates = load_duplicate_check(settings.judge, device, folder / ANSWERS)
        workshop = Workshop(settings, ledger, screen, auditor, engine, duplicates)
        for attacker in attackers_of(settings)[0]:
            if attacker.against is None:
                workshop.make_edits(attacker, questions, None)
        ledger.tick()
        write_json(folder / SHARED, {"wall_seconds": round(ledger.meta("wall_seconds"), 1)})


def require_edits_of(settings: ProbeSettings, folder: Path) -> None:
    """RunError where shared edits are not there, or are not what a probe of these settings would make."""
    if not (folder / SHARED).is_file():
        raise RunError(f"{folder} holds no finished edits. Make them first.")
    stored = read_settings(folder / "probe.yaml")
    names = settings.attackers.keys() & (stored.get("attackers") or {}).keys()

    def what_decides(own: dict[str, Any]) -> dict[str, Any]:
        attackers = own.get("attackers") or {}
        return {name: own.get(name) for name in DECIDE} | {
            "attackers": {name: attackers.get(name) for name in sorted(names)}
        }

    if (difference := difference_of(settings, stored, what_decides)) is not None:
        raise RunError(f"{folder} holds edits of other settings ({difference}). Delete it.")
