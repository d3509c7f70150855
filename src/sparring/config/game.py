"""A game: data, rounds, evaluation, and the recipe that holds all sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sparring.config.attacker import AttackerSettings
from sparring.config.base import Audit, CallSettings, Device, Images, Seed, Settings, SkipBadRecords
from sparring.config.defender import DefenderSettings
from sparring.config.engine import EngineSettings
from sparring.config.forge import ForgeStages, Implant
from sparring.config.judge import JudgeSettings


class DataSettings(Settings):
    """Where the questions come from."""

    path: str | None = Field(
        None,
        description="file or folder of questions in any layout (docs/data.md); null: those of `generator`",
    )
    images: Images = None
    generator: CallSettings | None = Field(
        None,
        description="called as f(folder, seed=..., **arguments); writes questions and returns the path of "
        "the JSONL file. Used when path is not set",
    )
    held_out_path: str | None = Field(
        None, description="held-out questions, in any layout; without it they are split off `path`, by image"
    )
    held_out: int = Field(320, ge=1, description="held-out questions on which every player is judged")
    skip_bad_records: SkipBadRecords = False


class BootstrapSettings(Settings):
    """Fine-tuning of the editor on forged pairs, before the first round."""

    questions: int = Field(
        512, ge=0, description="training questions, right when clean, from which the forge makes pairs"
    )
    implant: Implant | None = Field(None, description="takes the place of forge.implant in a run")
    attempts: int | None = Field(None, ge=1, description="takes the place of forge.attempts in a run")
    steps: int = Field(60, ge=0, description="fine-tuning updates of the editor on the pairs")
    batch: int = Field(32, ge=1, description="pairs in one update")
    learning_rate: float = Field(2e-4, gt=0, description="of every update")


class CurriculumSettings(Settings):
    """What a round's Defender learns from."""

    questions: int = Field(
        512, ge=1, description="training questions edited by the frozen Attacker for one round's curriculum"
    )
    clean_share: float = Field(
        0.25, ge=0, le=1, description="share of untouched items mixed in; 1 trains on clean data alone"
    )
    effective_weight: int = Field(
        1, ge=1, description="an edit that fooled the frozen Defender comes so many times as often as others"
    )
    replay_share: float = Field(
        0.2, ge=0, le=1, description="share of items that come from earlier rounds' Attackers"
    )
    training_edits: bool = Field(
        False,
        description="the accepted edits that the Attacker made while it trained join those of the frozen "
        "Attacker: many more pictures for nothing, of an Attacker that was not yet as good",
    )
    revisit: float = Field(
        1.0,
        gt=0,
        le=1,
        description="an item that gave no signal the last z times that it came, all its answers right "
        "or all wrong, is sampled with this probability to the power of z when it is due, and never "
        "with less than 0.05; else the next one is; 1: always (after GRESO, arXiv 2506.02177)",
    )
    rivals: list[str] = Field(
        default_factory=list,
        description="opponents that nobody trains, such as paste:add or corruption:fog:3, who edit the "
        "curriculum's pictures, in turns, in place of the frozen Attacker; empty: the Attacker does",
    )


class SelfplaySettings(Settings):
    """How the rounds are played."""

    rounds: int = Field(3, ge=1, description="turns of Attacker and Defender")
    require_skill: bool = Field(
        True,
        description="stop before any training where the base Defender's clean accuracy cannot be told from "
        "guessing, measured on at least 100 questions; false: play all the same",
    )
    curriculum: CurriculumSettings = Field(
        default_factory=lambda: CurriculumSettings(), description="what a round's Defender learns from"
    )
    plateau_patience: int | None = Field(
        None,
        ge=1,
        description="a phase ends early when its reward has not risen for so many updates; null: never",
    )
    checkpoint_every: int = Field(
        10, ge=1, description="updates between saved states inside a phase; what a kill can cost"
    )


class AlarmSettings(Settings):
    """How far a measure that no reward pays for may fall before a warning is given.

    It is taken on held-out edits, and counts in a round whose training reward rises.
    """

    success: float | None = Field(
        0.1,
        ge=0,
        description="fall of the valid attack success against the round's Defender; null: no warning",
    )
    label_valid: float | None = Field(
        0.1,
        ge=0,
        description="fall of the share of accepted edits whose right answer the audit finds still right",
    )
    sharpness: float | None = Field(
        0.2, ge=0, description="fall of min(ratio, 1 / ratio) of the sharpness ratio: blurred or grainy"
    )


class DriftSettings(Settings):
    """When the training of an Attacker is stopped, its state being kept: its edits have left what the editor
    can make.

    At every saved state and at the end of a round it edits a few held-out pictures, and is compared with the
    Attacker at the start of the game. A bound of null stops nothing.
    """

    items: int = Field(16, ge=1, description="held-out questions whose pictures are edited for it")
    sharpness: float | None = Field(
        8.0, gt=1, description="stop where edits are so many times as sharp or blurred as at the start"
    )
    round_trip: float | None = Field(
        4.0,
        gt=1,
        description="stop where a round trip changes their latents so many times as much as at the start",
    )


class ConditionSettings(Settings):
    """The words of the text conditions (`sparring.asking.conditions`).

    Replaced in all but `stopped`: {question}; {option} and {letter} of an option, right or wrong; {own}, the
    Defender's own reasoning about the plain question without its last part.
    """

    caption: str = Field(
        'Caption: the answer to "{question}" is {option}.',
        description="put on a line of its own before the question",
    )
    caption_hedged: str = Field(
        'Caption: the answer to "{question}" is {option}, but I could be wrong.',
        description="the same with a doubt in it",
    )
    thought: str = Field(
        "<think>\nFrom what the picture shows, the answer is {option}, which is option {letter}.",
        description="how the reply begins; the model goes on from there",
    )
    thought_hedged: str = Field(
        "<think>\nI cannot see it well, but I think the answer is {option}, which is option {letter}.",
        description="the same with a doubt in it",
    )
    stopped: str = Field(
        "<think>\nI have finished thinking.\n</think>\n",
        description="stop-think: a thought that is over before it has begun",
    )


class EvaluationSettings(Settings):
    """What is measured on held-out questions, and watched."""

    alarms: AlarmSettings = Field(
        default_factory=lambda: AlarmSettings(), description="when a warning is given"
    )
    drift: DriftSettings = Field(
        default_factory=lambda: DriftSettings(), description="when training is stopped"
    )
    audit: Audit = None
    rivals: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], str] = Field(
        default_factory=dict,
        description="opponents that nobody trains, who edit the held-out pictures beside the Attackers: "
        "name -> rival, such as light:0.75, paste:add, or package.module:function, called as f(question, "
        "image, seed=...) -> (edited picture, what was done) or None",
    )
    resamples: int = Field(
        2000, ge=100, description="bootstrap resamples of paired differences, clustered by image"
    )
    questions: int | None = Field(
        None,
        ge=1,
        description="how many of the held-out questions a game measures its players on, the first ones; "
        "null: all. Fewer where something else measures them, as a study does; no player depends on it",
    )
    batch: int = Field(64, ge=1, description="questions handled at a time")
    conditions: ConditionSettings = Field(
        default_factory=lambda: ConditionSettings(),
        description="words beside the picture, as `sparring probe` puts them; no part of a run",
    )


Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


class Recipe(Settings):
    """One experiment."""

    name: str = Field(description="of the experiment, for the report")
    description: str = Field("", description="what it is about, for the report")
    seed: Seed = 0
    device: Device = "auto"
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of torch, and processes of the audit; null: torch's choice, and none",
    )
    data: DataSettings = Field(description="the questions")
    attacker: AttackerSettings = Field(description="who edits pictures")
    defender: DefenderSettings = Field(description="who answers questions about them")
    judge: JudgeSettings = Field(
        default_factory=lambda: JudgeSettings(), description="checks and rewards of edits"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=lambda: BootstrapSettings(),
        description="the editor's fine-tuning before the first round",
    )
    forge: ForgeStages = Field(
        default_factory=lambda: ForgeStages(),
        description="how the bootstrap's pairs are made, in a run as by `sparring forge`",
    )
    selfplay: SelfplaySettings = Field(default_factory=lambda: SelfplaySettings(), description="the rounds")
    evaluation: EvaluationSettings = Field(
        default_factory=lambda: EvaluationSettings(), description="what is measured on held-out questions"
    )

    engine: EngineSettings = Field(
        default_factory=lambda: EngineSettings(),
        description="on how many processes and machines it is computed",
    )
    track: list[Tracker] = Field(
        default_factory=list,
        description="trackers that are told of the run besides its ledger (docs/track.md)",
    )

    def bootstrap_stages(self) -> ForgeStages:
        """The stages of the forge as the bootstrap goes through them."""
        own = {"implant": self.bootstrap.implant, "attempts": self.bootstrap.attempts}
        return self.forge.model_copy(update={name: value for name, value in own.items() if value is not None})
