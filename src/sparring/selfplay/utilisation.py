"""Model-flops utilisation of a game's updates: the share of the devices' peak arithmetic that was of use.

As PaLM defines it (arXiv 2204.02311, appendix B): operations that the model needs, per second of the update,
over those that its devices could do; what gradient checkpointing computes again is not needed. Counted are
those of the player that trains alone, its edits or replies and what it learns from them (`plan.cost`), while
the seconds are the whole update's, its opponent and judges included: a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from sparring.config import Phase, Recipe
from sparring.data.images import upright_size
from sparring.data.records import VisualQuestion
from sparring.engine.device import choose_device, peak_tflops
from sparring.plan.cost import Replies, attacker_update, defender_update
from sparring.plan.models import find_model
from sparring.plan.shapes import EditorShape, VlmShape

MEASURED = 256
"""Training pictures whose mean size counts for all."""


@dataclass(frozen=True)
class Utilisation:
    """pixels: of a picture in the mean. peak: FLOP/s of a device. A shape is None where it is not known."""

    recipe: Recipe
    editor: EditorShape | None
    vlm: VlmShape | None
    pixels: float
    peak: float

    def of_attacker(self, edits: float, metrics: Mapping[str, float], seconds: float) -> float | None:
        """Of an update of the Attacker by the metrics that the ledger holds, of so many edits; None where the
        editor's shape is not known.
        """
        if self.editor is None:
            return None
        settings = self.recipe.attacker
        judged = edits - settings.group_size * metrics.get("left_out", 0.0)
        work = attacker_update(
            settings,
            self.editor,
            round(min(self.pixels, settings.crop.max_area)),
            made=edits,
            learned=judged * (1 - metrics.get("dead_groups", 1.0)),  # without any, nothing was judged
            again=False,
        )
        return self._share("attacker", work.passes, seconds)

    def of_defender(self, metrics: Mapping[str, float], seconds: float) -> float | None:
        """Of an update of the Defender, likewise. Replies that servers sample are not these devices' work."""
        if self.vlm is None:
            return None
        settings = self.recipe.defender
        if settings.algorithm.type == "sft":
            prompts = settings.prompts_per_step
            sampled, learned = None, Replies(prompts, prompts, metrics["trained_tokens"] / prompts)
        else:
            tokens, kept = metrics["length_mean"], metrics["kept_groups"]
            asked = metrics["batches"] * settings.prompts_per_step
            sampled = None if settings.rollout_server else Replies(asked, metrics["rollouts"], tokens)
            learned = Replies(kept, kept * settings.group_size, tokens)
        pixels = round(min(self.pixels, settings.max_pixels or self.pixels))
        work = defender_update(settings, self.vlm, pixels, sampled, learned, again=False)
        return self._share("defender", work.passes + work.sampling, seconds)

    def _share(self, phase: Phase, operations: float, seconds: float) -> float:
        engine = self.recipe.engine
        each = engine.gpus_of(phase, "cuda") or 1.0  # a worker without a GPU is a device itself
        return operations / (seconds * self.peak * engine.workers_of(phase) * each)


def utilisation_of(recipe: Recipe, questions: Sequence[VisualQuestion]) -> Utilisation | None:
    """What says the utilisation of a recipe's updates on such questions; None where the peak of its devices
    is not known, or the size of no picture.
    """
    peak = recipe.engine.peak_tflops
    if peak is None and choose_device(recipe.device).type == "cuda":
        peak = peak_tflops(torch.cuda.get_device_name())
    pictures = list(dict.fromkeys(question.image for question in questions))
    # Evenly over all of them: data are often sorted.
    chosen = pictures[:: max(1, len(pictures) // MEASURED)][:MEASURED] if peak else []
    sizes = [width * height for width, height in filter(None, map(upright_size, chosen))]
    if peak is None or not sizes:
        return None
    attacker, defender = recipe.attacker, recipe.defender
    editor = find_model("attacker", attacker.model, attacker.dtype).shape
    vlm = find_model("defender", defender.model, defender.dtype).shape
    return Utilisation(
        recipe,
        editor if isinstance(editor, EditorShape) else None,
        vlm if isinstance(vlm, VlmShape) else None,
        fmean(sizes),
        1e12 * peak,
    )
