"""Two workers against one: an update of the Attacker, one of the Defender, a forge; what the driver itself
takes of them, and the bytes that pass through it. And edits that are judged while others are made, against
edits that are judged afterwards. Bundled players, local workers. One JSON line each.

python benchmarks/engine.py [--updates 3] [--set attacker.group_size=16 ...]

`ratio` is of wall time on the machine as it is, start-up left out. Other work on the same cores disturbs it,
which is why the bar is on `processor_ratio`: the processor time of one worker over that of the busiest of
two, which is what two free cores would gain. `driver_share`: processor time of the driver over the wall time
that two free cores would take. `bytes`: what is pickled for two workers and by them, pictures included.

Judging beside editing is two threads of one process, which take turns in Python's interpreter, so there the
bar is on `ratio`, of the wall time from the first edit to the last verdict; `edit` and `hear` are the
processor time of either thread, and the settings let them cost about the same.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from _defenders import processor_seconds
from rich.console import Console

from sparring.attackers.trainer import AttackerTrainer
from sparring.data.images import pictures_of
from sparring.engine.crew import Crew
from sparring.engine.pool import LocalWorker
from sparring.engine.screen import Screen
from sparring.engine.stages import Stage
from sparring.recipes import load_recipe
from sparring.selfplay.bootstrap import GameSmith, _samples, forge_samples, forge_settings
from sparring.selfplay.curriculum import compose
from sparring.selfplay.game import Game
from sparring.selfplay.loop import open_game
from sparring.selfplay.phases import pair, sample
from sparring.selfplay.seats import AttackerSeat, DefenderSeat
from sparring.selfplay.turns import FrozenOpponent, answers_when_clean, right_when_clean

GAME = (
    "threads=1", "data.generator.arguments={train: 256, held_out: 8}", "data.held_out=8",
    "bootstrap.questions=64", "selfplay.curriculum.clean_share=1", "selfplay.curriculum.questions=64",
    "attacker.past_share=0",
)  # fmt: skip
BARS = {"processor_ratio": 1.6, "driver_share": 0.05}
OVERLAP = (
    "attacker.micro_batch=16",
    "judge.trials=4",
    "judge.trial_temperature=1",
    "judge.frontier_weight=0.5",
)
OVERLAP_BAR = 1.2


def passed(function: Callable[..., Any], sizes: list[int]) -> Callable[..., Any]:
    """`LocalWorker.submit`, which notes how much is pickled on the way there and back."""

    def submit(self: Any, *arguments: Any) -> Any:
        sizes.append(len(pickle.dumps(arguments)))
        future = function(self, *arguments)
        future.add_done_callback(lambda done: sizes.append(len(pickle.dumps(done.result()))))
        return future

    return submit


def measured(crew: Crew[Any], once: Callable[[int], object], rounds: int) -> dict[str, float]:
    """Seconds of a round, after one that does not count: wall, the driver's processor, the busiest worker's
    processor; and bytes of the first one.
    """
    sizes = list[int]()
    with mock.patch.object(LocalWorker, "submit", passed(LocalWorker.submit, sizes)):
        once(0)
    before, own, began = crew.all(processor_seconds), time.process_time(), time.monotonic()
    for number in range(1, rounds + 1):
        once(number)
    wall, own = time.monotonic() - began, time.process_time() - own
    used = [last - first for first, last in zip(before, crew.all(processor_seconds), strict=True)]
    return {
        "wall": wall / rounds,
        "driver": own / rounds,
        "busiest": max(used) / rounds,
        "bytes": float(sum(sizes)),
    }


def attack(game: Game, rounds: int) -> dict[str, float]:
    """Updates of the Attacker, with what the driver writes of them."""
    questions, stage = {0: right_when_clean(game, 0)}, "round1/attacker"
    clean = {0: answers_when_clean(game, 0)}
    with game.crew("attacker", AttackerSeat, stage, 1, clean, together=True) as crew:

        def once(step: int) -> None:
            pairing = pair(questions, 0, game.recipe.attacker, step, game.seed(stage))
            told = crew.all(AttackerSeat.update, step, pairing, pictures_of(pairing[0]))
            for _, faced in told:
                for one in faced:
                    one.record(game.ledger, stage, step)

        return measured(crew, once, rounds)


def defend(game: Game, rounds: int) -> dict[str, float]:
    """Updates of the Defender, on clean pictures."""
    stage, settings = "round1/defender", game.recipe.defender
    curriculum, _ = compose(game.train, [], [], game.recipe.selfplay.curriculum)
    with game.crew("defender", DefenderSeat, stage, 1, Path(), together=True) as crew:
        needed = 1

        def once(step: int) -> None:
            nonlocal needed
            sample(crew, curriculum.stream(game.seed(stage), step), settings.prompts_per_step, step, needed)
            metrics, answers = crew.all(DefenderSeat.learn, step)[0]
            needed = int(metrics["batches"])
            game.ledger.record_answers(stage, step, answers, samples=range(len(answers)))

        return measured(crew, once, rounds)


def forge(game: Game, rounds: int) -> dict[str, float]:
    """Batches of eight questions, as many to a round as keep two workers busy."""
    questions = right_when_clean(game, 0)[:64]
    settings = forge_settings(game)
    with game.crew("play", GameSmith, settings, answers_when_clean(game, 0)) as crew:

        def once(_: int) -> None:
            starts = range(0, len(questions), 8)
            for _ in crew.map(forge_samples, (_samples(questions[i : i + 8], i) for i in starts)):
                pass

        return measured(crew, once, rounds)


def beside(game: Game, rounds: int) -> dict[str, float]:
    """Updates of the Attacker in this process, without what it learns: seconds from the first edit to the
    last verdict, by the clock; of editing and of asking the Defender, by the processor.
    """
    questions, spent = right_when_clean(game, 0), dict.fromkeys(("learn", "edit", "hear"), 0.0)

    def timed(name: str, clock: Callable[[], float], function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            began = clock()
            result = function(*arguments, **options)
            spent[name] += clock() - began
            return result

        return run

    patches = (
        ("learn", time.monotonic, AttackerTrainer, "_learn"),
        ("edit", time.thread_time, AttackerTrainer, "_edit"),
        ("hear", time.thread_time, FrozenOpponent, "hear"),
    )
    with ExitStack() as stack:
        for name, clock, owner, method in patches:
            run = timed(name, clock, getattr(owner, method))
            stack.enter_context(mock.patch.object(owner, method, run))
        stage = "round1/attacker"
        seat = AttackerSeat(game, stage, 1, {0: answers_when_clean(game, 0)})
        for step in range(rounds + 1):
            if step == 1:  # the first one does not count
                spent, began = dict.fromkeys(spent, 0.0), time.monotonic()
            pairing = pair({0: questions}, 0, game.recipe.attacker, step, game.seed(stage))
            seat.update(step, pairing, pictures_of(pairing[0]))
    wall = time.monotonic() - began - spent.pop("learn")
    return {"wall": wall / rounds} | {name: value / rounds for name, value in spent.items()}


def overlapped(changes: list[str], rounds: int) -> bool:
    """Judging beside editing against judging afterwards: says so, and whether the bar is met."""
    figures = {}
    for name, overlap in (("after", False), ("beside", True)):
        with game_of(1, [*OVERLAP, *changes, f"engine.attacker.overlap={overlap}"]) as game:
            figures[name] = beside(game, rounds)
    ratio = figures["after"]["wall"] / figures["beside"]["wall"]
    line = {"benchmark": "engine: edits judged beside editing, against afterwards"} | figures
    met = ratio >= OVERLAP_BAR
    print(
        json.dumps(line | {"ratio": round(ratio, 3), "bars": {"ratio": OVERLAP_BAR}, "met": met}), flush=True
    )
    return met


@contextmanager
def game_of(workers: int, changes: list[str]) -> Iterator[Game]:
    """An arena game that is at its beginning, whose bootstrap Attacker is the editor as it came."""
    recipe = load_recipe("arena", [*GAME, *changes, f"engine.workers={workers}"])
    quiet = Screen(Console(file=io.StringIO()))
    with tempfile.TemporaryDirectory() as folder, open_game(recipe, Path(folder), quiet) as game:
        editor = game.league.attacker("untuned", keep=False)
        assert recipe.attacker.lora is not None
        own = recipe.attacker.lora
        editor.add_lora(own.rank, own.alpha, 0, own.targets)
        Stage(game.out, "round0/bootstrap", game.ledger).folder_written_whole("editor", editor.save_lora)
        yield game


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="A.B=VALUE")
    options = parser.parse_args()
    failed = int(not overlapped(options.changes, options.updates))
    for name, work in (("attacker update", attack), ("defender update", defend), ("forge", forge)):
        figures = {}
        for workers in (1, 2):
            with game_of(workers, options.changes) as game:
                figures[workers] = work(game, options.updates)
        one, two = figures[1], figures[2]
        # Alone, the driver and the worker are one process.
        result: dict[str, Any] = {
            "ratio": one["wall"] / two["wall"],
            "processor_ratio": one["busiest"] / two["busiest"],
            "driver_share": two["driver"] / two["busiest"],
        }
        met = (
            result["processor_ratio"] >= BARS["processor_ratio"]
            and result["driver_share"] <= BARS["driver_share"]
        )
        failed += not met
        line = {"benchmark": f"engine: {name}, two workers against one", "one": one, "two": two}
        print(
            json.dumps(line | {k: round(v, 3) for k, v in result.items()} | {"bars": BARS, "met": met}),
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
