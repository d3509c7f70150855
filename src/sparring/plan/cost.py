"""Operations of an update; how long it takes and what a run costs, from a stated utilisation.

Counted are two operations for a weight that a token meets and four for each unit of width and token that it
attends to; a backward pass counts twice the forward pass, once where weights are frozen and only a LoRA
learns, and checkpointing a forward pass more. Pictures and prompts that share a pass are counted once, as
they are computed. Tokens that are sampled one at a time wait for memory, not for arithmetic: they have a
utilisation of their own. What the edits of a group may share (`window.shared_start`) is counted for each.
An update of the Defender is taken to need one batch of prompts, where sampling may take up to
`defender.max_refills`; the forge is taken to need all its attempts, a painter's work left out. Ours;
`benchmarks/gpu.py` measures utilisation, and trackers are told a run's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from sparring.config import AttackerSettings, DefenderSettings, FlowGRPOSettings, Recipe
from sparring.plan.memory import TEXT_TOKENS
from sparring.plan.models import ModelPlan
from sparring.plan.phases import COUNT_TOKENS, Setup
from sparring.plan.shapes import Blocks, EditorShape, VlmShape


@dataclass(frozen=True, slots=True)
class Rates:
    """tflops: of a GPU at its peak, in the players' dtype; utilisation: share of it that passes over many
    tokens reach; sampling: that sampling reaches; reply: tokens of a reply in the mean; price: of a GPU hour.
    """

    tflops: float
    utilisation: float
    sampling: float
    reply: int
    price: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Operations: of passes over many tokens, and of sampling one token at a time."""

    passes: float = 0.0
    sampling: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.passes + other.passes, self.sampling + other.sampling)

    def __mul__(self, times: float) -> Work:
        return Work(self.passes * times, self.sampling * times)

    def seconds(self, rates: Rates, gpus: int, shares: int) -> float:
        """On so many GPUs, of work in so many equal shares: all wait for the one that has most."""
        peak = 1e12 * rates.tflops * shares / ceil(shares / gpus)
        return self.passes / (peak * rates.utilisation) + self.sampling / (peak * rates.sampling)


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of an update of either player, and of the whole run, with its cost where there is a price: of
    as many GPUs as any phase needs, from beginning to end.
    """

    attacker_update: float
    defender_update: float
    run: float
    gpus: int
    price: float | None

    @property
    def cost(self) -> float | None:
        return None if self.price is None else self.run / 3600 * self.gpus * self.price


def forward(blocks: Blocks, tokens: float, context: float) -> float:
    """Operations of a forward pass of so many tokens that each attend to `context` others."""
    return blocks.count * tokens * (2.0 * blocks.weights + 4.0 * blocks.query * context)


def edit_step(shape: EditorShape, pixels: int, *, guided: bool) -> float:
    """Of one denoising step of one edit."""
    tokens = shape.tokens(pixels)
    return sum(forward(own, tokens, tokens) for own in shape.blocks) * (2 if guided else 1)


def see(shape: VlmShape, pixels: int, prompts: float) -> float:
    """Of the vision tower, over so many pictures."""
    patches = shape.visual_tokens(pixels) * shape.patches
    return prompts * forward(shape.vision, patches, patches)


def read(shape: VlmShape, pixels: int, prompts: float) -> float:
    """Of the language model, over so many pictures with their prompts."""
    tokens = shape.visual_tokens(pixels) + TEXT_TOKENS
    return prompts * forward(shape.text, tokens, tokens / 2)


def look(shape: VlmShape, pixels: int, prompts: float) -> float:
    """Of both."""
    return see(shape, pixels, prompts) + read(shape, pixels, prompts)


def reply(shape: VlmShape, pixels: int, tokens: float, replies: float) -> float:
    """Of sampling so many replies of so many tokens, or of one pass over them: with the output head."""
    context = shape.visual_tokens(pixels) + TEXT_TOKENS + tokens / 2
    head = 2.0 * shape.text.width * shape.vocabulary
    return replies * tokens * (forward(shape.text, 1, context) + head)


def attacker_update(
    settings: AttackerSettings, shape: EditorShape, pixels: int, made: float, learned: float, *, again: bool
) -> Work:
    """Of the Attacker's own model in an update: of edits that are made, and of those of them that are learned
    from. again: count too what gradient checkpointing computes again.
    """
    step = edit_step(shape, pixels, guided=settings.guidance_scale > 1)
    both, algorithm = _both_passes(settings, again), settings.algorithm
    if isinstance(algorithm, FlowGRPOSettings):
        count, beside = algorithm.window.size or settings.rollout_steps - 1, 0
    else:
        count, beside = algorithm.forward_timesteps, 1  # the old policy's pass
    beside += bool(settings.kl_weight)  # the reference's
    return Work(step * (made * settings.rollout_steps + learned * count * (both + beside)))


@dataclass(frozen=True, slots=True)
class Replies:
    """Replies of so many tokens in the mean, and the pictures with prompts that they share."""

    prompts: float
    replies: float
    tokens: float


def defender_update(
    settings: DefenderSettings,
    shape: VlmShape,
    pixels: int,
    sampled: Replies | None,
    learned: Replies,
    *,
    again: bool,
) -> Work:
    """Of the Defender's own model in an update: of replies that are sampled, None where others do that, and
    of those that are learned from. again: as above.
    """
    both = _both_passes(settings, again)
    beside = int(bool(settings.kl_weight))
    seen = see(shape, pixels, learned.prompts) * ((both if settings.train_vision else 1) + beside)
    said = reply(shape, pixels, learned.tokens, learned.replies)
    work = Work(seen + (read(shape, pixels, learned.prompts) + said) * (both + beside))
    if sampled is None:
        return work
    shown = look(shape, pixels, sampled.prompts)
    return work + Work(shown, reply(shape, pixels, sampled.tokens, sampled.replies))


def _both_passes(settings: AttackerSettings | DefenderSettings, again: bool) -> float:
    """A pass forward and one back, in passes forward."""
    return 1 + (1 if settings.lora else 2) + (again and settings.gradient_checkpointing)


def times(recipe: Recipe, models: Mapping[str, ModelPlan], setup: Setup, rates: Rates) -> Duration | None:
    """What the updates and the run of a recipe take; None where a player's shape is not known."""
    attacker, defender, judge = recipe.attacker, recipe.defender, recipe.judge
    editor, vlm = models["attacker"].shape, models["defender"].shape
    if not isinstance(editor, EditorShape) or not isinstance(vlm, VlmShape):
        return None
    counter = models["judge"].shape if "judge" in models else None
    length = min(rates.reply, defender.max_new_tokens)
    edited_pixels, shown = setup.edited(recipe), setup.shown(recipe)

    def answers(count: float) -> Work:
        return Work(look(vlm, shown, count), reply(vlm, shown, length, count))

    def counted(count: float) -> Work:
        """By the judge model."""
        if not isinstance(counter, VlmShape):
            return Work()
        return Work(look(counter, setup.pixels, count), reply(counter, setup.pixels, COUNT_TOKENS, count))

    def judged(count: float) -> Work:
        """An edit that passes is asked about up to k times; the judge sees it once."""
        asked = Work(look(vlm, shown, count), reply(vlm, shown, length, count * judge.trials))
        return asked + counted(count)

    edits = attacker.questions_per_step * attacker.group_size
    of_edits = attacker_update(attacker, editor, edited_pixels, edits, edits, again=True) + judged(edits)
    prompts, imitates = defender.prompts_per_step, defender.algorithm.type == "sft"
    learned = Replies(prompts, prompts * (1 if imitates else defender.group_size), length)
    sampled = None if imitates else learned
    of_replies = defender_update(defender, vlm, shown, sampled, learned, again=True)

    guided = attacker.guidance_scale > 1
    step = edit_step(editor, edited_pixels, guided=guided)
    frozen_edit = Work(step * attacker.evaluation_steps)
    rounds, curriculum = recipe.selfplay.rounds, recipe.selfplay.curriculum
    edited = 0 if curriculum.clean_share == 1 else curriculum.questions
    clean = attacker.steps * attacker.questions_per_step + curriculum.questions
    drawn = frozen_edit * edited + judged(edited)
    held_out = min(recipe.data.held_out, recipe.evaluation.questions or recipe.data.held_out)
    players = rounds + 1
    play = (frozen_edit * held_out + judged(held_out)) * players + answers(held_out) * (
        players * (players + 1)
    )
    of_attacker = of_edits.seconds(rates, setup.gpus_of("attacker"), attacker.questions_per_step)
    of_defender = of_replies.seconds(rates, setup.gpus_of("defender"), defender.prompts_per_step)
    run = rounds * (attacker.steps * of_attacker + defender.steps * of_defender)
    run += rounds * drawn.seconds(rates, setup.gpus_of("play"), max(1, edited))
    run += rounds * answers(clean).seconds(rates, setup.gpus_of("play"), max(1, clean))
    run += play.seconds(rates, setup.gpus_of("play"), max(1, held_out))
    if pairs := recipe.bootstrap.questions:
        stages = recipe.bootstrap_stages()
        tried = pairs * stages.attempts
        forged = judged(tried) + counted(pairs)  # clean pictures, once each
        if stages.implant != "painter":
            forged += frozen_edit * tried
        run += forged.seconds(rates, setup.gpus_of("play"), pairs)
        # One process fine-tunes the editor.
        tuned = Work(3 * step * recipe.bootstrap.steps * recipe.bootstrap.batch / (2 if guided else 1))
        run += tuned.seconds(rates, 1, 1)
    return Duration(of_attacker, of_defender, run, setup.gpus, rates.price)
