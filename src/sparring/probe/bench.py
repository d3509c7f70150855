"""Where an attacker's edits are made and checked: what every worker has of its own. Nothing is written
here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL.Image import Image

from sparring.attackers.rivals import Rival
from sparring.config import DefenderSettings, ProbeSettings
from sparring.data.errors import SparringError
from sparring.data.records import Edit, Verdict, VisualQuestion
from sparring.engine.crew import Luggage, landed
from sparring.engine.device import begin_computing, spares_no_other
from sparring.judging.validity import Auditor, DuplicateCheck, load_duplicate_check
from sparring.judging.vet import vet
from sparring.models.players import load_asked_defender
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.base import VLM
from sparring.probe.asking import ANSWERS
from sparring.probe.attackers import Attacker, load_attacker, settings_of


@dataclass(frozen=True, slots=True)
class Work:
    """A batch that is to be edited: questions, their clean pictures, and a seed."""

    questions: Sequence[VisualQuestion]
    cleans: Sequence[Image]
    seed: int


@dataclass(frozen=True, slots=True)
class Made:
    """Edits of a batch, and what the checks said of each (None: nobody has checked them). set_aside: question
    id -> why there is no edit, or no word on it.
    """

    edits: list[Edit]
    verdicts: list[Verdict] | None
    set_aside: dict[str, str]


Check = Callable[[Sequence[VisualQuestion], Sequence[Image], Sequence[Edit]], list[Verdict]]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where an attacker's edits are made and checked. check: None where that is done elsewhere."""

    rival: Rival
    check: Check | None

    def make(self, work: Work) -> Made:
        """Edits of a batch, as far as they can be had."""
        made = self.rival.try_edit(work.questions, work.cleans, work.seed)
        named = zip(work.questions, made, strict=True)
        set_aside = {question.id: str(own) for question, own in named if isinstance(own, SparringError)}
        unchecked = Made([own for own in made if isinstance(own, Edit)], None, set_aside)
        return (
            unchecked if self.check is None else checked(unchecked, work.questions, work.cleans, self.check)
        )


def checked(made: Made, questions: Sequence[VisualQuestion], cleans: Sequence[Image], check: Check) -> Made:
    """The same edits with verdicts. An edit that the checks break over sets its question aside."""
    told = {own[0].id: own for own in zip(questions, cleans, strict=True)}

    def verdicts_on(edits: Sequence[Edit]) -> list[Verdict]:
        own = [told[edit.question_id] for edit in edits]
        return check([question for question, _ in own], [clean for _, clean in own], edits)

    try:
        return replace(made, verdicts=verdicts_on(made.edits))
    except Exception as error:
        if spares_no_other(error):
            raise
        # Any other error of one edit must not cost the others.
        edits, verdicts, set_aside = list[Edit](), list[Verdict](), dict(made.set_aside)
        for edit in made.edits:
            try:
                verdicts += verdicts_on([edit])
                edits.append(edit)
            except Exception as own:
                if spares_no_other(own):
                    raise
                words = str(own) if isinstance(own, SparringError) else repr(own)
                set_aside[edit.question_id] = f"its edit by {edit.attacker} cannot be checked: {words}"
        return Made(edits, verdicts, set_aside)


def ready_bench(
    settings: ProbeSettings, attacker: Attacker, out: Path, carried: Path | Luggage | None
) -> Bench:
    """In a worker: an attacker, and the checks where the judge is no endpoint. carried: what `attacker` names
    below `out`.
    """
    device = begin_computing(settings.device, settings.threads)
    if carried is not None:
        attacker = replace(attacker, spec=attacker.spec.replace(str(out), str(landed(carried))))
    against = settings.defenders.get(attacker.against or "", "")

    def defender() -> tuple[VLM, DefenderSettings]:
        return load_asked_defender(against, settings.defender, device, out / ANSWERS), settings.defender

    rival = load_attacker(settings_of(settings, attacker), device, defender, must_change=False)
    if is_endpoint(settings.judge.model or ""):
        return Bench(rival, None)
    duplicates = load_duplicate_check(settings.judge, device, out / ANSWERS)
    return Bench(rival, check_of(settings, duplicates, device, Auditor(settings.audit, 1)))


def check_of(
    settings: ProbeSettings, duplicates: DuplicateCheck | None, device: torch.device, auditor: Auditor
) -> Check:
    """The checks of a probe's edits."""
    return partial(vet, settings=settings.judge, duplicates=duplicates, device=device, audit=auditor.audit)
