"""A study: arms, seeds, opponents, and what is to be shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sparring.config.base import Settings

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=80)]  # a folder's, too
CellKind = Literal["game", "edits", "probe"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ArmSettings(Settings):
    """A recipe with changes; arms whose recipes come out the same share their games."""

    recipe: str = Field(description="a bundled recipe or a YAML file, also beside the study's own")
    changes: tuple[str, ...] = Field((), description="further settings, a.b=value as after `--set`")
    round: int | None = Field(
        None, ge=0, description="whose Defender is measured; 0: the base one; null: that of the last round"
    )


class PrimarySettings(Settings):
    """What the study is for: an arm's accuracy less the baseline's, mean over opponents."""

    arm: str = Field(description="name of the arm")
    opponents: tuple[str, ...] = Field(min_length=1, description="names of opponents, shifts, or adaptive")


class StudySettings(Settings):
    """Arms and seeds: each arm's game is played with each seed, and its Defender then probed."""

    name: str = Field(description="of the study, for the report")
    description: str = Field("", description="what it is about, for the report")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="each arm is played once with each"
    )
    arms: dict[Name, ArmSettings] = Field(min_length=1, description="name -> recipe with changes")
    changes: tuple[str, ...] = Field((), description="settings of every arm's recipe, before its own changes")
    baseline: str = Field(
        description="arm that all others are compared with; its recipe's editor, judge, audit and words of "
        "conditions measure every arm"
    )
    primary: PrimarySettings | None = Field(None, description="null: every comparison is exploratory")
    means: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="name -> opponents whose mean accuracy is told too, made as that of the primary outcome",
    )
    opponents: dict[Name, str] = Field(
        default_factory=dict,
        description="name -> attacker as of `sparring probe`, or ARM, ARM@next: the last Attacker of that "
        "arm's game with the same or the next seed; ARM may be own. Where an edit fails a check or "
        "the audit, the answer to the clean picture stands",
    )
    shifts: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="name -> attackers that leave every right answer right by what they are (light, "
        "corruptions, small noise): all their pictures count, whatever the checks say; of several the mean",
    )
    adapt: int = Field(
        0, ge=0, description="updates of a fresh Attacker against each Defender: the opponent adaptive"
    )
    controls: bool = Field(True, description="ask again, round trip and benign edit, as `sparring probe`")
    letters: bool = Field(True, description="score the option letters: calibration")
    text: bool = Field(True, description="ask under the text conditions")
    seconds: dict[CellKind, Seconds] = Field(
        default_factory=dict,
        description="what a cell of a kind should take, in seconds, until the first of them is done",
    )
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples over seeds, then pictures")
