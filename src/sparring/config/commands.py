"""What the commands beside a game take: fine-tuning, evaluation, probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.attacker import AttackerSettings
from sparring.config.base import (
    Audit,
    Device,
    Images,
    Limit,
    ModelSettings,
    Seed,
    Settings,
    SkipBadRecords,
    Threads,
)
from sparring.config.defender import DefenderSettings
from sparring.config.game import ConditionSettings
from sparring.config.judge import JudgeSettings


class SftSettings(Settings):
    """Supervised fine-tuning of a Defender, without any game."""

    data: str = Field(
        description="questions in any layout (docs/data.md); `reasoning` is learned where there is any"
    )
    images: Images = None
    skip_bad_records: SkipBadRecords = False
    epochs: int = Field(1, ge=1, description="times that every question comes")
    seed: Seed = 0
    device: Device = "auto"
    threads: Threads = None
    checkpoint_every: int = Field(50, ge=1, description="updates between saved states; what a kill can cost")
    defender: DefenderSettings = Field(
        description="of its settings count those of the model, prompt, reply and LoRA, prompts_per_step "
        "(questions in one update), micro_batch, and the optimiser's; its steps follow from the epochs"
    )


class ReaderSettings(ModelSettings):
    """A judge model that reads which option a reply chooses, where a harness's rules have read nothing."""

    model: str = Field(description="a folder, hub id or endpoint; it is shown no pictures")


class EvalSettings(Settings):
    """One evaluation: a benchmark's questions, asked of a model and scored."""

    suite: str = Field(description="name of the benchmark")
    data: str = Field(
        description="its file or folder; or a function that writes one, package.module:function:name=value"
    )
    images: Images = None
    skip_bad_records: SkipBadRecords = False
    profile: Literal["sparring", "official", "vlmevalkit", "lmms-eval", "aot"] = Field(
        "sparring",
        description="scoring profile that is quoted; the results hold every profile that knows the benchmark",
    )
    prompt: Literal["boxed", "options", "direct", "vlmevalkit"] = Field(
        "boxed",
        description="how questions are put: with the Defender's own prompt and a box; so, and yes and no as "
        "options A and B; for a bare letter or word; or as VLMEvalKit puts them",
    )
    shuffle: bool | None = Field(
        None, description="put options in an order that follows from seed and id; null: all but HR-Bench's"
    )
    trials: int = Field(
        1, ge=1, description="times that a question is asked, until the first miss; 3 is usual with aot"
    )
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    limit: Limit = None
    seed: Seed = 0
    batch: int = Field(8, ge=1, description="questions in one batch of a model on this machine")
    revision: str | None = Field(
        None,
        description="of an endpoint: a name for the weights that it serves; under another all is asked anew",
    )
    judge: ReaderSettings | None = Field(
        None, description="reads replies that rules have not, where the profile's harness asks a judge"
    )
    thumbnails: int = Field(2000, ge=0, description="pictures of which a small copy is kept for the report")
    device: Device = "auto"
    threads: Threads = None
    defender: DefenderSettings = Field(
        description="model: a folder, hub id or endpoint. Of the rest counts what an answer needs: prompt, "
        "max_new_tokens, pixel limits, endpoint"
    )


class ProbeSettings(Settings):
    """One or several Defenders, put to attacks on pictures and on text, without training any of them.

    `sparring attack` is a probe whose presets leave all but the attacks out.
    """

    data: str = Field(
        description="questions in any layout (docs/data.md), or the file or folder of `suite`; or a "
        "function that writes it, package.module:function:name=value"
    )
    suite: str | None = Field(
        None, description="benchmark, as of `sparring eval`, whose layout the data has; null: told from it"
    )
    images: Images = None
    skip_bad_records: SkipBadRecords = False
    limit: Limit = None
    seed: Seed = 0
    device: Device = "auto"
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of torch and processes of the audit; null leaves torch's choice and one",
    )
    batch: int = Field(
        64, ge=1, description="questions handled at a time; what a kill can cost a model on this machine"
    )
    resamples: int = Field(2000, ge=100, description="bootstrap resamples, clustered by picture")
    defenders: dict[str, str] = Field(min_length=1, description="name -> folder, hub id or endpoint")
    defender: DefenderSettings = Field(description="how every one of them is asked; model: the first")
    attackers: dict[str, str] = Field(
        default_factory=dict,
        description="name -> EDITOR, EDITOR+LORA, or a rival such as pgd:eps=8 or benign@EDITOR",
    )
    attacker: AttackerSettings | None = Field(
        None,
        description="how editors edit, and adaptive Attackers train; null: only rivals without an editor",
    )
    controls: bool = Field(
        True,
        description="ask the unchanged picture again; round trip and benign edit where there is an editor",
    )
    samples: int = Field(
        1, ge=1, description="edits of every question by every attacker, each from noise of its own"
    )
    shown: Literal["all", "accepted"] = Field(
        "all",
        description="edits that Defenders are asked about; accepted: those alone that pass the checks, and "
        "for the others the answer to the clean picture stands. Controls are shown always",
    )
    dataset: bool = Field(
        False,
        description="also write edits, answers and verdicts as a data set, one row an edit and Defender",
    )
    adapt: int = Field(
        0,
        ge=0,
        description="updates of a fresh Attacker against each Defender on this machine; needs an editor",
    )
    adapt_queries: int | None = Field(
        None, ge=1, description="pictures at most that this training may show its Defender; null: no bound"
    )
    adapt_data: str | None = Field(
        None, description="questions that it trains on, in any layout; null: a half of `data`, by picture"
    )
    letters: bool = Field(
        True, description="score the option letters at the answer: entropy, P(correct), calibration"
    )
    text: bool = Field(True, description="ask under the text conditions")
    conditions: ConditionSettings = Field(
        default_factory=lambda: ConditionSettings(), description="words of the text conditions"
    )
    judge: JudgeSettings = Field(default_factory=lambda: JudgeSettings(), description="checks of edits")
    reasoning_judges: tuple[str, ...] = Field(
        (),
        max_length=2,
        description="who read what a reasoning argues for, where no rule can; of two the agreement is told",
    )
    audit: Audit = None
