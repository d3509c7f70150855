"""What lies on a GPU, as functions of shapes and of how a player is trained.

State of a weight that is trained, in bytes: itself and its gradient in its dtype, AdamW's two moments in
float32, and for one of 16 bits a copy in float32 that AdamW works on, with a gradient of its own while a step
is taken. FSDP2 divides all of these, and a frozen base's weights, by the number of GPUs, and brings two
blocks together at a time.

Activations: what autograd keeps of a block for every token, as bytes for each unit of its widths. Those of
language models follow from the layers' code (a norm in 16 bits keeps a copy in 32, a gated feed-forward part
keeps four inner states, queries, keys, values and the attention's output once each); those of editors were
measured with `torch.autograd.graph.saved_tensors_hooks` (torch 2.13, diffusers 0.42). The tests measure both
again, and the whole of an update by torch's own allocator. With checkpointing a block keeps its input, and
one block at a time all the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sparring.plan.shapes import Blocks, EditorShape, VlmShape

Strategy = Literal["data_parallel", "fsdp2"]
TEXT_TOKENS = 128
"""Of a question with its options, with what a template puts around it."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a player is trained on so many GPUs. size: bytes of a weight in its dtype."""

    size: int
    lora: int | None
    """The LoRA's rank; None where all weights are trained."""
    checkpointing: bool
    gpus: int = 1
    strategy: Strategy = "data_parallel"

    @property
    def parts(self) -> int:
        """Into how many parts weights are divided."""
        return self.gpus if self.strategy == "fsdp2" else 1


@dataclass(frozen=True, slots=True)
class Load:
    """Bytes on one GPU, by part."""

    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __add__(self, other: Load) -> Load:
        names = {**self.parts, **other.parts}
        return Load({name: self.parts.get(name, 0.0) + other.parts.get(name, 0.0) for name in names})


def frozen(parameters: float, size: int) -> Load:
    """Weights that nobody trains, whole on every GPU."""
    return Load({"weights": parameters * size})


def state(parameters: float, size: int, parts: int = 1) -> Load:
    """A trained weight's own bytes, its gradient's and the optimiser's."""
    copy = 0 if size == 4 else 4
    return Load(
        {
            "weights": parameters * size / parts,
            "gradients": parameters * size / parts,
            "optimiser": parameters * (8 + copy) / parts,
        }
    )


def step_transient(parameters: float, size: int, parts: int = 1) -> Load:
    """What exists beside the state only while AdamW takes its step: gradients in float32."""
    return Load({"optimiser": parameters * (0 if size == 4 else 4) / parts})


def base(parameters: float, blocks: int, how: Training) -> Load:
    """A frozen base, divided where the strategy says so, with two of its blocks together."""
    if how.parts == 1:
        return frozen(parameters, how.size)
    return Load({"weights": parameters * how.size * (1 / how.parts + 2 / max(2, blocks))})


# bytes for each unit of (width, inner width): (16 bits, LoRA) -> ...
EDITOR_BLOCKS: dict[str, dict[tuple[bool, bool], tuple[int, int]]] = {
    "flux2": {
        (False, False): (68, 16),
        (False, True): (40, 12),
        (True, False): (42, 8),
        (True, True): (36, 6),
    },
    "flux2_single": {
        (False, False): (52, 16),
        (False, True): (36, 16),
        (True, False): (38, 8),
        (True, True): (30, 10),
    },
    # the inner width is four times the width, and counted with it
    "qwen_image": {
        (False, False): (100, 0),
        (False, True): (56, 0),
        (True, False): (58, 0),
        (True, True): (48, 0),
    },
    "flux": {(False, False): (100, 0), (False, True): (56, 0), (True, False): (58, 0), (True, True): (44, 0)},
    "flux_single": {
        (False, False): (84, 0),
        (False, True): (48, 0),
        (True, False): (50, 0),
        (True, True): (38, 0),
    },
}
EDITOR_ADAPTED = {"flux2": 4, "qwen_image": 4, "flux": 4, "flux2_single": 2, "flux_single": 3}
TEXT_ADAPTED, VISION_ADAPTED = 7, 5
"""Layers of a block that a LoRA adapts."""


def kept_by_token(blocks: Blocks, how: Training, *, dense_mask: bool = False) -> float:
    """Bytes that autograd keeps of a token in one block, without checkpointing.

    dense_mask: attention by a mask that is written out, as on a CPU, where keys and values are repeated for
    every head.
    """
    half, adapted = how.size == 2, how.lora is not None
    small = 12 * blocks.heads + 16 if blocks.kind in EDITOR_BLOCKS else 4 * blocks.heads + 8
    if blocks.kind in EDITOR_BLOCKS:
        wide, inner = EDITOR_BLOCKS[blocks.kind][half, adapted]
        lora = 4 * EDITOR_ADAPTED[blocks.kind] * (how.lora or 0)
        return wide * blocks.width + inner * blocks.inner + lora + small
    # two norms; without a weight to train, what it multiplies is not kept
    norms = (12 if adapted else 16) if half else 4 * (4 if adapted else 6)
    keys = blocks.query if dense_mask else blocks.keys
    attention = how.size * (2 * blocks.query + 2 * keys)
    if blocks.kind == "vision":
        attention += 2 * blocks.width * how.size  # values are a part of one fused projection
    layers = TEXT_ADAPTED if blocks.kind == "text" else VISION_ADAPTED
    lora = layers * (how.lora or 0) * how.size
    return norms * blocks.width + attention + how.size * 4 * blocks.inner + lora + small


def _kept(blocks: Blocks, tokens: float, how: Training, *, dense_mask: bool = False) -> tuple[float, float]:
    """Bytes of all blocks before the backward pass, and of the one that it computes again, with the gradients
    of its inner states.
    """
    whole = tokens * kept_by_token(blocks, how, dense_mask=dense_mask)
    if not how.checkpointing:
        return whole * blocks.count, 0.0
    gradients = tokens * how.size * (3 * blocks.inner + 2 * blocks.width)
    return tokens * blocks.width * how.size * blocks.count, whole + gradients


def editor_activations(shape: EditorShape, how: Training, rows: int, pixels: int, *, guided: bool) -> float:
    """Of a micro-batch of so many edits; guided: with classifier-free guidance, which is differentiated
    through both passes.
    """
    tokens = float(rows * shape.tokens(pixels)) * (2 if guided else 1)
    kept = [_kept(blocks, tokens, how) for blocks in shape.blocks]
    again = max(again for _, again in kept) / (2 if guided else 1)
    return sum(stored for stored, _ in kept) + again


@dataclass(frozen=True, slots=True)
class Answers:
    """A micro-batch of a Defender: so many answers of so many tokens to so many questions, about pictures of
    so many pixels.
    """

    count: int
    questions: int
    tokens: int
    pixels: int
    prompt: int = TEXT_TOKENS

    def prompt_tokens(self, shape: VlmShape) -> int:
        """Of one question with its picture."""
        return self.prompt + shape.visual_tokens(self.pixels)

    def all_tokens(self, shape: VlmShape) -> int:
        """Of prompts, each once, and answers."""
        return self.questions * self.prompt_tokens(shape) + self.count * self.tokens


def vlm_activations(
    shape: VlmShape, how: Training, answers: Answers, *, train_vision: bool, dense_mask: bool = False
) -> float:
    """Of a micro-batch. Log-probabilities are taken in float32 over the whole vocabulary: three tensors of
    that size are alive at once.
    """
    tokens = answers.all_tokens(shape)
    stored, again = _kept(shape.text, tokens, how, dense_mask=dense_mask)
    logits = 12.0 * (answers.questions + answers.count * answers.tokens) * shape.vocabulary
    mask = float(how.size) * tokens**2 / answers.questions if dense_mask else 0.0
    if train_vision:
        patches = answers.questions * shape.visual_tokens(answers.pixels) * shape.patches
        seen, seen_again = _kept(shape.vision, patches, how)
        stored, again = stored + seen, max(again, seen_again)
    return stored + mask + max(logits, again)


def key_value_cache(shape: VlmShape, size: int, answers: Answers) -> float:
    """Keys and values of answers that are being sampled, and of their prompts."""
    return 2.0 * shape.text.count * shape.text.keys * size * answers.all_tokens(shape)


def answering(shape: VlmShape, size: int, answers: Answers) -> Load:
    """What a frozen model needs to answer so many questions at once: the cache, and a block's states of all
    prompts together.
    """
    prompts = answers.questions * answers.prompt_tokens(shape)
    passing = prompts * (4.0 * shape.text.width + 3.0 * shape.text.inner) * size
    return Load({"cache": key_value_cache(shape, size, answers) + passing})


def peak(*stages: Load) -> Load:
    """The stage of a phase that needs most."""
    return max(stages, key=lambda load: load.total)
