"""A probe, from questions to figures: every Defender on clean pictures, under words, under attack; resumable
at any point.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from sparring.asking.conditions import PLAIN
from sparring.asking.refusals import left_out_text
from sparring.config import ConsistencySettings, EngineSettings, ProbeSettings
from sparring.data.errors import ModelError
from sparring.data.records import VisualQuestion
from sparring.data.words import plural
from sparring.defenders.consistency import ConsistencyJudge
from sparring.engine.crew import Engine
from sparring.engine.device import begin_computing
from sparring.engine.files import write_json
from sparring.engine.folder import run_folder
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.judging.validity import Auditor, load_duplicate_check
from sparring.models.players import DTYPES
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.base import load_vlm
from sparring.probe.adaptive import train_adaptive
from sparring.probe.asking import ANSWERS, Asker, Pictures
from sparring.probe.attackers import attackers_of, idle_attackers
from sparring.probe.attacks import CLEAN, Workshop, play, play_again
from sparring.probe.compare import Found, outcomes
from sparring.probe.dataset import write_dataset
from sparring.probe.edits import require_edits_of
from sparring.probe.figures import results_of
from sparring.probe.questions import Asked, read_asked
from sparring.probe.table import write_table
from sparring.probe.text import ask_conditions

OUTCOMES = "outcomes.json"


def run_probe(
    settings: ProbeSettings,
    out: Path,
    screen: Screen | None = None,
    *,
    asked: Asked | None = None,
    engine: EngineSettings | None = None,
    edits: Path | None = None,
) -> dict[str, Any]:
    """Probe, from the start or from where an earlier process was stopped; writes and returns
    `out/results.json`, and writes `out/table.md`, `out/outcomes.json` and, where it is asked for,
    `out/dataset`.

    asked: the questions of the settings, where they are read already. engine: who computes; what comes out
    does not depend on it. edits: a folder of `make_shared_edits`, whose edits are not made again.

    Errors: DataError for questions that do not load, ModelError where a player cannot be had, RunError if
    the folder is in use, holds another probe, if the questions have changed since it began, or if `edits`
    are not this probe's.
    """
    if edits is not None:
        require_edits_of(settings, edits)
    screen = screen or Screen()
    device = begin_computing(settings.device, settings.threads)
    asked = asked or read_asked(settings, out, screen)
    with (
        run_folder(settings, out, file="probe.yaml", resume="the command that began it") as folder,
        closing(Ledger(folder)) as ledger,
        closing(Auditor(settings.audit, settings.threads or 1)) as auditor,
        closing(Engine(engine or EngineSettings(), device, screen.warn)) as crews,
    ):
        asked.begin(folder, ledger)
        screen.say(
            f"{plural(len(asked.probed), 'question')}, {plural(len(settings.defenders), 'Defender')}, seed "
            f"{settings.seed}, on {device}, in {folder}"
        )
        here = crews.is_here("play") or settings.adapt or is_endpoint(settings.judge.model or "")
        duplicates = load_duplicate_check(settings.judge, device, folder / ANSWERS) if here else None
        workshop = Workshop(settings, ledger, screen, auditor, crews, duplicates, edits)
        results, came_of_each = crews.outlive(lambda: _probe(workshop, asked, folder))
        write_json(folder / "results.json", results)
        write_table(folder / "table.md", results)
        write_json(folder / OUTCOMES, came_of_each)
        return results


def _probe(workshop: Workshop, asked: Asked, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results, and what came of every question."""
    settings, engine, pictures = workshop.settings, workshop.engine, Pictures()
    with ExitStack() as open_files:
        askers = [
            open_files.enter_context(closing(Asker(name, spec, settings, engine, folder / ANSWERS, pictures)))
            for name, spec in settings.defenders.items()
        ]
        found = _ask_and_attack(workshop, askers, asked, folder)
        results = results_of(workshop, askers, found, asked, _judges(settings, workshop, folder))
        if settings.dataset:
            write_dataset(folder, workshop, askers, found, results)
    return results, outcomes(found, found.clusters)


def _ask_and_attack(workshop: Workshop, askers: Sequence[Asker], asked: Asked, folder: Path) -> Found:
    """Everything that models have to do, each Defender loaded twice at most."""
    settings, questions = workshop.settings, asked.probed
    attackers, warnings = attackers_of(settings)
    warnings += [*idle_attackers(settings), *asked.warnings()]
    found = Found(list(questions), attackers, warnings)
    for asker in askers:
        said = found.said[asker.name] = ask_conditions(asker, questions, settings, workshop.screen)
        workshop.ledger.record_answers(CLEAN, 0, [one.answer for one in said[PLAIN] if not one.error])
        _require_some(workshop, askers, questions)
        if settings.controls:
            found.again[asker.name] = play_again(workshop, asker, questions)
        if settings.adapt:
            adaptive, trained = train_adaptive(workshop, asker, asked.practice, folder)
            attackers.append(adaptive)
            found.trained[asker.name] = trained
            if not trained["learned"]:
                found.warnings.append(
                    f"the adaptive Attacker against {asker.name} was not trained: no update fits, nothing "
                    f"was right when clean, or no group of edits had a signal"
                )
            if lost := trained["left_out"]:
                found.warnings.append(f"the adaptive Attacker against {asker.name}: {left_out_text(lost)}")
        for attacker in attackers:
            if attacker.against == asker.name:
                workshop.make_edits(attacker, questions, asker)
        asker.rest()
    for attacker in attackers:
        if attacker.against is None:
            workshop.make_edits(attacker, questions, None)
    _require_some(workshop, askers, questions)
    for asker in askers:
        clean = {one.answer.question_id: one.answer.right for one in found.said[asker.name][PLAIN]}
        found.played[asker.name] = [
            (attacker, play(workshop, attacker, asker, questions, clean)) for attacker in attackers
        ]
        asker.rest()
    found.set_aside = _require_some(workshop, askers, questions)
    return found.of_what_is_kept()


def _require_some(
    workshop: Workshop, askers: Sequence[Asker], questions: Sequence[VisualQuestion]
) -> dict[str, str]:
    """Question id -> why no figure counts it: every figure is of the same questions, those that every
    Defender answered and every attacker edited. ModelError where none is left.
    """
    told = dict(workshop.set_aside)
    for asker in askers:
        told = {
            name: f"no answer of {asker.name}: {error}" for name, error in asker.unanswered.items()
        } | told
    set_aside = {question.id: told[question.id] for question in questions if question.id in told}
    if len(set_aside) == len(questions):
        name, why = list(set_aside.items())[-1]
        raise ModelError(
            f'all {plural(len(questions), "question")} had to be set aside; the last one, "{name}": {why}'
        )
    return set_aside


def _judges(settings: ProbeSettings, workshop: Workshop, folder: Path) -> list[ConsistencyJudge]:
    """Who read what a reasoning argues for, where no rule can."""
    return [
        ConsistencyJudge(
            ConsistencySettings(model=name),
            load_vlm(
                name,
                dtype=DTYPES[settings.judge.dtype],
                device=workshop.engine.device,
                endpoint=settings.judge.endpoint,
                cache=folder / ANSWERS,
            ),
        )
        for name in settings.reasoning_judges
    ]
