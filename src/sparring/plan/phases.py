"""What each phase of a recipe puts on one GPU, at its stage that needs most.

A process holds what `selfplay.league` keeps: the Defender and the judge model beside an Attacker that
trains, no Attacker beside a Defender that trains, and there the judge only where one process does all.
Replies are taken as long as the recipe lets them be, and pictures as large as they are said to be, else a
megapixel at most (`make.PIXELS`), of which each player is given what the recipe lets it; so these are upper
bounds for such pictures, but for fragmentation (the difference between the 80e9 bytes that are counted as
80 GB and what such a GPU has) and for a VAE's own states, which are there when nothing is kept for a backward
pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparring.config import FlowGRPOSettings, ForwardProcessSettings, Recipe
from sparring.plan.memory import (
    Answers,
    Load,
    Strategy,
    Training,
    answering,
    base,
    editor_activations,
    frozen,
    key_value_cache,
    peak,
    state,
    step_transient,
    vlm_activations,
)
from sparring.plan.models import BYTES, ModelPlan
from sparring.plan.shapes import Blocks, EditorShape, VlmShape

LIBRARIES = Load({"libraries": 1e9})
"""Python, torch's kernels and a device's context."""
COUNT_TOKENS = 8
LONGEST_SEARCH = 1024


@dataclass(frozen=True, slots=True)
class Setup:
    """The GPUs, how each player is trained on them, the pixels of a picture, and whether attention masks are
    written out, as on a CPU. own: GPUs of the phases of `engine` that have other numbers than `gpus`.
    """

    pixels: int
    gpus: int = 1
    attacker: Strategy = "data_parallel"
    defender: Strategy = "data_parallel"
    dense_mask: bool = False
    own: Mapping[str, int] = field(default_factory=dict)

    def gpus_of(self, phase: str) -> int:
        """GPUs of attacker, defender or play."""
        return self.own.get(phase, self.gpus)

    def edited(self, recipe: Recipe) -> int:
        """Pixels of a picture that the editor works on at once."""
        return min(self.pixels, recipe.attacker.crop.max_area)

    def shown(self, recipe: Recipe) -> int:
        """Pixels of a picture that the Defender is shown."""
        return min(self.pixels, recipe.defender.max_pixels or self.pixels)


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase and its load. unknown: players whose shape is not known, so that the load lacks what they keep
    and cache.
    """

    name: str
    load: Load
    unknown: tuple[str, ...] = ()


def phases(
    recipe: Recipe, models: Mapping[str, ModelPlan], forging: Sequence[ModelPlan], setup: Setup
) -> list[Phase]:
    """Every phase, in the order of a run; none where the size of a model is unknown."""
    if any(model.parameters is None for model in (*models.values(), *forging)):
        return []
    if recipe.attacker.lora and models["attacker"].lora is None:
        return []
    room = _Room(recipe, models, setup)
    found = []
    if forging:
        painters = sum((_weights(model) for model in forging), Load())
        found.append(Phase("pairs are forged", room.playing() + painters, room.unknown("defender", "judge")))
    if recipe.bootstrap.questions and recipe.bootstrap.steps:
        alone = _Room(recipe, models, replace(setup, gpus=1, own={}))  # one process does it
        found.append(Phase("editor is fine-tuned", alone.tuning(), room.unknown("attacker")))
    if recipe.attacker.steps:
        found.append(Phase("Attacker trains", room.attacker_trains(), room.unknown()))
    found.append(Phase("frozen players play", room.playing(), room.unknown("defender", "judge")))
    if recipe.defender.steps and not room.defender_is_fixed:
        found.append(Phase("Defender trains", room.defender_trains(), room.unknown("defender")))
    return found


def saved_states(recipe: Recipe, models: Mapping[str, ModelPlan]) -> dict[str, float]:
    """Bytes of the state of each player's training as it is saved, all processes' parts together: weights,
    AdamW's copies and moments, and other copies of the weights. Of players that train and whose size is
    known.
    """
    room, found = _Room(recipe, models, Setup(0)), {}
    attacker, defender = recipe.attacker, recipe.defender
    if attacker.steps and (trained := room.adapted()[0]):
        found["attacker"] = _lasting(trained, room.adapted()[1], room.copies())
    if defender.steps and not room.defender_is_fixed and models["defender"].parameters:
        found["defender"] = _lasting(room.defender_trained(), BYTES[defender.dtype])
    return found


def _lasting(trained: float, size: int, copies: int = 0) -> float:
    """Bytes of trained weights without their gradients."""
    load = state(trained, size)
    return load.total - load.parts["gradients"] + copies * trained * size


def smallest(
    recipe: Recipe, models: Mapping[str, ModelPlan], forging: Sequence[ModelPlan], setup: Setup, memory: float
) -> int | None:
    """The smallest number of GPUs of so many bytes on which every phase fits; None where none does."""
    for gpus in range(1, LONGEST_SEARCH + 1):
        found = phases(recipe, models, forging, replace(setup, gpus=gpus, own={}))
        if found and all(phase.load.total <= memory for phase in found):
            return gpus
        if "fsdp2" not in (setup.attacker, setup.defender) and gpus >= recipe.attacker.questions_per_step:
            break  # more GPUs take no more off each other
    return None


def _weights(model: ModelPlan) -> Load:
    return frozen(model.parameters or 0, BYTES[model.dtype])


def lora_parameters(blocks: Blocks, rank: int) -> int:
    """Of adapters on every linear layer of a language model's, or its tower's, blocks."""
    width, query, keys, inner = blocks.width, blocks.query, blocks.keys, blocks.inner
    if blocks.kind == "vision":
        attention = width + query + 2 * keys + query + width
    else:
        attention = 2 * (width + query) + 2 * (width + keys)
    return blocks.count * rank * (attention + (3 if blocks.gated else 2) * (width + inner))


class _Room:
    """The loads of one recipe on one setup."""

    def __init__(self, recipe: Recipe, models: Mapping[str, ModelPlan], setup: Setup) -> None:
        self.recipe, self.models, self.setup = recipe, models, setup
        shape = models["attacker"].shape
        self.editor = shape if isinstance(shape, EditorShape) else None
        self.defender_is_fixed = models["defender"].where == "behind an endpoint"
        attacker = recipe.attacker
        rank = attacker.lora.rank if attacker.lora else None
        self.how = Training(
            BYTES[attacker.dtype],
            rank,
            attacker.gradient_checkpointing,
            setup.gpus_of("attacker"),
            setup.attacker,
        )

    def unknown(self, *names: str) -> tuple[str, ...]:
        """Those players, or all, whose shape is not known."""
        return tuple(
            name
            for name, model in self.models.items()
            if (not names or name in names) and model.shape is None and model.parameters
        )

    def _vlm(self, name: str) -> VlmShape | None:
        shape = self.models[name].shape if name in self.models else None
        return shape if isinstance(shape, VlmShape) else None

    # ---- frozen players

    def _beside(self, *names: str) -> Load:
        return sum((_weights(self.models[name]) for name in names if name in self.models), Load())

    def _answers(self) -> Load:
        """The larger of what Defender and judge need to answer."""
        defender, judge = self.recipe.defender, self.recipe.judge
        shown, longest = self.setup.shown(self.recipe), defender.max_new_tokens
        asked = {
            "defender": (defender.micro_batch, longest, BYTES[defender.dtype], shown),
            "judge": (judge.batch, COUNT_TOKENS, BYTES[judge.dtype], self.setup.pixels),
        }
        loads = [Load()]
        for name, (count, tokens, size, pixels) in asked.items():
            shape = self._vlm(name)
            if shape is not None:
                loads.append(answering(shape, size, Answers(count, count, tokens, pixels)))
        return peak(*loads)

    def playing(self) -> Load:
        """All players frozen. With offload those who answer make room for the editor, and it for them;
        whoever rested is back before the others leave.
        """
        others = self._beside("defender", "judge")
        editor = Load({"weights": _transformer(self.models["attacker"])})
        encoders = frozen(self._encoders(), self.how.size)
        if self.recipe.attacker.offload:
            turns = peak(editor + encoders, editor + others, others + self._answers())
            return LIBRARIES + turns
        return LIBRARIES + editor + encoders + others + self._answers()

    def _blocks(self) -> int:
        """Of the editor's transformer."""
        return sum(own.count for own in self.editor.blocks) if self.editor else 1

    def _encoders(self) -> int:
        """Parameters of the editor's text encoders and VAE that are there at once."""
        parts = self.models["attacker"].parts
        texts = sum(size for part, size in parts.items() if part.startswith("text_encoder"))
        rest = sum(size for part, size in parts.items() if part != "transformer")
        return max(texts, parts.get("vae", 0)) if self.recipe.attacker.offload else rest

    # ---- the Attacker

    def adapted(self) -> tuple[int, int]:
        """The editor's trained weights, and the bytes of one."""
        model = self.models["attacker"]
        if self.recipe.attacker.lora:
            return model.lora or 0, 4
        return model.parts.get("transformer", 0), self.how.size

    def copies(self) -> int:
        """Of these weights, that last from update to update."""
        settings = self.recipe.attacker
        old = 1 if isinstance(settings.algorithm, ForwardProcessSettings) else 0
        reference = 1 if settings.kl_weight and not settings.lora else 0
        return old + reference + (settings.keep_best + 1 if settings.keep_best else 0)

    def _editor_state(self) -> Load:
        """The transformer, and of its trained weights all that lasts from update to update."""
        how, whole = self.how, self.models["attacker"].parts.get("transformer", 0)
        trained, size = self.adapted()
        load = state(trained, size, how.parts)
        load += Load({"weights": self.copies() * trained * size / how.parts})
        if self.recipe.attacker.lora:
            return load + base(whole, self._blocks(), how)
        return load + Load({"weights": _gathered(whole, self._blocks(), how)})

    def tuning(self) -> Load:
        """Of the bootstrap's fine-tuning: pairs are encoded, and then learned from. A run that goes on has
        its optimiser by then.
        """
        editor = self._editor_state()
        encodes = _without_gradients(editor, editor.parts["gradients"]) + frozen(
            self._encoders(), self.how.size
        )
        learns = self.editor_learns(self.recipe.bootstrap.batch, guided=False)
        return LIBRARIES + peak(learns, encodes)

    def editor_learns(self, batch: int, *, guided: bool) -> Load:
        """While gradients of a micro-batch are computed, of so many edits that each GPU has at most."""
        settings = self.recipe.attacker
        load = self._editor_state()
        if not settings.offload:
            load += frozen(self._encoders(), self.how.size)
        if self.editor is not None:
            rows = max(1, min(settings.micro_batch, batch))
            kept = editor_activations(
                self.editor, self.how, rows, self.setup.edited(self.recipe), guided=guided
            )
            load += Load({"activations": kept})
        return load

    def edits(self) -> int:
        """Edits of one update that a GPU makes."""
        settings = self.recipe.attacker
        return -(-settings.questions_per_step // self.how.gpus) * settings.group_size

    def _states(self) -> Load:
        """What roll-outs keep of an update's edits: the states around the steps that are learned from."""
        settings, algorithm = self.recipe.attacker, self.recipe.attacker.algorithm
        if self.editor is None:
            return Load()
        each = self.editor.picture_tokens(self.setup.edited(self.recipe)) * self.editor.channels
        bytes_each = 4 * each
        if isinstance(algorithm, FlowGRPOSettings):
            window = algorithm.window.size or settings.rollout_steps - 1
            bytes_each += (window + 1) * each * BYTES[algorithm.state_dtype]
        return Load({"cache": float(self.edits() * bytes_each)})

    def attacker_trains(self) -> Load:
        """Edits, answers about them, and updates."""
        settings = self.recipe.attacker
        past = self.recipe.selfplay.rounds - 1 if settings.past_share else 0
        others = LIBRARIES + self._beside("judge", *("defender",) * (1 + past)) + self._states()
        guided = settings.guidance_scale > 1
        learns = others + self.editor_learns(self.edits(), guided=guided)
        edits = others + self._editor_state() + frozen(self._encoders(), self.how.size)
        steps = others + self._editor_state() + step_transient(*self.adapted(), self.how.parts)
        answers = others + self._editor_state() + self._answers()
        if not settings.offload or self.recipe.engine.attacker.overlap:
            answers = edits + self._answers()
        elif self.how.parts == 1:  # a divided one stays where it is
            answers += Load({"weights": -_transformer(self.models["attacker"])})
        return peak(learns, edits, answers, steps)

    # ---- the Defender

    def defender_trained(self) -> float:
        """The Defender's trained weights."""
        settings, shape = self.recipe.defender, self._vlm("defender")
        parameters = self.models["defender"].parameters or 0
        if settings.lora is None:
            tower = shape.vision.count * shape.vision.weights if shape else 0
            return float(parameters - (0 if settings.train_vision else tower))
        if shape is None:
            return 0.02 * parameters
        towers = [shape.text, *([shape.vision] if settings.train_vision else [])]
        return float(sum(lora_parameters(own, settings.lora.rank) for own in towers))

    def defender_trains(self) -> Load:
        """Replies, and updates."""
        settings, setup, model = self.recipe.defender, self.setup, self.models["defender"]
        shape, size, parameters = self._vlm("defender"), BYTES[settings.dtype], model.parameters or 0
        rank, gpus = settings.lora.rank if settings.lora else None, setup.gpus_of("defender")
        how = Training(size, rank, settings.gradient_checkpointing, gpus, setup.defender)
        # Several processes are begun anew for the phase; one alone keeps the judge that it has loaded.
        others = LIBRARIES + self._beside("defender.consistency", *(("judge",) if gpus == 1 else ()))
        blocks = shape.text.count + shape.vision.count if shape else 1
        trained = self.defender_trained()
        frozen_base = parameters - (0 if rank is not None else trained)
        held = state(trained, size, how.parts) + base(frozen_base, blocks, how)
        if rank is None and settings.kl_weight:
            held += frozen(parameters, size)
        if settings.interpolation < 1:
            held += Load({"weights": 4 * trained / how.parts})
        held += others
        stages = [held + step_transient(trained, size, how.parts)]
        if settings.rollout_server is None:
            together = Load({"weights": parameters * size * (1 - 1 / how.parts)})
            stages.append(
                held + _without_gradients(together, trained * size / how.parts) + self._samples(size)
            )
        if shape is not None:
            learned = {
                "weights": _gathered(parameters, blocks, how),
                "activations": self._learned(shape, how),
            }
            stages.append(held + Load(learned))
        return peak(*stages)

    def _samples(self, size: int) -> Load:
        """Keys and values of replies that are sampled together, four times as many as are learned from."""
        settings, shape = self.recipe.defender, self._vlm("defender")
        if shape is None:
            return Load()
        questions = max(1, 4 * settings.micro_batch // settings.group_size)
        answers = Answers(
            questions * settings.group_size, questions, settings.max_new_tokens, self.setup.shown(self.recipe)
        )
        return Load({"cache": key_value_cache(shape, size, answers)})

    def _learned(self, shape: VlmShape, how: Training) -> float:
        settings = self.recipe.defender
        questions = max(1, settings.micro_batch // settings.group_size)
        count = min(settings.micro_batch, questions * settings.group_size)
        return vlm_activations(
            shape,
            how,
            Answers(count, questions, settings.max_new_tokens, self.setup.shown(self.recipe)),
            train_vision=settings.train_vision,
            dense_mask=self.setup.dense_mask,
        )


def _gathered(parameters: float, blocks: int, how: Training) -> float:
    """Bytes of the two blocks of a divided model that are together at a time."""
    return 0.0 if how.parts == 1 else 2 * parameters * how.size / max(2, blocks)


def _transformer(model: ModelPlan) -> float:
    return float(model.parts.get("transformer", 0) * BYTES[model.dtype])


def _without_gradients(load: Load, gradients: float) -> Load:
    """The load of a stage that begins after gradients were forgotten."""
    return load + Load({"gradients": -gradients})
