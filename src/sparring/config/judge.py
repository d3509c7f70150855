"""The judge: the checks and the reward of an edit."""

from __future__ import annotations

from pydantic import Field

from sparring.config.base import CallSettings, ModelSettings, Settings


class RewardSettings(CallSettings):
    """A function of the user's own that pays the Attacker, beside the judge's own terms."""

    weight: float = Field(1.0, ge=0, description="what the function returns counts so many times")


class JudgeSettings(ModelSettings):
    """The judge model, the limits of an edit, and what an edit is paid for."""

    model: str | None = Field(
        None,
        description="a VLM (folder, hub id or endpoint), not the Defender, that counts queried objects; "
        "null leaves the duplicate check out",
    )
    count_prompt: str = Field(
        'How many objects of the kind "{name}" are in the picture? Answer with one number.',
        description="{name} is replaced by a queried object's name",
    )
    integrity_threshold: float = Field(
        0.8, ge=-1, le=1, description="every protected box must keep at least this mean local SSIM"
    )
    light_level: float | None = Field(
        None,
        gt=0,
        description="how far the mean colour may go, in a protected box or outside them, as the absolute "
        "logarithm of its gain: 0.08 refuses pictures that are a twelfth darker, brighter or of another "
        "tint as a whole; null does not guard it",
    )
    light_spread: float | None = Field(
        None,
        gt=0,
        description="the same for contrast: 0.2 refuses a fifth more or less; null does not guard it",
    )
    trials: int = Field(
        1, ge=1, description="k: the Defender is asked up to k times and stops at the first right answer"
    )
    trial_temperature: float = Field(
        0.0, ge=0, description="temperature of those trials; 0 with trials=1 is greedy"
    )
    dense_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the fall of the right answer's probability; 0 is the paper's reward",
    )
    batch: int = Field(128, ge=1, description="pictures that the judge model is shown at once")
    validity_bonus: float = Field(
        0.0, ge=0, description="added to the reward of every accepted edit; 0 is the paper's reward"
    )
    shortfall_penalty: float = Field(
        0.0,
        ge=0,
        description="weight of (threshold - integrity), and of what the light goes beyond its limits, as a "
        "penalty on rejected edits; 0 is the paper's reward",
    )
    frontier_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the term for efficacy that pays for the frontier instead: most where the "
        "Defender fails half of its trials, nothing where it fails all or none. All trials are then asked; "
        "it needs trials of at least 2 and a trial_temperature",
    )
    diversity_weight: float = Field(
        0.0,
        ge=0,
        description="weight of how much an accepted edit differs from the others of its group, 0 to 1",
    )
    variety_weight: float = Field(
        0.0,
        ge=0,
        description="weight of how rare an accepted edit's kind is (added, removed, replaced, several): the "
        "share of the other accepted edits of the update that are of another kind, from 0 to 1; nothing for "
        "light and other imperceptible changes",
    )
    reward: RewardSettings | None = Field(
        None,
        description="called for every accepted edit as f(question, clean, edited, verdict, answers, "
        "**arguments) -> number, which is added to the reward (docs/extend.md); null: nothing is added",
    )


class KindSettings(Settings):
    """How an edit's kind is told (`sparring.judging.kinds`)."""

    threshold: float = Field(
        14.0, gt=0, description="grey levels from which a place of the smoothed difference map has changed"
    )
    smooth: float = Field(
        0.016, ge=0, description="sigma of that smoothing, as a share of the picture's shorter side"
    )
    join: float = Field(
        0.016,
        ge=0,
        description="gaps up to twice this share of the shorter side are closed within a changed region",
    )
    smallest: float = Field(
        0.006, gt=0, lt=1, description="changed regions of less than this share of the picture are left out"
    )
    stands_out: float = Field(
        20.0,
        gt=0,
        description="grey levels from the colour around it that make a pixel of a change an object's",
    )
    object_prompt: str = Field(
        "What object is in the middle of this picture? Answer with its colour and its name, or with "
        '"nothing" if there is only background.',
        description="asked of a judge model beside a cut-out of every changed region, before and after",
    )
    margin: float = Field(
        0.25, ge=0, description="share of a region's size that is cut out around it for the judge model"
    )
