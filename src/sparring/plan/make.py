"""The plan of a recipe: data, models, memory of each GPU, time and cost, and what a person should know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparring.asking.conditions import require_reasonings
from sparring.attackers.distillation import distillation_warning
from sparring.config import Recipe
from sparring.data.questions import Questions
from sparring.data.records import VisualQuestion
from sparring.engine.questions import named_sides
from sparring.judging.queried import unguarded
from sparring.plan.cost import Duration, Rates, times
from sparring.plan.models import ModelPlan, find_forging_models, find_models, says_step_distilled
from sparring.plan.phases import Phase, Setup, phases, saved_states, smallest
from sparring.plan.shapes import VlmShape

PIXELS = 1024 * 1024
"""Of a picture where nothing says how large the data's are."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known before a run. `data` is empty where a generator writes it, or where a file is not there
    (`data_note` says which).
    """

    recipe: Recipe
    data: tuple[Questions, ...]
    """The files: one, or one of training and one of held-out questions."""
    data_note: str
    sides: tuple[int, int]
    """Training and held-out questions."""
    models: tuple[ModelPlan, ...]
    setup: Setup
    phases: tuple[Phase, ...]
    """Empty where a model's size is unknown."""
    warnings: tuple[str, ...]
    """What a person should know before the run is started."""
    missing: str | None = None
    """Why a run would stop at once, where its data are not there."""

    def fits(self, memory: float) -> bool:
        """Does every phase fit GPUs of so many bytes?"""
        return bool(self.phases) and all(phase.load.total <= memory for phase in self.phases)

    def smallest(self, memory: float) -> int | None:
        """The smallest number of such GPUs on which it would; None where none does."""
        players, forging = self._models()
        return smallest(self.recipe, players, forging, self.setup, memory)

    def duration(self, rates: Rates) -> Duration | None:
        """How long updates and the run take; None where a player's shape is not known."""
        return times(self.recipe, self._models()[0], self.setup, rates)

    @property
    def saved(self) -> dict[str, float]:
        """Bytes of a saved state of attacker and defender, where they train and their size is known."""
        return saved_states(self.recipe, self._models()[0])

    def _models(self) -> tuple[dict[str, ModelPlan], list[ModelPlan]]:
        forging = [model for model in self.models if model.player.startswith("forge.")]
        return {model.player: model for model in self.models if model not in forging}, forging


def make_plan(recipe: Recipe, setup: Setup | None = None) -> Plan:
    """Find out what the recipe would work on, and what it needs. Raises DataError where a run would, over
    records or their split; a file that is not there is noted.

    setup: its pixels are those of a picture, 0 for what the players are given at most.
    """
    data, note, (train, held_out), missing = _data(recipe)
    players, forging = find_models(recipe), find_forging_models(recipe)
    named = {model.player: model for model in players}
    chosen = setup or Setup(0)
    chosen = replace(chosen, pixels=chosen.pixels or _pixels(recipe, named))
    return Plan(
        recipe,
        data,
        note,
        (len(train), len(held_out)),
        (*players, *forging),
        chosen,
        tuple(phases(recipe, named, forging, chosen)),
        tuple(_warnings(recipe, train)),
        missing,
    )


def _pixels(recipe: Recipe, models: dict[str, ModelPlan]) -> int:
    """Of a picture at most: what the editor works on at once, and what the Defender is shown."""
    shape = models["defender"].shape
    largest = shape.largest if isinstance(shape, VlmShape) else None
    bounds = (PIXELS, recipe.attacker.crop.max_area, recipe.defender.max_pixels, largest)
    return min(bound for bound in bounds if bound is not None)


def _warnings(recipe: Recipe, train: Sequence[VisualQuestion]) -> Iterator[str]:
    attacker, defender = recipe.attacker, recipe.defender
    if bare := unguarded(recipe, train):
        yield bare
    warning = distillation_warning(attacker, step_distilled=says_step_distilled(attacker.model))
    if warning:
        yield warning
    if defender.rollout_server is not None and defender.lora is not None and defender.train_vision:
        yield (
            "defender.train_vision: servers apply no LoRA to a vision tower as a rule (vllm#23796), and the "
            "run stops where they do not. Set it to false, or defender.lora to null."
        )


def _data(
    recipe: Recipe,
) -> tuple[tuple[Questions, ...], str, Sequence[Sequence[VisualQuestion]], str | None]:
    settings = recipe.data
    if settings.path is None:
        assert settings.generator is not None  # checked when the recipe was loaded
        arguments = ", ".join(f"{key}={value}" for key, value in settings.generator.arguments.items())
        return (), f"written when the run starts, by {settings.generator.call}({arguments})", ([], []), None
    for path in (settings.path, settings.held_out_path):
        if path is not None and not Path(path).exists():
            return (), "not there", ([], []), f"{path}: no such file. Name yours with --set data.path=FILE."
    train, held_out, read = named_sides(recipe)
    require_reasonings(train, recipe.defender)
    return (
        read,
        ", ".join(str(questions.path) for questions in read),
        (train, held_out[: recipe.evaluation.questions]),
        None,
    )
