"""Has an Attacker, while it trains, left what its editor can make? Measured on held-out pictures, which no
reward pays for.

The yardstick is the editor's autoencoder. Edits that are much sharper or more blurred than what its round
trip makes of the clean pictures are grain or wash. Latents that decoding and encoding does not lead back to
lie off what pictures are encoded to, where nobody knows what the decoder makes. Whatever the algorithm and
its reward, such a training is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.attackers.crops import crops_of, cut_all
from sparring.attackers.rollout import by_size, roll_out, to_pictures
from sparring.config import AttackerSettings, DriftSettings
from sparring.data.errors import TrainingError
from sparring.data.pixels import sharpness_ratio
from sparring.data.records import VisualQuestion
from sparring.data.words import plural
from sparring.engine.files import write_json
from sparring.engine.stages import Stage
from sparring.models.editors import FlowEditor
from sparring.selfplay.game import Game, Table

SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class Drift:
    """How far edits have gone from what the autoencoder makes of clean pictures; both are ratios of medians
    over pictures.

    sharpness: of the edits over that of the clean pictures' round trips, near 1 as a rule. round_trip: root
    mean square change of an edit's latents by decoding and encoding, over the standard deviation of a clean
    picture's latents.
    """

    sharpness: float
    round_trip: float


def measure_drift(
    editor: FlowEditor,
    cuts: Sequence[Image],
    instructions: Sequence[str],
    seeds: Sequence[int],
    settings: AttackerSettings,
) -> Drift:
    """The drift of a deterministic edit of every picture; these are what the editor works at, of
    any sizes.
    """
    sharp, sharp_clean, moved, spread = (list[float]() for _ in range(4))
    for places in by_size(cuts):
        for start in range(0, len(places), settings.micro_batch):
            part = places[start : start + settings.micro_batch]
            cleans = [cuts[place] for place in part]
            texts, own_seeds = [instructions[place] for place in part], [seeds[place] for place in part]
            conditions = editor.encode(cleans, texts, guidance_scale=settings.guidance_scale)
            rows = torch.arange(len(part))
            made = roll_out(editor, conditions, rows, own_seeds, steps=settings.evaluation_steps)
            clean_BTC = editor.clean_latents(cleans, conditions)
            again = to_pictures(editor.decode(clean_BTC, conditions))
            sharp += map(sharpness_ratio, cleans, made.edits)
            sharp_clean += map(sharpness_ratio, cleans, again)
            moved += _distances(made.final_BTC, editor.clean_latents(made.edits, conditions))
            spread += clean_BTC.flatten(1).std(1).tolist()
    farther = max(median(moved), SMALLEST) / max(median(spread), SMALLEST)
    return Drift(median(sharp) / median(sharp_clean), farther)


def _distances(one_BTC: Tensor, other_BTC: Tensor) -> list[float]:
    distances: list[float] = ((one_BTC - other_BTC) ** 2).flatten(1).mean(1).sqrt().tolist()
    return distances


def beyond(drift: Drift, start: Drift, bounds: DriftSettings) -> str | None:
    """In words, what is beyond its bound, compared with the Attacker at the start; None where nothing is."""
    sharper, farther = drift.sharpness / start.sharpness, drift.round_trip / start.round_trip
    said = []
    if bounds.sharpness is not None and max(sharper, 1 / sharper) > bounds.sharpness:
        said.append(
            f"are {sharper:.3f} times as sharp as those of the Attacker at the start "
            f"(bound: {bounds.sharpness:g}, either way; evaluation.drift.sharpness)"
        )
    if bounds.round_trip is not None and farther > bounds.round_trip:
        said.append(
            f"have latents that the editor's round trip changes {farther:.2f} times as much as it did at the "
            f"start (bound: {bounds.round_trip:g}; evaluation.drift.round_trip)"
        )
    return " and ".join(said) or None


def drift_questions(game: Game) -> tuple[list[VisualQuestion], list[int]]:
    """The held-out questions whose pictures an Attacker edits for it, and the edits' seeds."""
    questions = game.held_out[: game.recipe.evaluation.drift.items]
    return questions, [game.seed("evaluation", question.id) for question in questions]


def drift_on(
    table: Table,
    editor: FlowEditor,
    questions: Sequence[VisualQuestion],
    cleans: Sequence[Image],
    seeds: Sequence[int],
) -> Drift:
    """How far an editor has gone, on these questions' pictures."""
    settings = table.recipe.attacker
    cuts = cut_all(cleans, crops_of(questions, cleans, settings.crop, editor.multiple))
    instructions = [table.instruction(question) for question in questions]
    return measure_drift(editor, cuts, instructions, seeds, settings)


class DriftWatch:
    """Watches the Attacker of one phase while it trains. Make it before the training begins. measure: its
    drift as it is.

    What it is compared with is the game's first Attacker, measured once and kept in `round0/drift.json`.
    """

    def __init__(self, game: Game, stage: Stage, measure: Callable[[], Drift]) -> None:
        self.game, self.stage, self._measure = game, stage, measure
        bounds = game.recipe.evaluation.drift
        bounded = bounds.sharpness is not None or bounds.round_trip is not None
        self.watching = bounded and game.recipe.attacker.steps > 0
        kept = game.out / "round0" / "drift.json"
        if self.watching and not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, asdict(self._measure()))
        if self.watching:
            self.start = Drift(**json.loads(kept.read_text(encoding="utf-8")))

    def look(self, updates: int) -> None:
        """Measure the Attacker after so many updates, and say it.

        Raises TrainingError where it has drifted; what is saved stays.
        """
        if not self.watching:
            return
        drift, name = self._measure(), self.stage.name
        self.game.screen.say(
            f"{name}: held-out edits after {plural(updates, 'update')}: sharpness {drift.sharpness:.2f}, "
            f"round trip {drift.round_trip:.2f}; at the start {self.start.sharpness:.2f} and "
            f"{self.start.round_trip:.2f}"
        )
        if reason := beyond(drift, self.start, self.game.recipe.evaluation.drift):
            raise TrainingError(
                f"{name} is stopped after {plural(updates, 'update')}: the edits of held-out pictures "
                f"{reason}. The Attacker has left what its editor can make, whatever its reward says. Its "
                f"last saved state is kept in {self.stage.folder}. Begin anew with a lower "
                f"attacker.learning_rate or with attacker.kl_weight (0.04 for flow_grpo); for diffusion_nft "
                f"and awm, with an editor that is not step-distilled. A run with the bound set to null goes "
                f"on all the same."
            )
