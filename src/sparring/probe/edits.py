"""Edits that do not depend on who is probed, made once for several probes of the same questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from sparring.config import EngineSettings, ProbeSettings
from sparring.data.errors import RunError
from sparring.data.records import VisualQuestion
from sparring.engine.crew import Engine
from sparring.engine.device import begin_computing
from sparring.engine.files import write_json
from sparring.engine.folder import read_settings, run_folder
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.judging.validity import Auditor, load_duplicate_check
from sparring.probe.asking import ANSWERS
from sparring.probe.attackers import attackers_of
from sparring.probe.attacks import Workshop
from sparring.probe.settings import SHARED

DECIDE = ("data", "seed", "device", "batch", "samples", "attacker", "judge", "audit")
"""Settings that, with an attacker's specification, decide what its edits are and what the checks say."""


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
    theirs, own = read_settings(folder / "probe.yaml"), settings.model_dump(mode="json")
    names = theirs["attackers"].keys() & own["attackers"].keys()
    differ = [name for name in DECIDE if theirs[name] != own[name]]
    differ += [
        f"attackers.{name}" for name in sorted(names) if theirs["attackers"][name] != own["attackers"][name]
    ]
    if differ:
        raise RunError(f"{folder} holds edits of other settings ({', '.join(differ)}). Delete it.")
