"""What an attack came to: its figures, put together from the ledger by the same sums as held-out play.

The samples of the attack are opponents of one payoff matrix, "sample0", "sample1", ...: an edit that was not
accepted is no attack, and there the answer to the clean picture stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparring.config import AttackSettings
from sparring.data.images import image_sha256, load_image
from sparring.data.records import Answer, Verdict, VisualQuestion
from sparring.engine.ledger import Ledger
from sparring.measures.payoff import CLEAN, LEAST_VALID, Opponent, Payoff, asr_at_k, attack_report, play_off
from sparring.measures.statistics import rate

SCHEMA = 1
STAGE, CLEAN_STAGE, DEFENDER = "evaluation/attack", "evaluation/clean", "base"
SHOWN = 5  # questions set aside that are named in warnings; all of them are in the summary
Key = tuple[str, int]
"""An edit: its question's id and the number of the sample."""


def clean_answers(ledger: Ledger) -> dict[str, Answer]:
    """Question id -> the Defender's answer to the clean picture."""
    return {answer.question_id: answer for answer in ledger.answers(CLEAN_STAGE, DEFENDER)}


def verdicts(ledger: Ledger) -> dict[Key, Verdict]:
    """Edit -> what the checks said."""
    return dict(zip(ledger.keys("verdicts", STAGE), ledger.verdicts(STAGE), strict=True))


def attacked_answers(ledger: Ledger) -> dict[Key, Answer]:
    """Accepted edit -> the Defender's answer about it."""
    return dict(zip(ledger.keys("answers", STAGE), ledger.answers(STAGE, DEFENDER), strict=True))


def payoff_of(questions: Sequence[VisualQuestion], samples: int, ledger: Ledger) -> Payoff:
    """One row, the Defender; the clean pictures and every sample of the attack as columns."""
    clean, found, answers = clean_answers(ledger), verdicts(ledger), attacked_answers(ledger)
    opponents = [Opponent(CLEAN)]
    right: dict[tuple[str, str], list[bool | None]] = {
        (DEFENDER, CLEAN): [clean[question.id].right for question in questions]
    }
    for sample in range(samples):
        name, keys = f"sample{sample}", [(question.id, sample) for question in questions]
        opponents.append(Opponent(name, tuple(found[key] for key in keys)))
        right[DEFENDER, name] = [answers[key].right if key in answers else None for key in keys]
    hashes = {path: image_sha256(load_image(path)) for path in {question.image for question in questions}}
    return play_off([DEFENDER], opponents, right, [hashes[question.image] for question in questions])


def summarise(
    settings: AttackSettings,
    questions: Sequence[VisualQuestion],
    ledger: Ledger,
    spending: dict[str, dict[str, float]],
    set_aside: Mapping[str, str],
) -> dict[str, Any]:
    """The content of `summary.json`. A rate is {"value", "n", "ci95"} with Wilson's interval.

    "first_try" is the first edit of every question; "asr_at_k" counts a question as fooled once one of its
    first k edits fools the Defender. set_aside: question id -> why it is in no figure. `unchanged` edits
    left the picture as it was: they are no attacks, and are in no rate. Both rates have the questions that
    are right when clean in their denominator; `valid_asr` counts only edits after which the right answer is
    still right by the auditor's word, and where there is no auditor every edit that passed the checks.
    """
    payoff = payoff_of(questions, settings.samples, ledger)
    samples = [f"sample{sample}" for sample in range(settings.samples)]
    first = attack_report(payoff, attacker=samples[0], defender=DEFENDER)
    asked = {question.id for question in questions}
    answers = {key: answer for key, answer in attacked_answers(ledger).items() if key[0] in asked}
    clean = {name: answer for name, answer in clean_answers(ledger).items() if name in asked}
    judged = [verdict for (name, _), verdict in verdicts(ledger).items() if name in asked]
    found = [verdict for verdict in judged if not verdict.unchanged]
    right_N = payoff.right(DEFENDER, CLEAN)
    tries = asr_at_k(payoff, attackers=samples, defender=DEFENDER)
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "attack",
        "attacker": settings.attacker.model,
        "defender": settings.defender.model,
        "judge": settings.judge.model,
        "audited": any(verdict.label_valid is not None for verdict in found),
        "integrity_threshold": settings.judge.integrity_threshold,
        "seed": settings.seed,
        "samples": settings.samples,
        "questions": len(questions),
        "pictures": len(set(payoff.clusters)),
        "wall_seconds": round(ledger.meta("wall_seconds"), 1),
        "peak_rss_mb": round(ledger.meta("peak_rss_mb"), 1),
        "clean_accuracy": rate(right_N).as_dict(),
        "robust_accuracy": payoff.worst_case(DEFENDER).as_dict(),
        "set_aside": dict(set_aside),
        "edits": len(judged),
        "unchanged": len(judged) - len(found),
        "integrity_rate": rate([verdict.intact for verdict in found]).as_dict(),
        "accepted_rate": rate([verdict.accepted for verdict in found]).as_dict(),
        "label_valid_rate": rate(
            [v.label_valid for v in found if v.accepted and v.label_valid is not None]
        ).as_dict(),
        "first_try": {
            name: value
            for name, value in first.as_dict().items()
            if name in ("asr", "asr_unconditional", "valid_asr", "harmed", "rescued", "net_flips", "mcnemar")
        },
        "asr_at_k": [
            {"k": k, "asr": asr.as_dict(), "valid_asr": valid.as_dict()}
            for k, (asr, valid) in enumerate(tries, start=1)
        ],
        "by_category": _by_category(questions, payoff, samples),
        "baselines": _baselines(questions),
        "unparsed": {
            "clean": rate([answer.choice is None for answer in clean.values()]).as_dict(),
            "attacked": rate([answer.choice is None for answer in answers.values()]).as_dict(),
        },
        "spending": spending,
    }
    return summary | {"warnings": _warnings(settings, summary)}


def _by_category(
    questions: Sequence[VisualQuestion], payoff: Payoff, samples: Sequence[str]
) -> dict[str, Any]:
    """Clean accuracy, robust accuracy and ASR over all samples, category by category; empty where the records
    name none.
    """
    names = np.array([question.category or "" for question in questions])
    clean_N, robust_N = payoff.right(DEFENDER, CLEAN), payoff.right_DON[0].all(0)
    fooled_N, tried_N = np.zeros(len(questions), dtype=bool), np.zeros(len(questions), dtype=bool)
    for sample in samples:
        fooled_N |= payoff.opponent(sample).accepted(len(questions)) & ~payoff.right(DEFENDER, sample)
        tried_N |= payoff.opponent(sample).attacked(len(questions))
    categories = sorted({question.category for question in questions if question.category})
    return {
        category: {
            "clean_accuracy": rate(clean_N[names == category]).as_dict(),
            "robust_accuracy": rate(robust_N[names == category]).as_dict(),
            "asr": rate(fooled_N[(names == category) & clean_N & tried_N]).as_dict(),
        }
        for category in categories
    }


def _baselines(questions: Sequence[VisualQuestion]) -> dict[str, Any]:
    """What a Defender gets that never looks: always option A, always the most frequent letter."""
    letters = Counter(question.answer for question in questions)
    majority = letters.most_common(1)[0][0]
    return {
        name: rate([question.answer == letter for question in questions]).as_dict()
        for name, letter in (("first", "A"), ("majority", majority))
    }


def _warnings(settings: AttackSettings, summary: dict[str, Any]) -> list[str]:
    """What a reader of the figures should know."""
    texts = []
    for name, reason in list(summary["set_aside"].items())[:SHOWN]:
        texts.append(f'question "{name}" is set aside and in no figure: {reason}')
    if len(summary["set_aside"]) > SHOWN:
        texts.append(
            f"{len(summary['set_aside']) - SHOWN} more questions are set aside: see set_aside in summary.json"
        )
    if summary["unchanged"]:
        texts.append(
            f"{summary['unchanged']} of {summary['edits']} edits left their picture as it was: no attacks, "
            f"and in no rate"
        )
    if not summary["first_try"]["asr"]["n"]:
        texts.append("the Defender gets no question right when clean: there is nothing to attack")
    if summary["edits"] > summary["unchanged"] and not summary["accepted_rate"]["value"]:
        texts.append("no edit passed the checks: see integrity_rate, and the edits in pictures/")
    clean, baseline = summary["clean_accuracy"], summary["baselines"]["majority"]
    if clean["value"] is not None and clean["ci95"][0] <= baseline["value"]:
        texts.append(
            "clean accuracy is not clearly above always answering the most frequent letter: an attack "
            "success rate means little here"
        )
    if (summary["unparsed"]["clean"]["value"] or 0) > 0.05:
        texts.append(
            "more than one clean answer in twenty names no option: check defender.prompt and "
            "defender.max_new_tokens"
        )
    valid = summary["label_valid_rate"]
    if valid["value"] is not None and valid["value"] < LEAST_VALID:
        texts.append(
            f"the right answer is still right in only {valid['value']:.3f} of the {valid['n']} edits that "
            f"passed the checks and could "
            "be audited: read valid_asr, not asr"
        )
    if not summary["audited"]:
        silent = (
            [f"the audit {settings.audit.call} could say nothing of any edit that passed the checks"]
            if settings.audit
            else []
        )
        if settings.judge.model is None:
            silent = silent or ["neither judge nor audit"]
            silent.append(
                "an edit counts when the targets are intact, so the right answer may no longer be right"
            )
        texts += [": ".join(silent)] if silent else []
    return texts
