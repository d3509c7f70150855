"""A game under way: its recipe, its folder, its questions, its players; what every stage is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from sparring.config import Phase, Recipe
from sparring.data.records import VisualQuestion
from sparring.engine.crew import Crew, Engine, Luggage, Make, landed, say_to_driver
from sparring.engine.device import begin_computing
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.engine.stages import Stage
from sparring.engine.trackers import Trackers
from sparring.judging.validity import Auditor
from sparring.seeds import derive_seed
from sparring.selfplay.league import League
from sparring.selfplay.utilisation import Utilisation, utilisation_of

Host = TypeVar("Host")


@dataclass
class Table:
    """Where a game is played, in this process or in a worker's: the recipe and the players. tell: what a
    person should know is said to it.
    """

    recipe: Recipe
    league: League
    auditor: Auditor
    tell: Callable[[str], object]

    def seed(self, *where: int | str) -> int:
        """A seed that depends on the run's seed and on the place of use alone."""
        return derive_seed(self.recipe.seed, *where)

    def instruction(self, question: VisualQuestion) -> str:
        """What the Attacker's editor is told."""
        return self.recipe.attacker.instruct(question.question)


@dataclass
class Game(Table):
    """One run. `out` is its folder; `train` and `held_out` never share an image. The engine has the crews
    that compute it. The trackers have been told the updates up to row `told` of the ledger's.
    """

    out: Path
    ledger: Ledger
    screen: Screen
    engine: Engine
    train: list[VisualQuestion]
    held_out: list[VisualQuestion]
    trackers: Trackers
    told: int = 0

    def stage(self, name: str) -> Stage:
        """The stage of that name, its folder below the run's."""
        return Stage(self.out, name, self.ledger)

    @cached_property
    def utilisation(self) -> Utilisation | None:
        """What says how well updates use the devices; None where that is not known."""
        return utilisation_of(self.recipe, self.train)

    @contextmanager
    def crew(
        self,
        phase: Phase,
        host: Callable[..., Host],
        *arguments: Any,
        attackers: Sequence[str] = (),
        defenders: Sequence[str] = (),
        beside: Sequence[Path] = (),
        together: bool = False,
        workers: int = 0,
    ) -> Iterator[Crew[Host]]:
        """A crew whose hosts are host(table, *arguments). attackers, defenders: the players that they need.
        beside: further folders of the game's that they need. workers: how many, if not as many as the recipe
        says.
        """
        folders = [
            *(self.league.attacker_folder(name) for name in attackers),
            *(self.league.defender_folder(name) for name in defenders),
            *beside,
        ]
        make = Make(
            _seat, (self.recipe, self.engine.carried(self.out, folders), host, arguments), together=together
        )
        if phase != "play" and not self.engine.is_here(phase):
            self.league.rest()  # what played in this process may lie on a GPU of theirs
        with self.engine.crew(phase, make, lambda: host(self, *arguments), workers) as crew:
            yield crew


def at_the_table(table: Table) -> Table:
    """The host of frozen players: the table itself."""
    return table


def _seat(
    recipe: Recipe, place: Path | Luggage, host: Callable[..., Host], arguments: tuple[Any, ...]
) -> Host:
    """In a worker: its host, at a table of its own."""
    device = begin_computing(recipe.device, recipe.threads)
    league = League(recipe, landed(place), device)
    return host(Table(recipe, league, Auditor(recipe.evaluation.audit, 1), say_to_driver), *arguments)
