"""The whole game.

Two players take turns (METHOD section 1): the Attacker learns to fool the frozen Defender with edited
pictures, its edits are checked and become a curriculum, and the Defender learns from that. Every call below
is a stage, or a few: what an earlier process has finished is not done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sparring.asking.conditions import require_reasonings
from sparring.asking.refusals import taken, takes_of
from sparring.config import Recipe
from sparring.data.records import VisualQuestion
from sparring.data.words import plural
from sparring.engine.crew import Engine
from sparring.engine.device import begin_computing
from sparring.engine.folder import run_folder
from sparring.engine.ledger import Ledger
from sparring.engine.pool import WorkersLostError
from sparring.engine.questions import Sides, load_questions
from sparring.engine.screen import Screen
from sparring.engine.trackers import Trackers, require_trackers
from sparring.judging.queried import unguarded
from sparring.judging.validity import Auditor
from sparring.models.vlms.base import require_vlm
from sparring.recipes.check import require_playable
from sparring.selfplay.bootstrap import bootstrap
from sparring.selfplay.game import Game
from sparring.selfplay.heldout import evaluate
from sparring.selfplay.league import League
from sparring.selfplay.phases import train_attacker, train_defender, write_curriculum
from sparring.selfplay.summary import doubts_of, summarise
from sparring.selfplay.track import track_held_out, track_summary, track_updates
from sparring.selfplay.turns import require_skill
from sparring.selfplay.watch import watch


def run_game(
    recipe: Recipe, out: Path, screen: Screen | None = None, *, sides: Sides | None = None
) -> dict[str, Any]:
    """Play a recipe's game in a folder, from the start or from where it was cut off; writes and returns
    `out/summary.json`.

    sides: the questions of the recipe's files, where they are read already.

    Errors: DataError and RecipeError before any training, ModelError where a player cannot be loaded,
    TrainingError where training cannot go on or where the Defender only guesses, RunError if the folder is
    in use or holds another recipe's run.
    """
    with open_game(recipe, out, screen or Screen(), sides) as game:
        while True:
            try:
                return play(game)
            except WorkersLostError as error:
                begin_anew(game, error)


def play(game: Game) -> dict[str, Any]:
    """All that is not done yet; gives the summary."""
    track_updates(game)
    require_skill(game)
    bootstrap(game)
    track_held_out(game, 0, evaluate(game, 0))
    for number in range(1, game.recipe.selfplay.rounds + 1):
        play_round(game, number)
    summary = summarise(game)
    track_summary(game, summary)
    for text in doubts_of(summary):  # what stages had to say was said when they ended
        game.screen.warn(text)
    return summary


def begin_anew(game: Game, error: WorkersLostError) -> None:
    """Count that a stage's workers were lost; it goes on as after a kill. Raises the error where the stage
    was lost as often as it may.
    """
    stage = game.ledger.running()
    again = game.ledger.count_restart(stage)
    if again > game.recipe.engine.restarts:
        raise error
    game.screen.warn(
        f"{stage}: {error}. It goes on from its last saved state ({again} of {game.recipe.engine.restarts})"
    )


def play_round(game: Game, number: int) -> None:
    """One round: the Attacker learns to fool the frozen Defender, then the Defender learns from what survives
    the checks.
    """
    train_attacker(game, number)
    write_curriculum(game, number)
    train_defender(game, number)
    payoff = evaluate(game, number)
    watch(game, number, payoff)
    track_held_out(game, number, payoff)


@contextmanager
def open_game(recipe: Recipe, out: Path, screen: Screen, sides: Sides | None = None) -> Iterator[Game]:
    """A recipe's game in a folder that is this process's alone."""
    require_playable(recipe)
    require_trackers(recipe)
    for judge in (recipe.judge.model, recipe.defender.consistency.model):
        require_vlm(judge)  # the latter is asked only when the first Defender trains
    device = begin_computing(recipe.device, recipe.threads)
    with (
        run_folder(recipe, out) as folder,
        closing(Ledger(folder)) as ledger,
        closing(Auditor(recipe.evaluation.audit, recipe.threads or 1)) as auditor,
        closing(Engine(recipe.engine, device, screen.warn)) as engine,
        closing(Trackers(recipe, folder, screen.warn)) as trackers,
    ):
        takes = takes_of(recipe.defender)

        def keep(side: list[VisualQuestion]) -> list[VisualQuestion]:
            return side if takes is None else taken(takes, recipe.defender, side, screen)

        measured = recipe.evaluation.questions
        train, held_out = load_questions(recipe, folder, ledger, screen, sides, keep=keep, measured=measured)
        screen.say(
            f"{recipe.name}, seed {recipe.seed}: {plural(len(train), 'training question')}, {len(held_out)} "
            f"held out, on {device}, in {folder}"
        )
        require_reasonings(train, recipe.defender)
        if bare := unguarded(recipe, train):
            screen.warn(bare)
        league = League(recipe, folder, device)
        yield Game(
            *(recipe, league, auditor, screen.warn, folder, ledger, screen, engine),
            *(train, held_out, trackers),
        )
