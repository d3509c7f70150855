"""What the commands beside a game take: fine-tuning, attack, evaluation, probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.attacker import AttackerSettings
from sparring.config.base import CallSettings, DType, EndpointSettings, Settings
from sparring.config.defender import DefenderSettings
from sparring.config.game import ConditionSettings
from sparring.config.judge import JudgeSettings


class SftSettings(Settings):
    """Supervised fine-tuning of a Defender, without any game."""

    data: str = Field(description="questions in any layout (docs/data.md); `reasoning`, where a record has it, is learned too")
    images: str | None = Field(None, description="folder of pictures that the data name by path; null: the data's own folder")
    skip_bad_records: bool = Field(False, description="drop records that do not load, and say how many and why, instead of stopping")
    epochs: int = Field(1, ge=1, description="times that every question comes")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; null leaves torch's choice")
    checkpoint_every: int = Field(50, ge=1, description="updates between saved states; what a kill can cost")
    defender: DefenderSettings = Field(
        description="of its settings count those of the model, prompt, reply and LoRA, prompts_per_step (questions in one update), micro_batch, and the "
        "optimiser's; its steps follow from the epochs"
    )


class AttackSettings(Settings):
    """One attack without any training: an Attacker edits pictures, a Defender answers about them."""

    data: str = Field(description="questions in any layout (docs/data.md)")
    images: str | None = Field(None, description="folder of pictures that the data name by path; null: the data's own folder")
    skip_bad_records: bool = Field(False, description="drop records that do not load, and say how many and why, instead of stopping")
    limit: int | None = Field(None, ge=1, description="questions at most, drawn by the seed; null: all")
    samples: int = Field(1, ge=1, description="edits of every question, each from noise of its own")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(
        None, ge=1, description="CPU threads of torch and processes of the audit; null leaves torch's choice and one"
    )
    batch: int = Field(64, ge=1, description="questions handled at a time; what a kill can cost a model on this machine")
    attacker: AttackerSettings = Field(
        description="model: an editor's folder or hub id, one and a LoRA's folder, EDITOR+LORA, or a rival such as pgd:eps=8 or benign@EDITOR. Of the rest counts what makes deterministic edits"
    )
    defender: DefenderSettings = Field(description="model: a folder, hub id or endpoint. Of the rest counts what an answer needs")
    judge: JudgeSettings = Field(default_factory=lambda: JudgeSettings())
    audit: CallSettings | None = Field(
        None, description="called as f(question, edited_image, **arguments) -> True, False or None: is the right answer still right?"
    )


class ReaderSettings(Settings):
    """A judge model that reads which option a reply chooses, where the rules of a harness that asks one have read nothing."""

    model: str = Field(description="a folder, hub id or endpoint; it is shown no pictures")
    endpoint: EndpointSettings = Field(
        default_factory=lambda: EndpointSettings(), description="where model is an endpoint: how it is asked"
    )
    dtype: DType = "float32"


class EvalSettings(Settings):
    """One evaluation: a benchmark's questions, asked of a model and scored."""

    suite: str = Field(description="name of the benchmark")
    data: str = Field(description="its file or folder; or a function that writes one, package.module:function:name=value")
    images: str | None = Field(None, description="folder of pictures that the data name by path; null: the data's own folder")
    skip_bad_records: bool = Field(False, description="drop records that do not load, and say how many and why, instead of stopping")
    profile: Literal["sparring", "official", "vlmevalkit", "lmms-eval", "aot"] = Field(
        "sparring", description="scoring profile that is quoted; the results hold every profile that knows the benchmark"
    )
    prompt: Literal["boxed", "options", "direct", "vlmevalkit"] = Field(
        "boxed",
        description="how questions are put: with the Defender's own prompt and a box; so, and yes and no as options A and B; for a bare letter or word; "
        "or as VLMEvalKit puts them",
    )
    shuffle: bool | None = Field(
        None, description="put options in an order that follows from seed and id; null: as the benchmark wants it (all but HR-Bench)"
    )
    trials: int = Field(1, ge=1, description="times that a question is asked, until the first miss; 3 is usual with aot")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    limit: int | None = Field(None, ge=1, description="questions at most, drawn by the seed; null: all")
    seed: int = 0
    batch: int = Field(8, ge=1, description="questions in one batch of a model on this machine")
    revision: str | None = Field(
        None, description="of an endpoint: a name for the weights that it serves, so that other weights under its name are asked anew"
    )
    judge: ReaderSettings | None = Field(
        None, description="reads replies that rules have not, in the profiles of harnesses that ask a judge; null: they stay unparsed"
    )
    thumbnails: int = Field(2000, ge=0, description="pictures of which a small copy is kept for the report")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; null leaves torch's choice")
    defender: DefenderSettings = Field(
        description="model: a folder, hub id or endpoint. Of the rest counts what an answer needs: prompt, max_new_tokens, pixel limits, endpoint"
    )


class ProbeSettings(Settings):
    """One or several Defenders, put to attacks on pictures and on text, without training any of them."""

    data: str = Field(
        description="questions in any layout (docs/data.md), or the file or folder of `suite`; or a function that writes it, package.module:function:name=value"
    )
    suite: str | None = Field(
        None, description="benchmark, as of `sparring eval`, whose layout the data has; null: told by what lies there"
    )
    images: str | None = Field(None, description="folder of pictures that the data name by path; null: the data's own folder")
    skip_bad_records: bool = Field(False, description="drop records that do not load, and say how many and why, instead of stopping")
    limit: int | None = Field(None, ge=1, description="questions at most, drawn by the seed; null: all")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(
        None, ge=1, description="CPU threads of torch and processes of the audit; null leaves torch's choice and one"
    )
    batch: int = Field(64, ge=1, description="questions handled at a time; what a kill can cost a model on this machine")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples, clustered by picture")
    defenders: dict[str, str] = Field(min_length=1, description="name -> folder, hub id or endpoint")
    defender: DefenderSettings = Field(description="how every one of them is asked; model: the first")
    attackers: dict[str, str] = Field(
        default_factory=dict, description="name -> as `attacker.model` of an attack: EDITOR, EDITOR+LORA, or a rival such as pgd:eps=8"
    )
    attacker: AttackerSettings | None = Field(
        None,
        description="what makes deterministic edits, and trains adaptive Attackers; model: their editor. null: only rivals without one",
    )
    controls: bool = Field(True, description="ask the unchanged picture again; round trip and benign edit where there is an editor")
    samples: int = Field(1, ge=1, description="edits of every question by every attacker, each from noise of its own")
    adapt: int = Field(
        0, ge=0, description="updates of a fresh Attacker that is trained against each Defender that is here; 0: none. It needs an editor"
    )
    adapt_queries: int | None = Field(None, ge=1, description="pictures at most that this training may show its Defender; null: no bound")
    adapt_data: str | None = Field(None, description="questions that it trains on, in any layout; null: a half of `data`, by picture")
    letters: bool = Field(True, description="score the option letters at the answer: entropy, P(correct), calibration")
    text: bool = Field(True, description="ask under the text conditions")
    conditions: ConditionSettings = Field(default_factory=lambda: ConditionSettings())
    judge: JudgeSettings = Field(default_factory=lambda: JudgeSettings(), description="checks of edits")
    reasoning_judges: tuple[str, ...] = Field(
        (),
        max_length=2,
        description="models that read which option a reasoning argues for, where no rule can; with two their agreement is told",
    )
    audit: CallSettings | None = Field(
        None, description="called as f(question, edited_image, **arguments) -> True, False or None: is the right answer still right?"
    )
