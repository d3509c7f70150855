"""The Defender: how it is asked, rewarded and trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.base import DType, EndpointSettings, LoraSettings, Settings


class NoisySettings(Settings):
    """NoisyRollout (arXiv 2504.13055): some answers of a group are given about a distorted picture, and learned from on the clean one."""

    share: float = Field(0.0, ge=0, le=1, description="share of a group's answers that are sampled about the distorted picture; 0: off")
    strength: int = Field(500, ge=0, le=999, description="noise in the first updates, as the step of a diffusion of 1000 steps")
    steepness: float = Field(30.0, gt=0, description="how sharply the noise goes, per length of a round")
    midpoint: float = Field(2 / 3, ge=0, le=1, description="share of a round's updates after which half of the strength is left")


class TextSettings(Settings):
    """Words beside the picture that say what is right or wrong there (arXiv 2602.12506), for shares of the groups."""

    right_caption: float = Field(0.0, ge=0, le=1, description="share of groups that are told a right caption, before the question")
    wrong_caption: float = Field(0.0, ge=0, le=1, description="... a wrong caption")
    right_thought: float = Field(0.0, ge=0, le=1, description="... whose replies are begun for them by a right thought")
    wrong_thought: float = Field(0.0, ge=0, le=1, description="... by a wrong thought")
    caption: str = Field(
        'A caption of the picture: asked "{question}", one would say {option}.\n',
        description="{question} is replaced, and of the option that is named {answer} (its letter), {option} (its words) and {reasoning} (the record's, "
        "with these words in place of the right ones at its end); {{ }} are literal braces",
    )
    thought: str = Field("The picture shows that the right option is {option}.", description="likewise")


class ConsistencySettings(Settings):
    """Does the reasoning of an answer arrive at the answer? (`sparring.defenders.consistency`)"""

    role: Literal["off", "record", "factor", "constraint"] = Field(
        "off",
        description="record: measured alone; factor: the reward is multiplied by it, 0 or 1; constraint: its own advantage is added, with a weight that "
        "rises while less than `target` of the answers are consistent",
    )
    model: str | None = Field(
        None,
        description="a VLM (folder, hub id or endpoint) that is told the reasoning, not the answer, and says where it arrives; null: rules, for "
        "reasoning that ends by naming one option",
    )
    endpoint: EndpointSettings = Field(
        default_factory=lambda: EndpointSettings(), description="where model is an endpoint: how it is asked"
    )
    dtype: DType = "float32"
    prompt: str = Field(
        "{question}\nOptions:\n{options}\nSomebody thinks about it:\n{reasoning}\nWhich option does this thought arrive at? Answer with its letter, or "
        'with "none" if it arrives at none.',
        description="what the judge model is told; {question}, {options} and {reasoning} are replaced",
    )
    target: float = Field(0.95, gt=0, le=1, description="constraint: share of consistent answers that is wanted")
    weight: float = Field(0.0, ge=0, description="constraint: the weight (Lagrange multiplier) that a round begins with")
    weight_rate: float = Field(
        0.2, gt=0, description="constraint: dual ascent, what the weight rises by in an update for each unit of shortfall"
    )
    weight_max: float = Field(5.0, gt=0, description="constraint: upper bound of the weight")


class RolloutServerSettings(Settings):
    """A server that samples the answers which a Defender learns from: vLLM with the Defender's base model and LoRA adapters loaded at run time."""

    address: str = Field(description="http://127.0.0.1:8000/v1#model, the same model as defender.model")
    endpoint: EndpointSettings = Field(default_factory=lambda: EndpointSettings(), description="how it is asked")
    folder: str | None = Field(
        None,
        description="where adapters are written for the server to read; null: in the run's folder, which a server on this machine sees",
    )
    importance_cap: float = Field(
        2.0,
        ge=1,
        description="upper bound of the weight, policy over server, with which a token sampled by the server counts (truncated importance sampling)",
    )


class DefenderSettings(Settings):
    model: str = Field(
        description="a transformers folder or hub id of a vision-language model; or an endpoint, http://127.0.0.1:8000/v1#model, which cannot be trained"
    )
    endpoint: EndpointSettings = Field(
        default_factory=lambda: EndpointSettings(), description="where model is an endpoint: how it is asked"
    )
    dtype: DType = "float32"
    prompt: str = Field(
        "{question}\nOptions:\n{options}\nThink briefly, then put the letter of the right option in \\boxed{{}}.",
        description="user text beside the image; {question} and {options} are replaced, {{ }} are literal braces",
    )
    min_pixels: int | None = Field(None, description="lower bound of the image size handed to the processor; null keeps its own")
    max_pixels: int | None = Field(None, description="upper bound of the image size handed to the processor; null keeps its own")
    algorithm: Literal["dapo", "grpo", "dr_grpo", "gspo", "cispo", "sft"] = Field(
        "dapo", description="how it learns from rewards; or sft: without any, by supervised fine-tuning on the right answers"
    )
    reply: str = Field(
        "{reasoning} \\boxed{{{answer}}}",
        description="supervised fine-tuning: what is learned; {reasoning} (the question's, or nothing), {answer} (its letter) and {option} (its words) "
        "are replaced, {{ }} are literal braces",
    )
    interpolation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the way from its weights before a round to those after it that the Defender goes (WiSE-FT, arXiv 2109.01903): "
        "less than 1 gives up a little robustness for what it knew before",
    )
    final_interpolation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="after the last round, share of the way from the base Defender that it keeps; less than 1 needs all weights trained (lora: null)",
    )
    steps: int = Field(30, ge=0, description="updates in one round")
    prompts_per_step: int = Field(32, ge=1, description="groups in one update")
    group_size: int = Field(5, ge=2, description="completions per prompt")
    max_new_tokens: int = Field(32, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="sampled answers are drawn from so many likeliest tokens; 0: from all")
    rollout_server: RolloutServerSettings | None = Field(
        None, description="who samples the answers of training; null: the Defender itself. Needs a lora"
    )
    learning_rate: float = Field(1e-6, gt=0)
    learning_rate_end: float = Field(
        1.0, ge=0, le=1, description="share of the learning rate that the last update of a round has; it falls in a straight line"
    )
    optimizer_steps: int = Field(
        1,
        ge=1,
        description="optimizer steps in one update, each on its own share of the groups; only with more than one can ratios be clipped, 1 is strictly "
        "on-policy",
    )
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    micro_batch: int = Field(64, ge=1, description="completions in one forward and backward pass")
    gradient_checkpointing: bool = Field(
        False,
        description="keep the input of every transformer block alone and compute the rest again in the backward pass: less memory, more time",
    )
    clip_low: float | None = Field(
        None, gt=0, lt=1, description="ratios below 1 - this are clipped; null: the algorithm's own, 0.2 for DAPO, 3e-4 for GSPO"
    )
    clip_high: float | None = Field(
        None, gt=0, description="ratios above 1 + this are clipped; null: the algorithm's own, 0.28 for DAPO, 4e-4 for GSPO, 4 for CISPO"
    )
    dual_clip: float | None = Field(
        None,
        gt=1,
        description="a token of a negative advantage A costs at most dual_clip x -A, however likely it has "
        "become (Dual-clip PPO; 3 in verl, EasyR1 and the AOT authors' training); null: no bound",
    )
    advantage_epsilon: float = Field(
        1e-4,
        gt=0,
        description="added to the std that advantages are divided by; 1e-6 in EasyR1 and the AOT authors' training",
    )
    kl_weight: float = Field(
        0.0, ge=0, description="weight of the KL divergence to the Defender as it was before the round; 0: no KL, no reference model (DAPO)"
    )
    keep_reward_above: float = Field(0.01, description="dynamic sampling keeps groups whose mean reward is above this")
    keep_reward_below: float = Field(0.99, description="... and below this")
    max_refills: int = Field(4, ge=1, description="batches of prompts sampled at most to fill one update with groups that have signal")
    overlong_cache: int = Field(0, ge=0, description="soft overlong punishment over the last so many tokens; 0: off")
    overlong_filter: bool = Field(False, description="mask completions cut off at max_new_tokens out of the loss")
    reward: Literal["unambiguous", "released"] = Field(
        "unambiguous",
        description=r"which answers are paid for. unambiguous: boxes after the thought that all name the "
        r"right option, by letter or words; released: as the AOT authors' reward reads them, the first box "
        r"anywhere that holds a bare letter",
    )
    reward_accuracy: float = Field(0.8, description="reward for the right letter")
    reward_format: float = Field(0.2, description=r"added when the answer is exactly \boxed{X}, only when it is right")
    consistency: ConsistencySettings = Field(default_factory=lambda: ConsistencySettings())
    noisy: NoisySettings = Field(default_factory=lambda: NoisySettings())
    text: TextSettings = Field(default_factory=lambda: TextSettings())
    train_vision: bool = Field(True, description="train the vision tower too")
    lora: LoraSettings | None = Field(None, description="null trains all weights")
