"""The Attacker: its editor, its algorithm, its optimiser; and the opponents that nobody trains."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from sparring.config.base import (
    AlgorithmSettings,
    CheckpointSettings,
    DType,
    LoraSettings,
    OptimizerSettings,
    Settings,
    by_type,
)


class WindowSettings(Settings):
    """The denoising steps that are stochastic and trained (Flow-GRPO-Fast, MixGRPO); others are ODE steps."""

    size: int | None = Field(2, ge=1, description="steps in the window; null: every step but the last")
    first: int = Field(0, ge=0, description="earliest step at which the window may begin")
    last: int | None = Field(None, description="the window ends before this step; null: before the last step")
    move: Literal["random", "fixed", "slide"] = Field(
        "random",
        description="random: drawn anew for every update; fixed: at `first`; slide: from `first` towards "
        "the end over a round's updates (MixGRPO)",
    )
    every: int = Field(1, ge=1, description="slide: updates after which the window moves on")
    stride: int = Field(1, ge=1, description="slide: steps by which it moves")
    wrap: bool = Field(
        False, description="slide: begin again at `first` after the last place, instead of staying there"
    )
    shared_start: bool = Field(
        False,
        description="the edits of a group begin from one noise and part in the window's first step "
        "(Flow-GRPO-Fast), so that all before is computed once a group; they then differ by the window's "
        "noise alone",
    )


class FlowGRPOSettings(AlgorithmSettings):
    """Flow-GRPO (arXiv 2505.05470) and its variants: some denoising steps are stochastic, and trained."""

    type: Literal["flow_grpo"] = Field(
        "flow_grpo", description="policy gradients of stochastic denoising steps"
    )
    noise_level: float = Field(0.7, ge=0, description="how much noise a stochastic step brings")
    sampler: Literal["sde", "constant", "cps"] = Field(
        "sde",
        description="stochastic step: its own SDE with a diffusion of noise_level x sqrt(sigma / (1 - "
        "sigma)), the SDE with a diffusion of noise_level everywhere (DanceGRPO), or coefficient-preserving "
        "(CPS)",
    )
    window: WindowSettings = Field(
        default_factory=lambda: WindowSettings(), description="which steps are stochastic and trained"
    )
    state_dtype: DType = Field(
        "float32",
        description="of the states around the window's steps that a roll-out keeps; bfloat16 halves them",
    )
    clip_range: float = Field(1e-4, gt=0, description="symmetric clip of the ratio")
    grpo_guard: bool = Field(
        False,
        description="GRPO-Guard: normalise the ratio, so that it is 1 on average at every noise level, and "
        "weigh steps of unequal length alike; goes with a smaller clip_range (2e-6 is usual)",
    )


class ForwardProcessSettings(AlgorithmSettings):
    """What trains on freshly noised final pictures, beside an old policy that makes the samples."""

    forward_timesteps: int = Field(2, ge=1, description="noise levels drawn per final image in one update")
    old_ema_slope: float = Field(
        0.001,
        ge=0,
        description="the EMA decay of the old policy, which makes the samples, grows by this per update",
    )
    old_ema_max: float = Field(
        0.5, ge=0, le=1, description="upper bound of that decay; 0 makes the samples with the present weights"
    )


class DiffusionNFTSettings(ForwardProcessSettings):
    """DiffusionNFT (arXiv 2509.16117)."""

    type: Literal["diffusion_nft"] = Field(
        "diffusion_nft", description="from good pictures, away from bad ones"
    )
    beta: float = Field(
        0.1, gt=0, description="how far the implicit positive and negative policies lie apart"
    )


class AWMSettings(ForwardProcessSettings):
    """Advantage-weighted matching (arXiv 2509.25050)."""

    type: Literal["awm"] = Field("awm", description="flow matching of pictures, weighted by their advantages")
    power: float = Field(
        0.25,
        gt=0,
        le=1,
        description="of the generalised Huber weight of the matching error; 1 is the plain error",
    )
    clip_range: float = Field(1.0, gt=0, description="symmetric clip of the ratio to the old policy")
    old_weight: float = Field(
        5.0, ge=0, description="weight of the squared distance to the old policy's velocity, the trust region"
    )


AttackerAlgorithm = FlowGRPOSettings | DiffusionNFTSettings | AWMSettings


class CropSettings(Settings):
    """Where a picture that is too large for the editor is edited: in a crop around the question's targets.

    The rest of it stays as it is.
    """

    max_area: int = Field(
        1024 * 1024,
        ge=32 * 32,
        description="pixels that the editor works on at once; of a larger picture a crop is edited",
    )
    context: int = Field(
        96,
        ge=0,
        description="pixels around the targets that the crop takes in too, or as many of them as fit",
    )
    feather: int = Field(
        32, ge=0, description="pixels over which an edit fades in from the crop's border; 0: a hard seam"
    )


class EditorLoraSettings(LoraSettings):
    """Low-rank adapters of the editor's transformer."""

    targets: str | None = Field(
        None,
        description="regular expression of the names of the layers that are adapted (peft's target_modules); "
        "null: every attention projection that the editor's family names",
    )

    @field_validator("targets")
    @classmethod
    def _is_an_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"must be a regular expression ({error})") from error
        return value


class AttackerSettings(OptimizerSettings, CheckpointSettings):
    """An editor, what it is told, and how it learns."""

    model: str = Field(
        description="a diffusers pipeline folder or hub id of an image editor: FLUX.2-klein, FLUX.1-Kontext, "
        "Qwen-Image-Edit or Qwen-Image-Edit-Plus (2509 and later)"
    )
    family: str | None = Field(
        None,
        description="an adapter of your own for a further family of editors, `package.module:Class` "
        "(docs/extend.md); it is taken for folders whose model_index.json names its pipeline",
    )
    instruction: str = Field(
        "Add a plausible distractor object, inspired by the question, to mislead a model answering: "
        "{question}",
        description="the editing instruction; {question} is replaced",
    )
    algorithm: AttackerAlgorithm = Field(
        default_factory=lambda: FlowGRPOSettings(),
        discriminator="type",
        description="how the editor learns from rewards",
    )
    steps: int = Field(30, ge=0, description="updates in one round")
    questions_per_step: int = Field(8, ge=1, description="groups in one update")
    group_size: int = Field(16, ge=2, description="edits of the same image with the same instruction")
    crop: CropSettings = Field(
        default_factory=lambda: CropSettings(), description="where in a large picture the editor works"
    )
    rollout_steps: int = Field(6, ge=1, description="denoising steps of a roll-out")
    evaluation_steps: int = Field(
        6, ge=1, description="denoising steps of the deterministic sampler that makes the edits that count"
    )
    guidance_scale: float = Field(1.0, ge=1.0, description="true classifier-free guidance; 1 is off")
    embedded_guidance: float = Field(
        2.5,
        ge=0,
        description="guidance that a distilled transformer takes as an input (FLUX.1-Kontext; others none)",
    )
    learning_rate: float = Field(3e-4, gt=0, description="of the first round's first update")
    round_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the learning rate that a round keeps of the one of the round before",
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, decoupled from the gradient")
    keep_best: int = Field(
        0,
        ge=0,
        description="at the end of a round, go back to the mean of the weights of the best so many updates "
        "in a row, by the mean reward of their edits; 0 keeps the last weights",
    )
    past_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of an update's questions that face Defenders of earlier rounds instead of the "
        "last one, so that what fooled them is not forgotten; these Defenders are in memory together",
    )
    offload: bool = Field(
        False,
        description="text encoders and VAE are on the accelerator only while they work, the transformer not "
        "while the Defender answers, Defender and judge not while a frozen Attacker edits; without effect on "
        "a CPU",
    )
    lora: EditorLoraSettings | None = Field(
        default_factory=lambda: EditorLoraSettings(), description="null trains all weights of the transformer"
    )
    advantage_clip: float = Field(
        5.0, gt=0, description="advantages are clamped to this, in standard deviations"
    )
    std_over: Literal["group", "batch"] = Field(
        "group",
        description="whose standard deviation advantages are divided by: each group's own, or all rewards'",
    )
    kl_weight: float | None = Field(
        None,
        ge=0,
        description="weight of the KL term to the editor without LoRA, or, where all weights are trained, "
        "to the editor as it was before the round; null: 0, and 0.04 for Flow-GRPO on a step-distilled "
        "editor. Flow-GRPO: |mean - reference|^2 over twice the squared diffusion, as its authors' code has "
        "it, which is the KL of the step times its length (CPS steps: |mean - reference|^2); DiffusionNFT "
        "and AWM: the squared distance of the velocities",
    )

    @field_validator("algorithm", mode="before")
    @classmethod
    def _algorithm_by_type(cls, value: Any) -> Any:
        return by_type(value, "flow_grpo")

    def instruct(self, question: str) -> str:
        """What the editor is told about a question."""
        return self.instruction.replace("{question}", question)


class PgdSettings(Settings):
    """A gradient attack on pixels (`sparring.attackers.rivals.pgd`)."""

    eps: float = Field(
        8.0,
        ge=1,
        le=255,
        description="budget: the most that a channel of a pixel may change, in grey levels of 255",
    )
    steps: int = Field(20, ge=1, description="gradient steps")
    step: float | None = Field(None, gt=0, description="grey levels of one step; null: 2.5 eps / steps")
    restarts: int = Field(
        1,
        ge=1,
        description="attacks from different starts, of which the best is kept; they are in memory together",
    )
    random_start: bool = Field(
        True, description="start at a random place inside the budget instead of at the clean picture"
    )
    goal: Literal["right", "wrong"] = Field(
        "right",
        description="lower the probability of the right answer, or raise that of a random wrong option",
    )


class PasteSettings(Settings):
    """Static distractors (`sparring.attackers.rivals.paste`)."""

    mode: Literal["add", "insert"] = Field(
        "add", description="paste onto free space, or beside the picture on a widened canvas"
    )
    folder: str | None = Field(
        None,
        description="folder of RGBA cut-outs, each file named after its object; null: the bundled sprites",
    )
    size: float = Field(
        0.3, gt=0, le=1, description="longer side of the cut-out, as a share of the picture's shorter side"
    )
