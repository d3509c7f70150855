"""Does a Defender answer what it has reasoned, and how sure is it? (After arXiv 2602.12506.)

What reasoning is, and which option it argues for, is read by the rule by which training pays it
(`sparring.defenders.consistency`). Where the rule reads nothing, a judge model may: the `ConsistencyJudge`
of training, which sees neither picture nor answer.

Consistent: the option that the reasoning argues for is the one that is chosen. With right and wrong that
gives four quadrants.

At the answer's letter: probabilities of the option letters alone, renormalised over them; their entropy in
nats, and P(correct).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparring.data.errors import DataError
from sparring.data.records import LETTERS, Answer, VisualQuestion
from sparring.defenders.consistency import parted, reasoning_of, verdict_of
from sparring.measures.statistics import Difference, Rate, paired_bootstrap, rate

# ---- the answer's letter


@dataclass(frozen=True, slots=True)
class LetterScore:
    """The option letters at an answer. probabilities: renormalised over the letters, in their order."""

    probabilities: tuple[float, ...]
    entropy: float
    right_probability: float


def letter_score(logprobs: Sequence[float], answer: str) -> LetterScore:
    """From log-probabilities of the option letters among all tokens; `answer` is the right letter.
    DataError where all letters have probability 0.
    """
    top = max(logprobs)
    if top == -math.inf:
        raise DataError("every option letter has probability 0 at the answer")
    weights = [math.exp(value - top) for value in logprobs]
    total = math.fsum(weights)
    probabilities = tuple(weight / total for weight in weights)
    entropy = -math.fsum(p * math.log(p) for p in probabilities if p > 0)
    return LetterScore(probabilities, entropy, probabilities[LETTERS.index(answer)])


# ---- what the reasoning argues for


def premises_of(text: str) -> str:
    """The reasoning without its last part, which is where it says what it argues for; nothing where it
    has one part alone.
    """
    return parted(reasoning_of(text))[0]


def cohens_kappa(first: Sequence[object], second: Sequence[object]) -> float | None:
    """Agreement of two raters beyond chance (Cohen 1960); None where there is nothing to rate, or chance
    alone would agree always.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} ratings: two of one length are needed")
    n = len(first)
    if n == 0:
        return None
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    kinds = {*first, *second}
    chance = sum(sum(a == kind for a in first) * sum(b == kind for b in second) for kind in kinds) / n**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """Right or wrong, with or against the own reasoning. `consistent` is over the replies that could be
    read (`readable`, of all).

    by_rule, by_judge: how many of those a rule read, or else a judge. agreement: Cohen's kappa, by the
    names of who is compared, with how many replies both read.
    """

    quadrants: Mapping[str, int]
    readable: Rate
    consistent: Rate
    consistent_clustered: Difference
    by_rule: int
    by_judge: int
    agreement: Mapping[str, tuple[float | None, int]]

    def as_dict(self) -> dict[str, Any]:
        agreement = {name: {"kappa": kappa, "n": n} for name, (kappa, n) in self.agreement.items()}
        return {
            "quadrants": dict(self.quadrants),
            "readable": self.readable.as_dict(),
            "consistent": self.consistent.as_dict()
            | {"ci95_clustered": [self.consistent_clustered.low, self.consistent_clustered.high]},
            "read_by_rule": self.by_rule,
            "read_by_judge": self.by_judge,
            "judge_agreement": agreement,
        }


def consistency_report(
    questions: Sequence[VisualQuestion],
    answers: Sequence[Answer],
    clusters: Sequence[object],
    judged: Sequence[Sequence[str | None]] = (),
    *,
    resamples: int,
    seed: int,
) -> ConsistencyReport:
    """Quadrants of one Defender's answers, one a question. judged: for every judge its letter for each
    reply (`ConsistencyJudge`).

    A rule's reading goes before the first judge's. Not readable: a reply without reasoning, one that
    neither reads, one without a choice.
    """
    ruled = [
        verdict_of(reasoning_of(answer.text), question.options).letter
        for question, answer in zip(questions, answers, strict=True)
    ]
    readings: dict[str, Sequence[str | None]] = {
        "rule": ruled,
        **{f"judge{i + 1}": own for i, own in enumerate(judged)},
    }
    argued = [
        rule if rule is not None else (judged[0][i] if judged else None) for i, rule in enumerate(ruled)
    ]
    read = [i for i, letter in enumerate(argued) if letter is not None and answers[i].choice is not None]
    agrees = [argued[i] == answers[i].choice for i in read]
    quadrants = {
        f"{truth}_{how}": 0 for truth in ("right", "wrong") for how in ("consistent", "inconsistent")
    }
    for i, same in zip(read, agrees, strict=True):
        quadrants[
            f"{'right' if answers[i].right else 'wrong'}_{'consistent' if same else 'inconsistent'}"
        ] += 1
    agreement = {}
    names = list(readings)
    for a, first in enumerate(names):
        for second in names[a + 1 :]:
            both = [
                (x, y)
                for x, y in zip(readings[first], readings[second], strict=True)
                if x is not None and y is not None
            ]
            agreement[f"{first}_{second}"] = (
                cohens_kappa([x for x, _ in both], [y for _, y in both]),
                len(both),
            )
    return ConsistencyReport(
        quadrants,
        rate([i in set(read) for i in range(len(answers))]),
        rate(agrees),
        paired_bootstrap(
            agrees, [0] * len(agrees), [clusters[i] for i in read], resamples=resamples, seed=seed
        ),
        sum(ruled[i] is not None for i in read),
        sum(ruled[i] is None for i in read),
        agreement,
    )
