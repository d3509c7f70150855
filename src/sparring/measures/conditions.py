"""What words beside a picture did to a Defender's answers (`sparring.asking.conditions`).

Flips toward the hint are answers that the words turned into the hinted option, of the items whose plain
answer is not it: another one, or none that can be read. Words that disturb also move answers by chance:
drift is the share of answers that moved to an option that is neither the hint nor the plain answer, divided
by how many such options the item has. The difference of the two is what the hint itself did. With two
options and a plain answer there is no such option, so there is no drift to take off, and the difference is
given over items of three or more options alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparring.asking.conditions import PLAIN, Name, hint_of
from sparring.data.errors import DataError
from sparring.data.records import Answer, VisualQuestion
from sparring.measures.statistics import Difference, Rate, mcnemar_exact, paired_bootstrap, rate


@dataclass(frozen=True, slots=True)
class ConditionReport:
    """What a condition did to one Defender's answers.

    change: accuracy under it less plain accuracy. toward_hint: of the items whose plain answer is not the
    hint, those that moved to it. drift: mean over items of three or more options of the moves to one option
    not hinted at; net_flips: toward_hint less drift over those items. All three are None where the condition
    hints at nothing. Intervals are clustered by picture.
    """

    accuracy: Rate
    change: Difference
    mcnemar: float
    unparsed: Rate
    toward_hint: Rate | None = None
    drift: Difference | None = None
    net_flips: Difference | None = None

    def as_dict(self) -> dict[str, Any]:
        found = {
            name: getattr(self, name)
            for name in ("accuracy", "change", "unparsed", "toward_hint", "drift", "net_flips")
        }
        return {name: value.as_dict() if value is not None else None for name, value in found.items()} | {
            "mcnemar": self.mcnemar
        }


def condition_report(
    condition: Name,
    questions: Sequence[VisualQuestion],
    plain: Mapping[str, Answer],
    answers: Mapping[str, Answer],
    clusters: Sequence[object],
    *,
    hint_seed: int,
    resamples: int,
    seed: int,
) -> ConditionReport:
    """Compare answers under a condition (by question id) with the plain ones. clusters: what items share
    (their picture), one an item.

    hint_seed: the seed that the conditions were made with. Raises DataError for a question that was not
    answered.
    """
    missing = [
        question.id for question in questions if question.id not in plain or question.id not in answers
    ]
    if missing:
        raise DataError(
            f'condition {condition}: question "{missing[0]}" has no answer ({len(missing)} such questions)'
        )
    before = [plain[question.id] for question in questions]
    after = [answers[question.id] for question in questions]
    right = [answer.right for answer in after], [answer.right for answer in before]
    change = paired_bootstrap(*right, clusters, resamples=resamples, seed=seed)
    report = ConditionReport(
        rate(right[0]), change, mcnemar_exact(*right), rate([answer.choice is None for answer in after])
    )
    if condition in (PLAIN, "stop_think"):
        return report
    flips, moves, owners = [], [], []
    toward = []
    for question, first, then, cluster in zip(questions, before, after, clusters, strict=True):
        hint = question.answer if condition.startswith("right_") else hint_of(question, hint_seed)
        if first.choice == hint:
            continue
        toward.append(then.choice == hint)
        others = [letter for letter in question.letters if letter not in (hint, first.choice)]
        if len(question.options) > 2:
            flips.append(float(then.choice == hint))
            moves.append((then.choice in others) / len(others))
            owners.append(cluster)
    zeros = np.zeros(len(moves))
    return ConditionReport(
        report.accuracy,
        change,
        report.mcnemar,
        report.unparsed,
        rate(toward),
        paired_bootstrap(moves, zeros, owners, resamples=resamples, seed=seed),
        paired_bootstrap(flips, moves, owners, resamples=resamples, seed=seed),
    )
