"""A game under way: its recipe, its folder, its questions, its players; what every stage is handed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparring.config import Recipe
from sparring.data.records import VisualQuestion
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.engine.stages import Stage
from sparring.judging.auditor import Auditor
from sparring.seeds import derive_seed
from sparring.selfplay.league import League


@dataclass
class Game:
    """One run. `out` is its folder; `train` and `held_out` never share an image."""

    recipe: Recipe
    out: Path
    ledger: Ledger
    screen: Screen
    league: League
    auditor: Auditor
    train: list[VisualQuestion]
    held_out: list[VisualQuestion]

    def stage(self, name: str) -> Stage:
        """The stage of that name, its folder below the run's."""
        return Stage(self.out, name, self.ledger)

    def seed(self, *where: int | str) -> int:
        """A seed that depends on the run's seed and on the place of use alone."""
        return derive_seed(self.recipe.seed, *where)

    def instruction(self, question: VisualQuestion) -> str:
        """What the Attacker's editor is told."""
        return self.recipe.attacker.instruct(question.question)
