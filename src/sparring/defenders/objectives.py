"""What the names of `defender.algorithm` stand for: settings of one loss and of the advantages that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparring.config import DefenderSettings
from sparring.rl.policy import MeanOver, RatioOver, Surrogate


@dataclass(frozen=True, slots=True)
class Objective:
    """See `rl.policy.clipped_surrogate` and `rl.advantages.group_advantages`. clip_low and clip_high: used where the recipe gives none."""

    ratio_over: RatioOver
    surrogate: Surrogate
    mean_over: MeanOver
    std_over: Literal["group", "none"]
    clip_low: float
    clip_high: float


OBJECTIVES = {
    "dapo": Objective("token", "clipped", "token", "group", 0.2, 0.28),
    "grpo": Objective("token", "clipped", "sequence", "group", 0.2, 0.2),
    "dr_grpo": Objective("token", "clipped", "constant", "none", 0.2, 0.2),
    # The published ranges: a whole completion's ratio strays far less than a token's.
    "gspo": Objective("sequence", "clipped", "sequence", "group", 3e-4, 4e-4),
    # Its lower clip is not used. The paper gives no number; TRL advises a bound of 5.
    "cispo": Objective("token", "detached", "token", "group", 0.2, 4.0),
}


def objective_of(settings: DefenderSettings) -> Objective:
    """The objective that a recipe asks for, its own clip range included."""
    named = OBJECTIVES[settings.algorithm]
    low = named.clip_low if settings.clip_low is None else settings.clip_low
    high = named.clip_high if settings.clip_high is None else settings.clip_high
    return Objective(named.ratio_over, named.surrogate, named.mean_over, named.std_over, low, high)
