"""A game under way: its recipe, its folder, its questions, its players; what every stage is handed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sparring.config import Recipe
from sparring.data.images import load_image
from sparring.data.records import VisualQuestion
from sparring.engine.screen import Screen
from sparring.rl.seeds import derive_seed
from sparring.selfplay.auditor import Auditor
from sparring.selfplay.league import League
from sparring.selfplay.ledger import Ledger
from sparring.selfplay.stages import Stage


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


def pictures_of(questions: Sequence[VisualQuestion]) -> list[Image.Image]:
    """The questions' clean pictures, each file read once."""
    pictures = {path: load_image(path) for path in {question.image for question in questions}}
    return [pictures[question.image] for question in questions]
