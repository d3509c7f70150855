"""The Defender: how it is asked, rewarded and trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from sparring.config.base import (
    AlgorithmSettings,
    EndpointSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    Settings,
    by_type,
)

ClipLow = Annotated[float, Field(gt=0, lt=1, description="ratios below 1 - this are clipped")]
ClipHigh = Annotated[float, Field(gt=0, description="ratios above 1 + this are clipped")]


class ClippedSettings(AlgorithmSettings):
    """What clips the ratio of the new to the old policy."""

    clip_low: ClipLow = 0.2
    clip_high: ClipHigh = 0.2
    dual_clip: float | None = Field(
        None,
        gt=1,
        description="a token of a negative advantage A costs at most dual_clip x -A, however likely it has "
        "become (Dual-clip PPO; 3 in verl, EasyR1 and the AOT authors' training); null: no bound",
    )


class NormalisedSettings(AlgorithmSettings):
    """What divides advantages by their group's standard deviation."""

    advantage_epsilon: float = Field(
        1e-4,
        gt=0,
        description="added to the std that advantages are divided by; 1e-6 in the AOT authors' training",
    )


class DAPOSettings(ClippedSettings, NormalisedSettings):
    """DAPO (arXiv 2503.14476)."""

    type: Literal["dapo"] = Field("dapo", description="ratios of tokens, mean over all tokens of the update")
    clip_high: ClipHigh = 0.28


class GRPOSettings(ClippedSettings, NormalisedSettings):
    """GRPO (arXiv 2402.03300)."""

    type: Literal["grpo"] = Field(
        "grpo", description="ratios of tokens, mean over answers of the mean over their tokens"
    )


class DrGRPOSettings(ClippedSettings):
    """Dr. GRPO (arXiv 2503.20783)."""

    type: Literal["dr_grpo"] = Field(
        "dr_grpo", description="ratios of tokens, sum over tokens per answer and max_new_tokens, no std"
    )


class GSPOSettings(ClippedSettings, NormalisedSettings):
    """GSPO (arXiv 2507.18071), its published range: a completion's ratio strays far less than a token's."""

    type: Literal["gspo"] = Field("gspo", description="ratios of whole answers, mean over answers")
    clip_low: ClipLow = 3e-4
    clip_high: ClipHigh = 4e-4


class CISPOSettings(NormalisedSettings):
    """CISPO (arXiv 2506.13585), without the lower clip, as used there.

    The paper gives no number; TRL advises a bound of 5.
    """

    type: Literal["cispo"] = Field(
        "cispo", description="bounded ratios of tokens as weights, without a gradient"
    )
    clip_high: Annotated[float, Field(gt=0, description="a ratio weighs at most 1 + this")] = 4.0


class ImitationSettings(AlgorithmSettings):
    """Supervised fine-tuning on the right answers, without rewards."""

    type: Literal["sft"] = Field("sft", description="cross-entropy of right replies, without rewards")
    reply: str = Field(
        "{reasoning} \\boxed{{{answer}}}",
        description="what is learned; {reasoning} (the question's, or nothing), {answer} (its letter) and "
        "{option} (its words) are replaced, {{ }} are literal braces",
    )


RewardedAlgorithm = DAPOSettings | GRPOSettings | DrGRPOSettings | GSPOSettings | CISPOSettings
DefenderAlgorithm = RewardedAlgorithm | ImitationSettings


class NoisySettings(Settings):
    """NoisyRollout (arXiv 2504.13055): some answers of a group are given about a distorted picture.

    They are learned from on the clean one.
    """

    share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of a group's answers that are sampled about the distorted picture; 0: off",
    )
    strength: int = Field(
        500, ge=0, le=999, description="noise in the first updates, as the step of a diffusion of 1000 steps"
    )
    steepness: float = Field(30.0, gt=0, description="how sharply the noise goes, per length of a round")
    midpoint: float = Field(
        2 / 3, ge=0, le=1, description="share of a round's updates after which half of the strength is left"
    )


class TextSettings(Settings):
    """Words beside the picture that say what is right or wrong there (arXiv 2602.12506), for some groups."""

    right_caption: float = Field(
        0.0, ge=0, le=1, description="share of groups that are told a right caption, before the question"
    )
    wrong_caption: float = Field(0.0, ge=0, le=1, description="... a wrong caption")
    right_thought: float = Field(
        0.0, ge=0, le=1, description="... whose replies are begun for them by a right thought"
    )
    wrong_thought: float = Field(0.0, ge=0, le=1, description="... by a wrong thought")
    caption: str = Field(
        'A caption of the picture: asked "{question}", one would say {option}.\n',
        description="{question} is replaced, and of the option that is named {answer} (its letter), "
        "{option} (its words) and {reasoning} (the record's, with these words in place of the right ones at "
        "its end); {{ }} are literal braces",
    )
    thought: str = Field("The picture shows that the right option is {option}.", description="likewise")


class ConsistencySettings(ModelSettings):
    """Does the reasoning of an answer arrive at the answer? (`sparring.defenders.consistency`)"""

    role: Literal["off", "record", "factor", "constraint"] = Field(
        "off",
        description="record: measured alone; factor: the reward is multiplied by it, 0 or 1; constraint: "
        "its own advantage is added, with a weight that rises while less than `target` of the answers are "
        "consistent",
    )
    model: str | None = Field(
        None,
        description="a VLM (folder, hub id or endpoint) that is told the reasoning, not the answer, and "
        "says where it arrives; null: rules, for reasoning that ends by naming one option",
    )
    prompt: str = Field(
        "{question}\nOptions:\n{options}\nSomebody thinks about it:\n{reasoning}\nWhich option does this "
        'thought arrive at? Answer with its letter, or with "none" if it arrives at none.',
        description="what the judge model is told; {question}, {options} and {reasoning} are replaced",
    )
    target: float = Field(
        0.95, gt=0, le=1, description="constraint: share of consistent answers that is wanted"
    )
    weight: float = Field(
        0.0, ge=0, description="constraint: the weight (Lagrange multiplier) that a round begins with"
    )
    weight_rate: float = Field(
        0.2, gt=0, description="constraint: what the weight rises by in an update for each unit of shortfall"
    )
    weight_max: float = Field(5.0, gt=0, description="constraint: upper bound of the weight")


class RolloutServerSettings(Settings):
    """Servers that sample the answers which a Defender learns from.

    They have the Defender's base model, and are given its LoRA, or all its weights, after every update.
    """

    address: Annotated[
        list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = Field(
        min_length=1,
        description="http://127.0.0.1:8000/v1#model, the same model as defender.model; or a list of such "
        "servers, which share the prompts out evenly",
    )
    kind: Literal["vllm", "sglang"] = Field(
        "vllm", description="how they are given weights: see docs/defender-engine.md"
    )
    endpoint: EndpointSettings = Field(
        default_factory=lambda: EndpointSettings(), description="how it is asked"
    )
    folder: str | None = Field(
        None, description="where adapters or weights are written for the servers; null: in the run's folder"
    )
    probe_tolerance: float = Field(
        0.2,
        gt=0,
        description="after every update a few fixed replies show whether the servers answer with what they "
        "were sent: mean difference of log-probabilities, in nats a token, beyond which the run stops; it "
        "also stops at ten times the difference after the first update",
    )
    importance_floor: float = Field(
        1e-4,
        ge=0,
        lt=1,
        description="a reply is left out of the loss, and counted (untrusted), where the policy gives one of "
        "its tokens less than this share of the probability that the server gave it; 0: none is",
    )
    importance_cap: float = Field(
        2.0,
        ge=1,
        description="upper bound of the weight, policy over server, with which a token sampled by the "
        "server counts (truncated importance sampling)",
    )


class DefenderSettings(OptimizerSettings, ModelSettings):
    """A vision-language model, how it is asked, and how it learns."""

    model: str = Field(
        description="a transformers folder or hub id of a vision-language model; or an endpoint, "
        "http://127.0.0.1:8000/v1#model, which cannot be trained"
    )
    prompt: str = Field(
        "{question}\nOptions:\n{options}\nThink briefly, then put the letter of the right option in "
        "\\boxed{{}}.",
        description="beside the image; {question} and {options} are replaced, {{ }} are literal braces",
    )
    min_pixels: int | None = Field(
        None, ge=1, description="lower bound of the image size handed to the processor; null keeps its own"
    )
    max_pixels: int | None = Field(
        None, ge=1, description="upper bound of the image size handed to the processor; null keeps its own"
    )
    algorithm: DefenderAlgorithm = Field(
        default_factory=lambda: DAPOSettings(),
        discriminator="type",
        description="how it learns from rewards; sft: without any, from right answers",
    )
    interpolation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the way from its weights before a round to those after it that the Defender "
        "goes (WiSE-FT, arXiv 2109.01903): less than 1 gives up a little robustness for what it knew before, "
        "and needs all weights trained (lora: null)",
    )
    final_interpolation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="after the last round, share of the way from the base Defender that it keeps; less than "
        "1 needs all weights trained (lora: null)",
    )
    steps: int = Field(30, ge=0, description="updates in one round")
    prompts_per_step: int = Field(32, ge=1, description="groups in one update")
    group_size: int = Field(5, ge=2, description="completions per prompt")
    max_new_tokens: int = Field(32, ge=1, description="longest reply")
    temperature: float = Field(1.0, gt=0, description="of the answers that it learns from")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="sampled answers are drawn from the likeliest tokens of this probability; 1: from all",
    )
    top_k: int = Field(
        0, ge=0, description="sampled answers are drawn from so many likeliest tokens; 0: from all"
    )
    rollout_server: RolloutServerSettings | None = Field(
        None, description="who samples the answers of training; null: the Defender itself"
    )
    learning_rate: float = Field(1e-6, gt=0, description="of a round's first update")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, decoupled from the gradient")
    kl_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the KL divergence to the Defender as it was before the round (DAPO: 0)",
    )
    keep_reward_above: float = Field(
        0.01, description="dynamic sampling keeps groups whose mean reward is above this"
    )
    keep_reward_below: float = Field(0.99, description="... and below this")
    max_refills: int = Field(
        4,
        ge=1,
        description="batches of prompts sampled at most to fill one update with groups that have signal",
    )
    overlong_cache: int = Field(
        0, ge=0, description="soft overlong punishment over the last so many tokens; 0: off"
    )
    overlong_filter: bool = Field(
        False, description="mask completions cut off at max_new_tokens out of the loss"
    )
    reward: Literal["unambiguous", "released"] = Field(
        "unambiguous",
        description="which answers are paid for. unambiguous: boxes after the thought that all name the "
        "right option, by letter or words; released: as the AOT authors' reward reads them, the first box "
        "anywhere that holds a bare letter",
    )
    reward_accuracy: float = Field(0.8, description="reward for the right letter")
    reward_format: float = Field(
        0.2, description=r"added when the answer is exactly \boxed{X}, only when it is right"
    )
    consistency: ConsistencySettings = Field(
        default_factory=lambda: ConsistencySettings(),
        description="whether reasoning must arrive at its answer",
    )
    noisy: NoisySettings = Field(default_factory=lambda: NoisySettings(), description="answers about noise")
    text: TextSettings = Field(
        default_factory=lambda: TextSettings(), description="captions and thoughts beside pictures"
    )
    train_vision: bool = Field(True, description="train the vision tower too")
    lora: LoraSettings | None = Field(None, description="null trains all weights")

    @field_validator("algorithm", mode="before")
    @classmethod
    def _algorithm_by_type(cls, value: Any) -> Any:
        return by_type(value, "dapo")
