"""A probe, from questions to figures: every Defender on clean pictures, under words, under attack; resumable
at any point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.asking.refusals import left_out_text
from sparring.config import ConsistencySettings, ProbeSettings
from sparring.data.errors import ModelError
from sparring.data.records import VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge
from sparring.engine.device import begin_computing
from sparring.engine.files import write_json
from sparring.engine.folder import run_folder
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.judging.auditor import Auditor
from sparring.judging.validity import load_duplicate_check
from sparring.measures.conditions import PLAIN, Name
from sparring.measures.payoff import LEAST_VALID
from sparring.measures.robustness import Played, robustness_report, transfer_matrix
from sparring.measures.statistics import Rate, holm, mcnemar_exact, paired_bootstrap, rate
from sparring.models.players import DTYPES, spending_of
from sparring.models.vlms.base import load_vlm
from sparring.probe.adaptive import train_adaptive
from sparring.probe.asking import Asker, Pictures, Said
from sparring.probe.attacks import Attacker, Workshop, attackers_of, play, play_again
from sparring.probe.questions import Asked, read_asked
from sparring.probe.table import write_table
from sparring.probe.text import ask_conditions, baselines, text_figures

SCHEMA = 1
ANSWERS = "answers.sqlite"
SHOWN = 5  # questions set aside that are named in warnings; all of them are in the results
Bools = NDArray[np.bool_]


def run_probe(
    settings: ProbeSettings, out: Path, screen: Screen | None = None, *, asked: Asked | None = None
) -> dict[str, Any]:
    """Probe, from the start or from where an earlier process was stopped; writes and returns
    `out/results.json`, and writes `out/table.md`.

    asked: the questions of the settings, where they are read already.

    Errors: DataError for questions that do not load, ModelError where a player cannot be had, RunError if
    the folder is in use, holds another probe, or if the questions have changed since it began.
    """
    screen = screen or Screen()
    device = begin_computing(settings.device, settings.threads)
    asked = asked or read_asked(settings, out, screen)
    with (
        run_folder(settings, out, file="probe.yaml", resume="the command that began it") as folder,
        closing(Ledger(folder)) as ledger,
        closing(Auditor(settings.audit, settings.threads or 1)) as auditor,
    ):
        asked.begin(folder, ledger)
        screen.say(
            f"{len(asked.probed)} questions, {len(settings.defenders)} Defender(s), seed {settings.seed}, "
            f"on {device}, in {folder}"
        )
        duplicates = load_duplicate_check(settings.judge, device, folder / ANSWERS)
        workshop = Workshop(settings, ledger, screen, auditor, device, duplicates)
        pictures: Pictures = {}
        with ExitStack() as open_files:
            askers = [
                open_files.enter_context(
                    closing(
                        Asker(
                            name,
                            spec,
                            settings.defender,
                            device,
                            folder / ANSWERS,
                            pictures,
                            batch=settings.batch,
                        )
                    )
                )
                for name, spec in settings.defenders.items()
            ]
            results = _probe(workshop, askers, asked, folder)
        write_json(folder / "results.json", results)
        write_table(folder / "table.md", results)
        return results


def _probe(workshop: Workshop, askers: Sequence[Asker], asked: Asked, folder: Path) -> dict[str, Any]:
    settings, questions = workshop.settings, asked.probed
    attackers, warnings = attackers_of(settings)
    warnings += asked.warnings()
    trained: dict[str, dict[str, Any]] = {}
    said: dict[str, dict[Name, list[Said]]] = {}
    again: dict[str, Played] = {}
    # First everything that one Defender does for itself, so that each is loaded twice at most.
    for asker in askers:
        said[asker.name] = ask_conditions(asker, questions, settings, workshop.screen)
        if settings.controls:
            again[asker.name] = play_again(workshop, asker, questions)
        if settings.adapt:
            adaptive, trained[asker.name] = train_adaptive(workshop, asker, asked.practice, folder)
            attackers.append(adaptive)
            if not trained[asker.name]["learned"]:
                warnings.append(
                    f"the adaptive Attacker against {asker.name} was not trained: no update fits, nothing "
                    f"was right when clean, "
                    "or no group of edits had a signal"
                )
            if lost := trained[asker.name]["left_out"]:
                warnings.append(f"the adaptive Attacker against {asker.name}: {left_out_text(lost)}")
        for attacker in attackers:
            if attacker.against == asker.name:
                _make(workshop, attacker, questions, asker)
        asker.rest()
    for attacker in attackers:
        if attacker.against is None:
            _make(workshop, attacker, questions, None)
    played: dict[str, list[tuple[Attacker, Played]]] = {}
    for asker in askers:
        played[asker.name] = [
            (attacker, play(workshop, attacker, asker, questions)) for attacker in attackers
        ]
        asker.rest()
    clusters = [own.picture for own in said[askers[0].name][PLAIN]]
    set_aside = _set_aside(workshop, askers, questions)
    kept = [place for place, question in enumerate(questions) if question.id not in set_aside]
    if not kept:
        raise ModelError(
            f"all {len(questions)} questions had to be set aside; the last one: "
            f"{list(set_aside.values())[-1]}"
        )
    if set_aside:
        questions, clusters = [questions[i] for i in kept], [clusters[i] for i in kept]
        said = {
            name: {condition: [own[i] for i in kept] for condition, own in found.items()}
            for name, found in said.items()
        }
        played = {name: [(attacker, one.only(kept)) for attacker, one in own] for name, own in played.items()}
        again = {name: one.only(kept) for name, one in again.items()}
        warnings += [
            f'question "{name}" is set aside and in no figure: {why}'
            for name, why in list(set_aside.items())[:SHOWN]
        ]
        if len(set_aside) > SHOWN:
            warnings.append(
                f"{len(set_aside) - SHOWN} more questions are set aside: see set_aside in results.json"
            )
    warnings += _unchanged(played)
    labels = label_valid_rates(workshop, attackers, questions) if settings.audit is not None else {}
    warnings += doubtful_labels(labels)
    judges = [
        ConsistencyJudge(
            ConsistencySettings(model=name),
            load_vlm(
                name,
                dtype=DTYPES[settings.judge.dtype],
                device=workshop.device,
                endpoint=settings.judge.endpoint,
                cache=folder / ANSWERS,
            ),
        )
        for name in settings.reasoning_judges
    ]
    defenders = {}
    for asker in askers:
        own = [one for attacker, one in played[asker.name] if attacker.against in (None, asker.name)]
        controls = [again[asker.name]] if settings.controls else []
        clean = [one.answer.right for one in said[asker.name][PLAIN]]
        robustness = robustness_report(
            clean, [*controls, *own], clusters, resamples=settings.resamples, seed=settings.seed
        )
        for attacker, one in played[asker.name]:
            if attacker.against in (None, asker.name) and attacker.stage in labels:
                robustness["attackers"][one.name]["label_valid_rate"] = labels[attacker.stage].as_dict()
        defenders[asker.name] = {
            "model": asker.spec,
            "identity": asker.identity,
            "pixels": asker.shown_pixels(),
            **text_figures(questions, said[asker.name], clusters, judges, settings),
            "robustness": robustness,
            "adaptive_training": trained.get(asker.name),
            "spending": spending_of(asker.spec, settings.defender.endpoint, folder / ANSWERS),
        }
        asker.rest()
    workshop.ledger.tick()
    return {
        "schema": SCHEMA,
        "kind": "probe",
        "data": settings.data,
        "suite": settings.suite,
        "seed": settings.seed,
        "questions": len(questions),
        "without_boxes": asked.without_boxes,
        "left_out": dict(asked.left_out),
        "set_aside": set_aside,
        "pictures": len(set(clusters)),
        "prompt": settings.defender.prompt,
        "max_new_tokens": settings.defender.max_new_tokens,
        "integrity_threshold": settings.judge.integrity_threshold,
        "audited": settings.audit is not None,
        "baselines": baselines(questions),
        "wall_seconds": round(workshop.ledger.meta("wall_seconds"), 1),
        "peak_rss_mb": round(workshop.ledger.meta("peak_rss_mb"), 1),
        "defenders": defenders,
        "transfer": _transfer(askers, said, played),
        "differences": _differences(askers, said, played, clusters, settings),
        "warnings": warnings,
    }


def _set_aside(
    workshop: Workshop, askers: Sequence[Asker], questions: Sequence[VisualQuestion]
) -> dict[str, str]:
    """Question id -> why no figure counts it: every figure is of the same questions, those that every
    Defender answered and every attacker edited.
    """
    told = dict(workshop.set_aside)
    for asker in askers:
        told = {
            name: f"no answer of {asker.name}: {error}" for name, error in asker.unanswered.items()
        } | told
    return {question.id: told[question.id] for question in questions if question.id in told}


def _unchanged(played: Mapping[str, Sequence[tuple[Attacker, Played]]]) -> list[str]:
    """What is said of attackers that gave pictures back as they were."""
    counts = {
        attacker.stage: (attacker.name, int((~one.changed_SN).sum()), one.changed_SN.size)
        for own in played.values()
        for attacker, one in own
    }
    return [
        f"{name} left {count} of {of} pictures as they were: no attacks, and in none of its rates"
        for name, count, of in counts.values()
        if count
    ]


def label_valid_rates(
    workshop: Workshop, attackers: Sequence[Attacker], questions: Sequence[VisualQuestion]
) -> dict[str, Rate]:
    """Stage of an attacker -> the share of its edits that passed the checks and could be audited whose right
    answer still is right.
    """
    counted = {question.id for question in questions}
    found = {}
    for attacker in attackers:
        judged = [verdict for (name, _), verdict in workshop.verdicts(attacker).items() if name in counted]
        found[attacker.stage] = rate(
            [v.label_valid for v in judged if v.accepted and v.label_valid is not None]
        )
    return found


def doubtful_labels(labels: Mapping[str, Rate]) -> list[str]:
    """In words: the attackers whose edits too often change what is right."""
    return [
        f"{stage.removeprefix('attack/')}: the right answer is still right in only {own.value:.3f} of "
        f"the {own.n} edits that passed the "
        "checks and could be audited: read valid_asr, not asr"
        for stage, own in labels.items()
        if own.value is not None and own.value < LEAST_VALID
    ]


def _make(
    workshop: Workshop, attacker: Attacker, questions: Sequence[VisualQuestion], asker: Asker | None
) -> None:
    workshop.make_edits(attacker, questions, lambda: workshop.load(attacker, asker))


def _transfer(
    askers: Sequence[Asker],
    said: Mapping[str, Mapping[Name, Sequence[Said]]],
    played: Mapping[str, Sequence[tuple[Attacker, Played]]],
) -> dict[str, Any]:
    """For every attacker that is made against a Defender: rows are whom its edits were made against, columns
    who answered.
    """
    clean = {asker.name: [one.answer.right for one in said[asker.name][PLAIN]] for asker in askers}
    made: dict[str, dict[str, dict[str, Played]]] = {}
    for target, own in played.items():
        for attacker, one in own:
            if attacker.against is not None:
                made.setdefault(attacker.name, {}).setdefault(attacker.against, {})[target] = one
    return {name: transfer_matrix(clean, against) for name, against in made.items()}


def _differences(
    askers: Sequence[Asker],
    said: Mapping[str, Mapping[Name, Sequence[Said]]],
    played: Mapping[str, Sequence[tuple[Attacker, Played]]],
    clusters: Sequence[str],
    settings: ProbeSettings,
) -> dict[str, Any]:
    """Each further Defender less the first: accuracy clean, under every condition, under every attack, and
    under all attacks at once, paired by question.

    Attacks that are made against one Defender are each one's own (white box against white box). p-values are
    McNemar's exact ones, adjusted by Holm over all measures of one Defender.
    """
    first, *others = (asker.name for asker in askers)
    rows = {asker.name: _rights(asker.name, said, played) for asker in askers}
    found: dict[str, Any] = {}
    for other in others:
        pairs = {
            name: _pair(rows[other][name], rows[first][name]) for name in rows[other] if name in rows[first]
        }
        adjusted = holm([mcnemar_exact(after, before) for after, before, _ in pairs.values()])
        found[other] = {
            name: paired_bootstrap(
                after, before, [clusters[i] for i in places], resamples=settings.resamples, seed=settings.seed
            ).as_dict()
            | {"mcnemar_holm": p}
            for (name, (after, before, places)), p in zip(pairs.items(), adjusted, strict=True)
        }
    return {"less": first, "of": found}


def _rights(
    name: str,
    said: Mapping[str, Mapping[Name, Sequence[Said]]],
    played: Mapping[str, Sequence[tuple[Attacker, Played]]],
) -> dict[str, tuple[Bools, Bools]]:
    """Measure -> [N] was each question answered right, [N] does the measure count it."""
    plain = {
        str(condition): np.array([one.answer.right for one in own], dtype=bool)
        for condition, own in said[name].items()
    }
    robust = plain[PLAIN].copy()
    everywhere = np.ones_like(robust)
    rights = {condition: (right_N, everywhere) for condition, right_N in plain.items()}
    attacked = False
    for attacker, one in played[name]:
        if attacker.against in (None, name):
            rights[attacker.name] = one.right_SN[0], one.changed_SN[0]
            if not attacker.control:
                attacked = True
                robust &= (one.right_SN | ~one.changed_SN).all(0)
    return rights | ({"robust": (robust, everywhere)} if attacked else {})


def _pair(after: tuple[Bools, Bools], before: tuple[Bools, Bools]) -> tuple[Bools, Bools, list[int]]:
    """Both Defenders' answers to the questions that the measure counts for both, and their places."""
    counted_N = after[1] & before[1]
    return after[0][counted_N], before[0][counted_N], np.flatnonzero(counted_N).tolist()
