"""What a probe found, in figures: of every Defender and every attack, and what a reader should know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sparring.data.records import VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge
from sparring.measures.payoff import LEAST_VALID
from sparring.measures.robustness import Played, robustness_report
from sparring.measures.statistics import rate
from sparring.models.players import spending_of
from sparring.probe.asking import Asker
from sparring.probe.attackers import Attacker
from sparring.probe.attacks import Workshop
from sparring.probe.compare import Found, differences, transfer
from sparring.probe.questions import Asked
from sparring.probe.text import baselines, text_figures

SCHEMA = 1
SHOWN = 5  # questions set aside that are named in warnings; all of them are in the results


def results_of(
    workshop: Workshop,
    askers: Sequence[Asker],
    found: Found,
    asked: Asked,
    judges: Sequence[ConsistencyJudge],
) -> dict[str, Any]:
    """The content of `results.json`. A rate is {"value", "n", "ci95"} with Wilson's interval."""
    settings, questions, clusters = workshop.settings, found.questions, found.clusters
    defenders = {}
    for asker in askers:
        name, own = asker.name, found.against(asker.name)
        controls = [found.again[name]] if settings.controls else []
        robustness = robustness_report(
            found.clean(name),
            [*controls, *(one for _, one in own)],
            clusters,
            resamples=settings.resamples,
            seed=settings.seed,
        )
        for attacker, _ in own:
            robustness["attackers"][attacker.name] |= _edits(workshop, attacker, name, questions)
        defenders[name] = {
            "model": asker.spec,
            "identity": asker.identity,
            "pixels": asker.shown_pixels(),
            **text_figures(questions, found.said[name], clusters, judges, settings),
            "robustness": robustness,
            "by_category": _by_category(questions, found.clean(name), own),
            "adaptive_training": found.trained.get(name),
            "spending": spending_of(asker.spec, settings.defender.endpoint, asker.cache_file),
        }
        asker.rest()
    workshop.ledger.tick()
    results = {
        "schema": SCHEMA,
        "kind": "probe",
        "data": settings.data,
        "suite": settings.suite,
        "seed": settings.seed,
        "questions": len(questions),
        "without_boxes": asked.without_boxes,
        "left_out": dict(asked.left_out),
        "set_aside": found.set_aside,
        "pictures": len(set(clusters)),
        "prompt": settings.defender.prompt,
        "max_new_tokens": settings.defender.max_new_tokens,
        "integrity_threshold": settings.judge.integrity_threshold,
        "audited": settings.audit is not None,
        "baselines": baselines(questions),
        "wall_seconds": round(workshop.ledger.meta("wall_seconds"), 1),
        "peak_rss_mb": round(workshop.ledger.meta("peak_rss_mb"), 1),
        "defenders": defenders,
        "spending_of_judge": spending_of(settings.judge.model, settings.judge.endpoint, askers[0].cache_file),
        "transfer": transfer(found),
        "differences": differences(found, clusters, resamples=settings.resamples, seed=settings.seed),
    }
    return results | {"warnings": [*found.warnings, *_warnings(workshop, found, results)]}


def _edits(
    workshop: Workshop, attacker: Attacker, defender: str, questions: Sequence[VisualQuestion]
) -> dict[str, Any]:
    """What the checks said of an attacker's edits, all samples together, and how many answers about them name
    no option. Edits that left their picture as it was are in no rate. label_valid_rate: of those that passed
    the checks and could be audited, the share whose right answer still is right.
    """
    counted = {question.id for question in questions}
    judged = [verdict for (name, _), verdict in workshop.verdicts(attacker).items() if name in counted]
    changed = [verdict for verdict in judged if not verdict.unchanged]
    answers = workshop.answers[attacker.stage, defender]
    unparsed = [answer.choice is None for (name, _), answer in answers.items() if name in counted]
    audited = [v.label_valid for v in judged if v.accepted and v.label_valid is not None]
    return {
        "edits": {
            "made": len(judged),
            "intact": rate([verdict.intact for verdict in changed]).as_dict(),
            "accepted": rate([verdict.accepted for verdict in changed]).as_dict(),
            "unparsed": rate(unparsed).as_dict(),
        }
    } | ({"label_valid_rate": rate(audited).as_dict()} if workshop.settings.audit is not None else {})


def _by_category(
    questions: Sequence[VisualQuestion], clean: Sequence[bool], played: Sequence[tuple[Attacker, Played]]
) -> dict[str, Any]:
    """Category -> clean accuracy, robust accuracy over all attacks, and every attack's success by any sample;
    empty where the records name none.
    """
    names, clean_N = np.array([question.category or "" for question in questions]), np.array(clean)
    attacks = [one for attacker, one in played if not attacker.control]
    robust_N = clean_N.copy()
    for one in attacks:
        robust_N &= (one.right_SN | ~one.changed_SN).all(0)
    found = {}
    for category in sorted({question.category for question in questions if question.category}):
        own_N = names == category
        asr = {}
        for one in attacks:
            tried_N = own_N & clean_N & np.logical_or.reduce(one.changed_SN)
            asr[one.name] = rate(np.logical_or.reduce(~one.right_SN & one.changed_SN)[tried_N]).as_dict()
        found[category] = {
            "clean_accuracy": rate(clean_N[own_N]).as_dict(),
            "robust_accuracy": rate(robust_N[own_N]).as_dict() if attacks else None,
            "asr": asr,
        }
    return found


def _warnings(workshop: Workshop, found: Found, results: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the figures should know."""
    settings = workshop.settings
    for name, why in list(found.set_aside.items())[:SHOWN]:
        yield f'question "{name}" is set aside and in no figure: {why}'
    if len(found.set_aside) > SHOWN:
        more = len(found.set_aside) - SHOWN
        yield f"{more} more questions are set aside: see set_aside in results.json"
    majority = results["baselines"]["majority"]["value"]
    attacked = any(not attacker.control for attacker in found.attackers)
    for name, own in results["defenders"].items():
        clean = own["clean_accuracy"]
        if attacked and not clean["value"]:
            yield f"{name} gets no question right when clean: there is nothing to attack"
        elif attacked and clean["ci95"][0] <= majority:
            yield (
                f"{name}: clean accuracy is not clearly above always answering the most frequent letter: an "
                f"attack success rate means little here"
            )
        if own["unparsed"]["value"] > 0.05:
            yield (
                f"{name}: more than one clean answer in twenty names no option: check defender.prompt and "
                f"defender.max_new_tokens"
            )
    attacks = {
        attacker: results["defenders"][name]["robustness"]["attackers"][attacker.name]
        for name in found.played
        for attacker, _ in found.against(name)
    }
    silent = False
    for attacker, own in attacks.items():
        who, edits, valid = attacker.title, own["edits"], own.get("label_valid_rate", {"value": None})
        if count := own["unchanged"]:
            yield (
                f"{who} left {count} of {edits['made']} pictures as they were: no attacks, and in none of "
                f"its rates"
            )
        if valid["value"] is not None and valid["value"] < LEAST_VALID:
            yield (
                f"{who}: the right answer is still right in only {valid['value']:.3f} of the {valid['n']} "
                f"edits that passed the checks and could be audited: read valid_asr, not asr"
            )
        if not attacker.control:
            if edits["accepted"]["n"] and not edits["accepted"]["value"]:
                yield f"{who}: no edit passed the checks: see edits, and the pictures in pictures/"
            silent = silent or valid["value"] is None
    if silent:
        yield from unaudited(settings.audit.call if settings.audit else None, settings.judge.model)


def unaudited(audit: str | None, judge: str | None) -> list[str]:
    """What is said where nobody had a word on whether an attack's right answers still are right."""
    texts = [f"the audit {audit} could say nothing of any edit that passed the checks"] if audit else []
    if judge is None:
        texts = texts or ["neither judge nor audit"]
        texts.append(
            "an edit counts as valid when the targets are intact, so the right answer may no longer be right"
        )
    return [": ".join(texts)] if texts else []
