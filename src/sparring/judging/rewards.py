"""What the Attacker is paid for an edit, part by part; the reward is their sum.

    accepted:    bonus + (1 - w) ((1 - f) efficacy + f frontier) + w fall + d diversity + v variety not
    intact:  - shortfall_penalty x shortfall: how far integrity is below its threshold and the light beyond
    its limits else:        0

with w = dense_weight, f = frontier_weight, d = diversity_weight, v = variety_weight, bonus = validity_bonus.
With w, f, d, v and the two extras 0 this is the integrity gate times efficacy. The terms are explained in
`efficacy` and `diversity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from sparring.config import JudgeSettings
from sparring.judging.light import LightChange, excess

PREFIX = "reward_"
"""A verdict's notes hold the parts under their names with this before them."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What decides whether an edit counts, before the Defender sees it. `duplicate` is asked only of intact edits.

    intact: the boxes keep their integrity, and the picture keeps its light where that is guarded. light: None
    where it is not guarded; relit: it went beyond its limits.
    """

    integrity: float
    intact: bool
    duplicate: bool
    light: LightChange | None = None
    relit: bool = False

    @property
    def accepted(self) -> bool:
        return self.intact and not self.duplicate

    @property
    def notes(self) -> dict[str, float]:
        """What a verdict notes of the light, where it is guarded."""
        if self.light is None:
            return {}
        return {"light_level": self.light.level, "light_spread": self.light.spread, "relit": float(self.relit)}


def shortfall(settings: JudgeSettings, gate: Gate) -> float:
    """By how much an edit misses being intact: integrity below its threshold, and the light beyond its limits."""
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
    """Name of a part -> what it adds to the reward; only parts that the settings pay for. All terms in [0, 1], 0 where not measured."""
    attack = 1 - settings.dense_weight
    parts = {
        "bonus": (settings.validity_bonus, settings.validity_bonus),
        "efficacy": (attack * (1 - settings.frontier_weight), attack * ((1 - settings.frontier_weight) * efficacy)),
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
