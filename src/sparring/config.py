"""One tree of typed settings: a recipe is one YAML file, and this module is what it may say.

Every field carries its own documentation; unknown keys fail. Settings have no behaviour.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DType = Literal["float32", "bfloat16", "float16"]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CallSettings(Settings):
    """A Python callable named by a recipe, with its keyword arguments."""

    call: str = Field(description="`package.module:function`, imported when the run starts")
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments handed to it")


class DataSettings(Settings):
    path: str | None = Field(None, description="JSONL file of questions; images are named relative to it")
    generator: CallSettings | None = Field(
        None,
        description="called as f(folder, seed=..., **arguments); writes questions and returns the path of the JSONL file. Used when path is not set",
    )
    held_out_path: str | None = Field(None, description="JSONL file of held-out questions; without it they are split off `path`, by image")
    held_out: int = Field(320, ge=1, description="held-out questions on which every player is judged")
    skip_bad_records: bool = Field(False, description="drop records that do not load, and say how many and why, instead of stopping")


class LoraSettings(Settings):
    rank: int = Field(64, ge=1)
    alpha: int = Field(128, ge=1)


class WindowSettings(Settings):
    """Which denoising steps are stochastic and trained (Flow-GRPO-Fast, MixGRPO); the others are ODE steps."""

    size: int | None = Field(2, ge=1, description="steps in the window; null: every step but the last")
    first: int = Field(0, ge=0, description="earliest step at which the window may begin")
    last: int | None = Field(None, description="the window ends before this step; null: before the last step")
    move: Literal["random", "fixed", "slide"] = Field(
        "random",
        description="random: drawn anew for every update; fixed: at `first`; slide: from `first` towards the end over a round's updates (MixGRPO)",
    )
    every: int = Field(1, ge=1, description="slide: updates after which the window moves on")
    stride: int = Field(1, ge=1, description="slide: steps by which it moves")
    wrap: bool = Field(False, description="slide: begin again at `first` after the last place, instead of staying there")
    shared_start: bool = Field(
        False,
        description="the edits of a group begin from one noise and part in the window's first step (Flow-GRPO-Fast), so that all before is computed "
        "once a group; they then differ by the window's noise alone",
    )


class CropSettings(Settings):
    """Where a picture that is too large for the editor is edited: in a crop around the question's targets; the rest of it stays as it is."""

    max_area: int = Field(
        1024 * 1024,
        ge=32 * 32,
        description="pixels that the editor works on at once; a picture of no more is edited whole, of a larger one a crop",
    )
    context: int = Field(96, ge=0, description="pixels around the targets that the crop takes in too, or as many of them as fit")
    feather: int = Field(32, ge=0, description="pixels over which an edit fades in from the crop's border; 0: a hard seam")


class AttackerSettings(Settings):
    model: str = Field(
        description="a diffusers pipeline folder or hub id of an image editor: FLUX.2-klein, FLUX.1-Kontext, Qwen-Image-Edit or Qwen-Image-Edit-Plus (2509 and later)"
    )
    dtype: DType = "float32"
    instruction: str = Field(
        "Add a plausible distractor object, inspired by the question, to mislead a model answering: {question}",
        description="the editing instruction; {question} is replaced",
    )
    algorithm: Literal["flow_grpo", "diffusion_nft", "awm"] = Field("flow_grpo", description="how the editor learns from rewards")
    steps: int = Field(30, ge=0, description="updates in one round")
    questions_per_step: int = Field(8, ge=1, description="groups in one update")
    group_size: int = Field(16, ge=2, description="edits of the same image with the same instruction")
    crop: CropSettings = Field(default_factory=lambda: CropSettings())
    rollout_steps: int = Field(6, ge=1, description="denoising steps of a roll-out")
    evaluation_steps: int = Field(6, ge=1, description="denoising steps of the deterministic sampler that makes the edits that count")
    guidance_scale: float = Field(1.0, ge=1.0, description="true classifier-free guidance; 1 is off")
    embedded_guidance: float = Field(
        2.5, ge=0, description="guidance scale that a guidance-distilled transformer takes as an input (FLUX.1-Kontext); others take none"
    )
    learning_rate: float = Field(3e-4, gt=0)
    learning_rate_end: float = Field(
        1.0, ge=0, le=1, description="share of the learning rate that the last update of a round has; it falls in a straight line"
    )
    round_decay: float = Field(1.0, gt=0, le=1, description="share of the learning rate that a round keeps of the one of the round before")
    keep_best: int = Field(
        0,
        ge=0,
        description="at the end of a round, go back to the mean of the weights of the best so many updates in a row, by the mean reward of their "
        "edits; 0 keeps the last weights",
    )
    past_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of an update's questions that face Defenders of earlier rounds instead of the last one, so that what fooled them is not "
        "forgotten; these Defenders are in memory together",
    )
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    micro_batch: int = Field(64, ge=1, description="edits in one forward and backward pass of the editor")
    gradient_checkpointing: bool = Field(
        False,
        description="keep the input of every transformer block alone and compute the rest again in the backward pass: less memory, more time",
    )
    offload: bool = Field(
        False,
        description="text encoders and VAE are on the accelerator only while they work, the transformer not while the Defender answers; "
        "without effect on a CPU",
    )
    optimizer_steps: int = Field(
        1, ge=1, description="optimiser steps in one update, each on its own share of the edits; 1 is strictly on-policy"
    )
    lora: LoraSettings | None = Field(default_factory=lambda: LoraSettings(), description="null trains all weights of the transformer")
    noise_level: float = Field(0.7, ge=0, description="how much noise a stochastic step brings (Flow-GRPO)")
    sampler: Literal["sde", "constant", "cps"] = Field(
        "sde",
        description="stochastic step (Flow-GRPO): its own SDE with a diffusion of noise_level x sqrt(sigma / (1 - sigma)), the SDE with a diffusion "
        "of noise_level everywhere (DanceGRPO), or coefficient-preserving (CPS)",
    )
    window: WindowSettings = Field(default_factory=lambda: WindowSettings())
    state_dtype: DType = Field(
        "float32", description="number type in which a roll-out keeps the states around the window's steps; bfloat16 halves their memory"
    )
    clip_range: float = Field(1e-4, gt=0, description="symmetric clip of the ratio (Flow-GRPO)")
    grpo_guard: bool = Field(
        False,
        description="GRPO-Guard: normalise the ratio, so that it is 1 on average at every noise level, and weigh steps of unequal length alike; "
        "goes with a smaller clip_range (2e-6 is usual)",
    )
    advantage_clip: float = Field(5.0, gt=0)
    std_over: Literal["group", "batch"] = "group"
    kl_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the KL term to the editor without LoRA (DiffusionNFT, AWM: of the squared distance of the velocities)",
    )
    nft_beta: float = Field(0.1, gt=0, description="b of DiffusionNFT: how far the implicit positive and negative policies lie apart")
    awm_power: float = Field(
        0.25, gt=0, le=1, description="power of AWM's generalised Huber weight of the matching error; 1 is the plain error"
    )
    awm_clip_range: float = Field(1.0, gt=0, description="symmetric clip of AWM's ratio to the old policy")
    awm_old_weight: float = Field(5.0, ge=0, description="weight of the squared distance to the old policy's velocity, AWM's trust region")
    forward_timesteps: int = Field(2, ge=1, description="noise levels drawn per final image in one update (DiffusionNFT, AWM)")
    old_ema_slope: float = Field(
        0.001, ge=0, description="the EMA decay of the old policy, which makes the samples, grows by this per update (DiffusionNFT, AWM)"
    )
    old_ema_max: float = Field(0.5, ge=0, le=1, description="upper bound of that decay; 0 makes the samples with the present weights")

    def instruct(self, question: str) -> str:
        """What the editor is told about a question."""
        return self.instruction.replace("{question}", question)


class PriceSettings(Settings):
    """What a hosted model costs, in any currency."""

    prompt: float = Field(ge=0, description="for a million tokens of prompts, pictures included")
    completion: float = Field(ge=0, description="for a million tokens of replies")


class EndpointSettings(Settings):
    """How a model behind an OpenAI-compatible endpoint is asked."""

    key_variable: str = Field("SPARRING_API_KEY", description="environment variable that holds the API key; unset: no key is sent")
    concurrency: int = Field(8, ge=1, description="requests under way at a time")
    deadline: float = Field(120.0, gt=0, description="seconds that one request may take in all; then it counts as failed")
    retries: int = Field(6, ge=0, description="further tries of a request that failed in a way that may pass")
    first_wait: float = Field(0.5, gt=0, description="seconds before the first further try; doubled before every other, with jitter")
    longest_wait: float = Field(60.0, gt=0, description="upper bound of that wait; a server's Retry-After is waited for where it is longer")
    budget: int | None = Field(
        None, ge=0, description="requests at most, failed ones included, over all processes of a run; null: no bound"
    )
    price_per_million: PriceSettings | None = Field(None, description="null: tokens are counted, their price is not")
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the server calls the longest reply; some hosted models only take max_completion_tokens"
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="further fields of every request, for settings of one kind of server"
    )


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
    kl_weight: float = Field(
        0.0, ge=0, description="weight of the KL divergence to the Defender as it was before the round; 0: no KL, no reference model (DAPO)"
    )
    keep_reward_above: float = Field(0.01, description="dynamic sampling keeps groups whose mean reward is above this")
    keep_reward_below: float = Field(0.99, description="... and below this")
    max_refills: int = Field(4, ge=1, description="batches of prompts sampled at most to fill one update with groups that have signal")
    overlong_cache: int = Field(0, ge=0, description="soft overlong punishment over the last so many tokens; 0: off")
    overlong_filter: bool = Field(False, description="mask completions cut off at max_new_tokens out of the loss")
    reward_accuracy: float = Field(0.8, description="reward for the right letter")
    reward_format: float = Field(0.2, description=r"added when the answer is exactly \boxed{X}, only when it is right")
    consistency: ConsistencySettings = Field(default_factory=lambda: ConsistencySettings())
    noisy: NoisySettings = Field(default_factory=lambda: NoisySettings())
    text: TextSettings = Field(default_factory=lambda: TextSettings())
    train_vision: bool = Field(True, description="train the vision tower too")
    lora: LoraSettings | None = Field(None, description="null trains all weights")


class JudgeSettings(Settings):
    model: str | None = Field(
        None,
        description="a VLM (folder, hub id or endpoint), not the Defender, that counts queried objects; null leaves the duplicate check out",
    )
    endpoint: EndpointSettings = Field(
        default_factory=lambda: EndpointSettings(), description="where model is an endpoint: how it is asked"
    )
    dtype: DType = "float32"
    count_prompt: str = Field(
        'How many objects of the kind "{name}" are in the picture? Answer with one number.',
        description="{name} is replaced by a queried object's name",
    )
    integrity_threshold: float = Field(0.8, ge=-1, le=1, description="every protected box must keep at least this mean local SSIM")
    trials: int = Field(1, ge=1, description="k: the Defender is asked up to k times and stops at the first right answer")
    trial_temperature: float = Field(0.0, ge=0, description="temperature of those trials; 0 with trials=1 is greedy")
    dense_weight: float = Field(
        0.5, ge=0, le=1, description="share of the reward given by the fall of the right answer's probability; 0 is the paper's reward"
    )
    validity_bonus: float = Field(0.0, ge=0, description="reward of an accepted edit that fools nobody; 0 is the paper's reward")
    shortfall_penalty: float = Field(
        0.0, ge=0, description="weight of (threshold - integrity) as a penalty on rejected edits; 0 is the paper's reward"
    )
    frontier_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the term for efficacy that pays for the frontier instead: most where the Defender fails half of its trials, nothing "
        "where it fails all or none. All trials are then asked; it needs trials of at least 2 and a trial_temperature",
    )
    diversity_weight: float = Field(
        0.0, ge=0, description="weight of how much an accepted edit differs from the other accepted edits of its group, from 0 to 1"
    )


class BootstrapSettings(Settings):
    candidates: int = Field(512, ge=0, description="edits tried to find effective distractors")
    steps: int = Field(60, ge=0, description="fine-tuning updates of the editor on the effective pairs")
    batch: int = Field(32, ge=1)
    learning_rate: float = Field(2e-4, gt=0)


class CurriculumSettings(Settings):
    questions: int = Field(512, ge=1, description="training questions edited by the frozen Attacker for one round's curriculum")
    clean_share: float = Field(0.25, ge=0, le=1, description="share of untouched items mixed in; 1 trains on clean data alone")
    effective_weight: int = Field(
        1, ge=1, description="an edit that fooled the frozen Defender comes so many times as often as one that was only accepted"
    )
    replay_share: float = Field(0.2, ge=0, le=1, description="share of items that come from earlier rounds' Attackers")
    training_edits: bool = Field(
        False,
        description="the accepted edits that the Attacker made while it trained join those of the frozen Attacker: many more pictures for nothing, of "
        "an Attacker that was not yet as good",
    )
    rivals: list[str] = Field(
        default_factory=list,
        description="opponents that nobody trains, such as paste:add or corruption:fog:3, who edit the curriculum's pictures, in turns, in place of the "
        "frozen Attacker; empty: the Attacker does",
    )


class SelfplaySettings(Settings):
    rounds: int = Field(3, ge=1)
    curriculum: CurriculumSettings = Field(default_factory=lambda: CurriculumSettings())
    plateau_patience: int | None = Field(
        None, description="a phase ends early when its reward has not risen for so many updates; null: never"
    )
    checkpoint_every: int = Field(10, ge=1, description="updates between saved states inside a phase; what a kill can cost")


class AlarmSettings(Settings):
    """How far a measure on held-out edits, which no reward pays for, may fall in a round whose training reward rises, before a warning is given."""

    success: float | None = Field(0.1, ge=0, description="fall of the valid attack success against the round's Defender; null: no warning")
    label_valid: float | None = Field(
        0.1, ge=0, description="fall of the share of accepted edits whose right answer the audit finds still right"
    )
    sharpness: float | None = Field(
        0.2, ge=0, description="how much farther from 1 the sharpness ratio goes, blurred or grainy: fall of min(ratio, 1 / ratio)"
    )


class ConditionSettings(Settings):
    """The words of the text conditions (`sparring.evaluation.conditions`).

    Replaced in all but `stopped`: {question}; {option} and {letter} of an option, right or wrong; {own}, the Defender's own reasoning about the plain
    question without its last part.
    """

    caption: str = Field('Caption: the answer to "{question}" is {option}.', description="put on a line of its own before the question")
    caption_hedged: str = Field(
        'Caption: the answer to "{question}" is {option}, but I could be wrong.', description="the same with a doubt in it"
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
        "<think>\nI have finished thinking.\n</think>\n", description="stop-think: a thought that is over before it has begun"
    )


class EvaluationSettings(Settings):
    alarms: AlarmSettings = Field(default_factory=lambda: AlarmSettings())
    audit: CallSettings | None = Field(
        None,
        description="called as f(question, edited_image, **arguments) -> True, False or None: is the right answer still right? Never a reward",
    )
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of paired differences, clustered by image")
    batch: int = Field(64, ge=1)
    conditions: ConditionSettings = Field(
        default_factory=lambda: ConditionSettings(),
        description="misleading and helpful words beside the picture, as `sparring probe` puts them; no part of a run",
    )


class PgdSettings(Settings):
    """A gradient attack on pixels (`sparring.attackers.rivals.pgd`)."""

    eps: float = Field(8.0, ge=1, le=255, description="budget: the most that a channel of a pixel may change, in grey levels of 255")
    steps: int = Field(20, ge=1, description="gradient steps")
    step: float | None = Field(None, gt=0, description="grey levels of one step; null: 2.5 eps / steps")
    restarts: int = Field(1, ge=1, description="attacks from different starts, of which the best is kept; they are in memory together")
    random_start: bool = Field(True, description="start at a random place inside the budget instead of at the clean picture")
    goal: Literal["right", "wrong"] = Field(
        "right", description="lower the probability of the right answer, or raise that of a wrong option drawn at random"
    )


class PasteSettings(Settings):
    """Static distractors (`sparring.attackers.rivals.paste`)."""

    mode: Literal["add", "insert"] = Field("add", description="paste onto free space, or beside the picture on a widened canvas")
    folder: str | None = Field(None, description="folder of RGBA cut-outs, each file named after its object; null: the bundled sprites")
    size: float = Field(0.3, gt=0, le=1, description="longer side of the cut-out, as a share of the picture's shorter side")


class KindSettings(Settings):
    """How an edit's kind is told (`sparring.judging.kinds`)."""

    threshold: float = Field(14.0, gt=0, description="grey levels from which a place of the smoothed difference map has changed")
    smooth: float = Field(0.016, ge=0, description="sigma of that smoothing, as a share of the picture's shorter side")
    join: float = Field(0.016, ge=0, description="gaps up to twice this share of the shorter side are closed within a changed region")
    smallest: float = Field(0.006, gt=0, lt=1, description="changed regions of less than this share of the picture are left out")
    stands_out: float = Field(
        1.5, ge=1, description="how much more an unnamed change must differ from its surroundings on one side than on the other to count"
    )
    object_prompt: str = Field(
        'What object is in the middle of this picture? Answer with its colour and its name, or with "nothing" if there is only background.',
        description="asked of a judge model beside a cut-out of every changed region, before and after",
    )
    margin: float = Field(0.25, ge=0, description="share of a region's size that is cut out around it for the judge model")


class PainterSettings(Settings):
    """What paints a part of a picture (`sparring.forge.painters`)."""

    model: str = Field(
        "paste",
        description='a folder or hub id of an inpainting or fill model (FLUX.1-Fill, Qwen-Image, FLUX.2-klein); or without a model: "paste" (or paste:FOLDER) '
        'lays a cut-out into the box, "edges" draws the picture\'s border outwards',
    )
    transformer: str | None = Field(
        None,
        description="folder or hub id of a transformer that takes the place of the model's own, such as OneReward's; REPO:SUBFOLDER too",
    )
    dtype: DType = "float32"
    steps: int = Field(28, ge=1, description="denoising steps")
    guidance_scale: float = Field(
        1.0, ge=0, description="embedded guidance (FLUX.1-Fill: 30 is usual) or true classifier-free guidance (the others; 1 is off)"
    )
    prompt: str = Field("{object}", description="what the model is told; {object} is replaced by what is to be painted")
    crop: CropSettings = Field(default_factory=lambda: CropSettings(), description="where in a large picture the model works")


class ExtendSettings(Settings):
    """Stage 1: the picture becomes a part of a larger scene."""

    painter: PainterSettings | None = Field(None, description="null leaves the stage out")
    scene: str = Field(
        "a busy, realistic scene that goes on naturally around the picture", description="the {object} of the painter's prompt"
    )
    share: tuple[float, float] = Field(
        (0.02, 0.1), description="the part of the extended picture that the core objects take up together is drawn between these"
    )
    growth: float = Field(3.0, gt=1, description="the extended picture is at most so many times as wide, and as high, as the picture")
    directions: tuple[Literal["horizontal", "vertical", "both"], ...] = Field(
        ("horizontal", "vertical", "both"), min_length=1, description="where room is made; one of them is drawn"
    )
    least: float = Field(1.15, ge=1, description="a picture that would grow by less than this factor in area is left as it is")
    checks: tuple[Literal["composition", "duplication", "realism"], ...] = Field(
        ("composition", "duplication", "realism"), description="what the judge model is asked about the extended picture; all must pass"
    )


class ProposeSettings(Settings):
    """Stage 2, proposals: boxes and what is to be put there."""

    model: str | None = Field(
        None, description="a VLM (folder, hub id or endpoint); null: free places, and objects drawn from `categories`"
    )
    dtype: DType = "float32"
    endpoint: EndpointSettings = Field(
        default_factory=lambda: EndpointSettings(), description="where model is an endpoint: how it is asked"
    )
    temperature: float = Field(0.8, ge=0, description="of the VLM's proposals")
    max_new_tokens: int = Field(400, ge=1)
    number: int = Field(1, ge=1, description="distractors put into one picture")
    categories: tuple[str, ...] | None = Field(
        None, description="objects to draw from without a VLM; null: the painter's cut-outs, or everyday things"
    )
    size: tuple[float, float] = Field(
        (0.25, 0.4), description="longer side of a box without a VLM, as a share of the picture's shorter side, is drawn between these"
    )
    locate: bool = Field(False, description="a VLM finds the boxes of the targets of questions that have none")


class BoxSettings(Settings):
    """Which boxes of distractors are let through."""

    smallest: float = Field(0.002, ge=0, lt=1, description="least area, as a share of the picture")
    largest: float = Field(0.35, gt=0, le=1, description="largest area, as a share of the picture")
    aspect: float = Field(4.0, ge=1, description="at most so many times as long as wide")
    side: int = Field(6, ge=1, description="least side in pixels")
    margin: int = Field(1, ge=0, description="pixels kept free between a box and a target or another box")
    margin_share: float = Field(0.0, ge=0, lt=1, description="... and so large a share of the picture's shorter side, if that is more")


class PanelSettings(Settings):
    """How the judge model is asked for verdicts."""

    votes: int = Field(
        3, ge=1, description="times that every question is put; more than half must pass. A reply that is no verdict has failed"
    )
    temperature: float = Field(0.7, ge=0)
    max_new_tokens: int = Field(200, ge=1)
    templates: str | None = Field(None, description="folder of templates that take the place of the bundled ones of the same name")
    prompts: bool = Field(False, description="ask also whether a proposed object would leave the right answer right")


class ForgeStages(Settings):
    """The bootstrap dataset (AOT-SFT): from picture questions to pairs of a clean and an adversarial picture (`sparring forge`)."""

    extend: ExtendSettings = Field(default_factory=lambda: ExtendSettings())
    propose: ProposeSettings = Field(default_factory=lambda: ProposeSettings())
    box: BoxSettings = Field(default_factory=lambda: BoxSettings())
    implant: Literal["painter", "editor"] = Field(
        "painter",
        description="who puts distractors in: a painter fills the proposed box; or the attacker's editor edits the picture by its instruction, the regions that it "
        "changed are the boxes, and all around them is put back",
    )
    painter: PainterSettings = Field(default_factory=lambda: PainterSettings(), description="of the distractors")
    panel: PanelSettings = Field(default_factory=lambda: PanelSettings())
    attempts: int = Field(2, ge=1, description="candidates tried of every question, until one is effective")
    right_when_clean: bool = Field(True, description="go on only with questions that the Defender gets right on the clean picture")
    effective: float = Field(
        1.0,
        gt=0,
        le=1,
        description="a candidate is effective when at least this share of the judge's trials fail in a row from the first on",
    )
    splits: tuple[float, float] = Field((0.05, 0.05), description="shares of the source pictures in the validation and test splits")


class ForgeSettings(Settings):
    """One forge: the stages and the players that work in them."""

    data: str = Field(description="file or folder of the source")
    format: Literal["auto", "jsonl", "huggingface", "vlmevalkit", "vstar", "vstar-relations", "coco"] = Field(
        "auto", description="kind of the source; auto: told by what lies there"
    )
    images: str | None = Field(
        None, description="folder of the pictures, for sources that name them from elsewhere (COCO, GQA); null: beside the file"
    )
    licence: str | None = Field(None, description="licence of the source pictures and questions, for the dataset's card")
    limit: int | None = Field(None, ge=1, description="records at most, the source's first; null: all")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(
        1, ge=1, description="CPU threads of torch in every worker; the last digits of what models compute may depend on it"
    )
    batch: int = Field(32, ge=1, description="records worked on together; what a kill can cost each worker")
    stages: ForgeStages
    attacker: AttackerSettings
    defender: DefenderSettings
    judge: JudgeSettings = Field(default_factory=lambda: JudgeSettings())


class Recipe(Settings):
    """One experiment."""

    name: str
    description: str = ""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(
        None,
        description="CPU threads of torch, and processes of the audit; null leaves torch's choice, and audits in the run's own process",
    )
    data: DataSettings
    attacker: AttackerSettings
    defender: DefenderSettings
    judge: JudgeSettings = Field(default_factory=lambda: JudgeSettings())
    bootstrap: BootstrapSettings = Field(default_factory=lambda: BootstrapSettings())
    forge: ForgeStages = Field(default_factory=lambda: ForgeStages(), description="stages of `sparring forge`; a run does not use them")
    selfplay: SelfplaySettings = Field(default_factory=lambda: SelfplaySettings())
    evaluation: EvaluationSettings = Field(default_factory=lambda: EvaluationSettings())


class SftSettings(Settings):
    """Supervised fine-tuning of a Defender, without any game."""

    data: str = Field(description="JSONL file of questions; `reasoning`, where a record has it, is learned too")
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

    data: str = Field(description="JSONL file of questions")
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


class EvalSettings(Settings):
    """One evaluation: a benchmark's questions, asked of a model and scored."""

    suite: str = Field(description="name of the benchmark")
    data: str = Field(description="its file or folder")
    images: str | None = Field(None, description="folder of pictures that the data names by path; null: the data's own folder")
    profile: Literal["sparring", "official", "vlmevalkit", "lmms-eval", "aot-strict"] = Field(
        "sparring", description="scoring profile that is quoted; the results hold every profile that knows the benchmark"
    )
    prompt: Literal["boxed", "direct", "vlmevalkit"] = Field(
        "boxed",
        description="how questions are put: with the Defender's own prompt and a box, for a bare letter or word, or as VLMEvalKit puts them",
    )
    shuffle: bool | None = Field(
        None, description="put options in an order that follows from seed and id; null: as the benchmark wants it (all but HR-Bench)"
    )
    trials: int = Field(1, ge=1, description="times that a question is asked, until the first miss; 3 is usual with aot-strict")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    limit: int | None = Field(None, ge=1, description="questions at most, drawn by the seed; null: all")
    seed: int = 0
    batch: int = Field(8, ge=1, description="questions in one batch of a model on this machine")
    revision: str | None = Field(
        None, description="of an endpoint: a name for the weights that it serves, so that other weights under its name are asked anew"
    )
    thumbnails: int = Field(2000, ge=0, description="pictures of which a small copy is kept for the report")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; null leaves torch's choice")
    defender: DefenderSettings = Field(
        description="model: a folder, hub id or endpoint. Of the rest counts what an answer needs: prompt, max_new_tokens, pixel limits, endpoint"
    )


class ProbeSettings(Settings):
    """One or several Defenders, put to attacks on pictures and on text, without training any of them."""

    data: str = Field(description="JSONL file of questions")
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
    adapt_data: str | None = Field(None, description="JSONL file of questions that it trains on; null: a half of `data`, by picture")
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
