"""Adversarial efficacy of an edit: how often the Defender fails on it, how near that is to half, how far the right answer's probability falls.

"Consecutive failures" (arXiv 2602.22227) has no published definition. Ours: the Defender is asked up to k times and stops at its first right
answer; efficacy is failures / k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL.Image import Image

from sparring.data.errors import RefusedError
from sparring.data.records import Answer, VisualQuestion
from sparring.rl.seeds import derive_seed

Ask = Callable[[Sequence[VisualQuestion], Sequence[Image], int], Sequence[Answer | RefusedError]]
"""Questions, the picture beside each, and a seed: one answer each, or the error by which there is none."""

SMALLEST_PROBABILITY = 1e-6


def ask_until_right(
    ask: Ask, questions: Sequence[VisualQuestion], images: Sequence[Image], *, trials: int, greedy: bool, seed: int, go_on: bool = False
) -> list[tuple[Answer, ...] | RefusedError]:
    """Every item's answers up to the first right one, at most `trials`; each trial is one batch of the items that have always failed so far.
    An item that is refused once has the error in their place.

    `go_on`: all trials are asked of every item, right or wrong.

    `greedy`: the Defender always gives the same reply, so a wrong one stands for all trials and is not asked for again. Trial t of a call
    has a seed of its own, derived from (seed, t).
    """
    answers: list[list[Answer]] = [[] for _ in questions]
    refused = dict[int, RefusedError]()
    failing = list(range(len(questions)))
    for trial in range(trials):
        if not failing:
            break
        trial_seed = derive_seed(seed, "trial", trial)
        replies = ask([questions[i] for i in failing], [images[i] for i in failing], trial_seed)
        going = list[int]()
        for i, reply in zip(failing, replies, strict=True):
            if isinstance(reply, RefusedError):
                refused[i] = reply
                continue
            answers[i] += [reply] * (trials if greedy and not reply.right else 1)
            if not greedy and (go_on or not reply.right):
                going.append(i)
        failing = going
    return [refused[i] if i in refused else tuple(own) for i, own in enumerate(answers)]


def efficacy(answers: Sequence[Answer], trials: int) -> float:
    """Failures before the first right answer, over the trials allowed: 0 where the first answer is right, 1 where all are wrong."""
    failures = next((t for t, answer in enumerate(answers) if answer.right), len(answers))
    return failures / trials


def frontier(answers: Sequence[Answer]) -> float:
    """How near the Defender is to failing half of its trials: 1 - |2 c - 1|, where c is the share of the answers that are wrong; 0 without answers.

    Highest (1) at c = 1/2, where an edit has most to teach, and 0 where the Defender always or never fails (VisPlay, arXiv 2511.15661, uses the
    same form). With an odd number k of trials it reaches 1 - 1/k.
    """
    if not answers:
        return 0.0
    wrong = sum(not answer.right for answer in answers) / len(answers)
    return 1.0 - abs(2.0 * wrong - 1.0)


def relative_fall(clean: float, edited: float) -> float:
    """How much of the right answer's probability is gone, in [0, 1]: max(0, clean - edited) / clean. Ours."""
    return max(0.0, clean - edited) / max(clean, SMALLEST_PROBABILITY)
