"""What an attack is about, found out before there is a folder and before anybody is asked or paid."""

from __future__ import annotations

from pathlib import Path

from sparring.config import AttackSettings
from sparring.data.records import VisualQuestion
from sparring.engine.files import unless_refused
from sparring.engine.questions import PICTURES, read_drawn
from sparring.engine.screen import Screen


def read_attacked(settings: AttackSettings, out: Path, screen: Screen) -> list[VisualQuestion]:
    """The questions of an attack whose Attacker would load. Where either is refused, no folder is left.

    Errors: DataError for questions that do not load, RunError where `out` cannot be a folder, and those of
    `check_attacker`.
    """
    with unless_refused(out, PICTURES) as folder:
        questions = read_drawn(
            settings.data,
            limit=settings.limit,
            seed=settings.seed,
            skip_bad=settings.skip_bad_records,
            screen=screen,
            images=settings.images,
            folder=folder,
        )
        from sparring.redteam.attackers import check_attacker  # models' libraries, after all that needs none

        check_attacker(settings.attacker, settings.defender)
        return questions
