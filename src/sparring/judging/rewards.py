"""What an edit is worth to the Attacker: how surely it misleads the Defender, how unlike the others of its
group it is, and whether it is valid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import isfinite
from numbers import Real
from operator import add

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from sparring.config import JudgeSettings, RewardSettings
from sparring.data.errors import DataError, RefusedError
from sparring.data.records import UNCHANGED, Answer, Verdict, VisualQuestion
from sparring.engine.calls import import_call
from sparring.judging.kinds import Kind
from sparring.judging.light import LightChange, excess
from sparring.seeds import derive_seed

CELLS = 16
FLOOR = 1.0


def group_diversity(clean: Image, edits: Sequence[Image]) -> list[float]:
    """For every edit of one picture its mean distance d to the others, in [0, 1); 0 for an edit without
    others. All have one size.
    """
    if len(edits) < 2:
        return [0.0] * len(edits)
    maps_ED = torch.stack([difference_map(clean, edit).flatten() for edit in edits])
    size_E = maps_ED.square().mean(1).sqrt()
    gap_EE = (maps_ED[:, None] - maps_ED).square().mean(2).sqrt()
    distance_EE = gap_EE / (size_E[:, None] + size_E + FLOOR)
    values: list[float] = (distance_EE.sum(1) / (len(edits) - 1)).tolist()
    return values


def difference_map(clean: Image, edit: Image) -> Tensor:
    """Mean change of every cell and channel in grey levels: float64 [3, CELLS, CELLS]."""
    change_HWC = np.asarray(edit.convert("RGB"), dtype=np.int16) - np.asarray(
        clean.convert("RGB"), dtype=np.int16
    )
    change_CHW = torch.from_numpy(change_HWC).permute(2, 0, 1)
    return torch.stack(
        [functional.adaptive_avg_pool2d(channel[None].double(), CELLS)[0] for channel in change_CHW]
    )


def variety(kinds: Sequence[Kind]) -> list[float]:
    """For every edit the share of the others of another kind, in [0, 1]; 0 alone, and for edits that change
    no object.
    """
    number, others = Counter(kinds), max(1, len(kinds) - 1)
    return [
        0.0 if kind in ("unchanged", "imperceptible") else (len(kinds) - number[kind]) / others
        for kind in kinds
    ]


Ask = Callable[[Sequence[int], int], Sequence[Answer | RefusedError]]
"""The places of items, and a seed: one answer about each, or the error by which there is none."""

SMALLEST_PROBABILITY = 1e-6


def ask_until_right(
    ask: Ask, items: int, *, trials: int, greedy: bool, seed: int, go_on: bool = False
) -> list[tuple[Answer, ...] | RefusedError]:
    """Every item's answers up to the first right one, at most `trials`; each trial is one batch of the items
    that have always failed so far. An item that is refused once has the error in their place.

    `go_on`: all trials are asked of every item, right or wrong.

    `greedy`: the Defender always gives the same reply, so a wrong one stands for all trials and is not asked
    for again. Trial t of a call has a seed of its own, derived from (seed, t).
    """
    answers: list[list[Answer]] = [[] for _ in range(items)]
    refused = dict[int, RefusedError]()
    failing = list(range(items))
    for trial in range(trials):
        if not failing:
            break
        replies = ask(failing, derive_seed(seed, "trial", trial))
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
    """Failures before the first right answer, over the trials allowed: 0 where the first answer is right, 1
    where all are wrong.
    """
    failures = next((t for t, answer in enumerate(answers) if answer.right), len(answers))
    return failures / trials


def frontier(answers: Sequence[Answer]) -> float:
    """How near the Defender is to failing half of its trials: 1 - |2 c - 1|, where c is the share of the
    answers that are wrong; 0 without answers.

    Highest (1) at c = 1/2, where an edit has most to teach, and 0 where the Defender always or never fails
    (VisPlay, arXiv 2511.15661, uses the same form). With an odd number k of trials it reaches 1 - 1/k.
    """
    if not answers:
        return 0.0
    wrong = sum(not answer.right for answer in answers) / len(answers)
    return 1.0 - abs(2.0 * wrong - 1.0)


def relative_fall(clean: float, edited: float) -> float:
    """How much of the right answer's probability is gone, in [0, 1]: max(0, clean - edited) / clean. Ours."""
    return max(0.0, clean - edited) / max(clean, SMALLEST_PROBABILITY)


PREFIX = "reward_"
"""A verdict's notes hold the parts under their names with this before them."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What decides whether an edit counts, before the Defender sees it. `duplicate` is asked only of intact
    edits.

    intact: the boxes keep their integrity, and the picture keeps its light where that is guarded. light:
    None where it is not guarded; relit: it went beyond its limits. unchanged: the picture came back as it
    was, so that there is no attack.
    """

    integrity: float
    intact: bool
    duplicate: bool
    light: LightChange | None = None
    relit: bool = False
    unchanged: bool = False

    @property
    def accepted(self) -> bool:
        return self.intact and not self.duplicate and not self.unchanged

    @property
    def notes(self) -> dict[str, float]:
        """What a verdict notes: that nothing was changed; of the light, where it is guarded."""
        found = {UNCHANGED: 1.0} if self.unchanged else {}
        if self.light is None:
            return found
        return found | {
            "light_level": self.light.level,
            "light_spread": self.light.spread,
            "relit": float(self.relit),
        }


def shortfall(settings: JudgeSettings, gate: Gate) -> float:
    """By how much an edit misses being intact: integrity below its threshold, and the light beyond its
    limits.
    """
    beyond = 0.0 if gate.light is None else excess(gate.light, settings.light_level, settings.light_spread)
    return max(0.0, settings.integrity_threshold - gate.integrity) + beyond


def reward_parts(
    settings: JudgeSettings,
    gate: Gate,
    *,
    efficacy: float,
    fall: float,
    frontier: float = 0.0,
    diversity: float = 0.0,
    variety: float = 0.0,
) -> dict[str, float]:
    """Name of a part -> what it adds to the reward; only parts that the settings pay for. All terms in [0,
    1], 0 where not measured.
    """
    attack = 1 - settings.dense_weight
    parts = {
        "bonus": (settings.validity_bonus, settings.validity_bonus),
        "efficacy": (
            attack * (1 - settings.frontier_weight),
            attack * ((1 - settings.frontier_weight) * efficacy),
        ),
        "frontier": (attack * settings.frontier_weight, attack * (settings.frontier_weight * frontier)),
        "fall": (settings.dense_weight, settings.dense_weight * fall),
        "diversity": (settings.diversity_weight, settings.diversity_weight * diversity),
        "variety": (settings.variety_weight, settings.variety_weight * variety),
    }
    paid = {name: value if gate.accepted else 0.0 for name, (weight, value) in parts.items() if weight > 0}
    if settings.shortfall_penalty > 0:
        paid["shortfall"] = 0.0 if gate.intact else -settings.shortfall_penalty * shortfall(settings, gate)
    return paid


def reward_of(parts: Mapping[str, float]) -> float:
    """The sum of `reward_parts`, in their order (`sum` would round otherwise on newer Pythons)."""
    return reduce(add, parts.values(), 0.0)


class CustomReward:
    """The function that `judge.reward` names: f(question, clean, edited, verdict, answers, **arguments).

    Like every other part, what it pays is for accepted edits alone; of a rejected one it is not asked.
    """

    def __init__(self, settings: RewardSettings) -> None:
        """Raises RecipeError where the function cannot be had or does not take the arguments."""
        self.settings = settings
        self._function = import_call(settings, "judge.reward")

    def pay(
        self,
        question: VisualQuestion,
        clean: Image,
        edit: Image,
        verdict: Verdict,
        answers: tuple[Answer, ...],
    ) -> Verdict:
        """The verdict with weight x what the function returns added to its reward, and both in its notes.

        Raises DataError, naming the question, where the function fails or returns no finite number.
        """
        if not verdict.accepted:
            return replace(verdict, notes=verdict.notes | {f"{PREFIX}custom": 0.0})
        where = f'question "{question.id}": judge.reward "{self.settings.call}"'
        pictures = clean.convert("RGB"), edit.convert("RGB")
        try:
            value = self._function(question, *pictures, verdict, answers, **self.settings.arguments)
        except Exception as error:
            raise DataError(f"{where} failed: {type(error).__name__}: {error}") from error
        if not isinstance(value, Real) or not isfinite(value):
            raise DataError(f"{where} must return a number that is finite; it returned {value!r}.")
        paid = self.settings.weight * float(value)
        notes = verdict.notes | {"custom": float(value), f"{PREFIX}custom": paid}
        return replace(verdict, reward=verdict.reward + paid, notes=notes)
