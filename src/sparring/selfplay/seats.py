"""Those who learn in a game, as a phase's crew has them: each in a process of its own, or all in this one.

What they learn from comes with every call, and what is to be written goes back with its result: the ledger
is not theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from PIL.Image import Image

from sparring.attackers.rollout import sample_seed
from sparring.attackers.trainer import AttackerTrainer
from sparring.data.records import Answer, VisualQuestion
from sparring.defenders.rollout import Item, Metrics, Rollout
from sparring.defenders.sft import SftTrainer
from sparring.defenders.trainer import DefenderTrainer
from sparring.defenders.weights import move_towards_base
from sparring.engine.crew import Luggage, landing
from sparring.engine.ranks import Ranks
from sparring.judging.hearing import Heard
from sparring.models.vlms.server import RolloutServer
from sparring.selfplay.drift import Drift, drift_on
from sparring.selfplay.game import Table
from sparring.selfplay.league import League, save_attacker
from sparring.selfplay.turns import Faced, FrozenOpponent, attacker_after, defender_after


@contextmanager
def thread_beside() -> Iterator[Executor]:
    """A thread that does one thing after the other. At the block's end, also by an error or a signal, what it
    has begun is waited for, and what it has not begun is left.
    """
    threads = ThreadPoolExecutor(1)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


class Learner:
    """What both players' seats can do."""

    trainer: AttackerTrainer | DefenderTrainer

    def save(self, folder: Path) -> None:
        """See the trainers' `save`."""
        self.trainer.save(folder)

    def load(self, place: Path | Luggage) -> None:
        """Read what `save` wrote."""
        with landing(place) as folder:
            self.trainer.load(folder)


class AttackerSeat(Learner):
    """The Attacker of a round, with the Defenders that it faces."""

    def __init__(
        self, table: Table, stage: str, number: int, clean: Mapping[int, Mapping[str, Answer]]
    ) -> None:
        """clean: of each Defender's number, what it answers to clean pictures, by question."""
        self.table, self.number, self.seed = table, number, table.seed(stage)
        settings = table.recipe.attacker
        ranks = Ranks.here(sharded=table.recipe.engine.sharded("attacker"))
        editor = table.league.attacker(attacker_after(number - 1), keep=False)
        rate = settings.learning_rate * settings.round_decay ** (number - 1)
        self.trainer: AttackerTrainer = AttackerTrainer(
            editor, settings.model_copy(update={"learning_rate": rate}), self.seed, ranks
        )
        self.opponents = {n: FrozenOpponent(table, stage, n, own, ranks) for n, own in clean.items()}
        self.overlap = table.recipe.engine.attacker.overlap
        # What stands in one stream of a GPU waits for what was put there before it.
        self._stream = torch.cuda.Stream() if self.overlap and editor.device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())  # weights are still being loaded there

    def update(
        self, step: int, pairing: Mapping[int, Sequence[VisualQuestion]], images: Sequence[Image]
    ) -> tuple[dict[str, float], list[Faced]]:
        """One update of the Attacker; its metrics, and what became of this process's share of the edits.

        pairing: the update's questions by the number of the Defender that they are put to; images: their
        clean pictures, in that order.
        """
        chosen, faced = [question for own in pairing.values() for question in own], list[Faced]()
        facing = [n for n, asked in pairing.items() for _ in asked]
        share, heard = self.trainer.ranks.share(len(chosen)), list[Future[dict[int, Heard]]]()

        def seed_of(question: VisualQuestion, sample: int) -> int:
            return sample_seed(self.seed, step, question.id, sample)

        def hear(n: int, edits: Mapping[int, Sequence[Image]]) -> dict[int, Heard]:
            asked, shown = [chosen[place] for place in edits], [images[place] for place in edits]
            with torch.cuda.stream(self._stream):
                found = self.opponents[n].hear(asked, shown, list(edits.values()), step)
            return dict(zip(edits, found, strict=True))

        def made(places: list[int], edits: list[list[Image]]) -> None:
            for n in pairing if self.overlap else ():
                own = {place: made for place, made in zip(places, edits, strict=True) if facing[place] == n}
                heard.append(beside.submit(hear, n, own))

        def reward(edits: list[list[Image]]) -> list[list[float]]:
            start, said = 0, {place: one for future in heard for place, one in future.result().items()}
            for n, asked in pairing.items():
                first, last = max(start, share.start), min(start := start + len(asked), share.stop)
                own = slice(first, max(first, last))  # all processes judge for all Defenders, if only nothing
                part = edits[first - share.start : own.stop - share.start]
                places = range(own.start, own.stop)
                if not self.overlap:
                    said |= hear(n, dict(zip(places, part, strict=True)))
                faced.append(
                    self.opponents[n].face(
                        f"round{self.number}",
                        chosen[own],
                        images[own],
                        part,
                        [said[place] for place in places],
                        seed_of=seed_of,
                    )
                )
            return [[verdict.reward for verdict in own] for one in faced for own in one.verdicts]

        with thread_beside() as beside:
            return self.trainer.update(chosen, images, reward, step, made), faced

    def refused(self) -> dict[int, dict[str, str]]:
        """Of each Defender, the questions that it has refused here, and why."""
        return {n: opponent.judge.refused for n, opponent in self.opponents.items()}

    def drift(
        self, questions: Sequence[VisualQuestion], cleans: Sequence[Image], seeds: Sequence[int]
    ) -> Drift:
        """How far the Attacker has gone (`selfplay.drift`)."""
        return drift_on(self.table, self.trainer.editor, questions, cleans, seeds)

    def settle(self) -> int | None:
        """See `AttackerTrainer.settle`."""
        return self.trainer.settle()

    def write(self, folder: Path) -> None:
        """Write the Attacker as it is kept."""
        save_attacker(self.trainer.editor, folder)


def is_step_distilled(seat: AttackerSeat) -> bool:
    """Was the Attacker's editor distilled to few steps?"""
    return seat.trainer.editor.step_distilled


def adapters_before(league: League, number: int) -> list[Path]:
    """The LoRAs by which servers learn what the Defender learned in the rounds before that one; nothing where
    no server samples, or all weights are trained.
    """
    settings = league.recipe.defender
    if settings.rollout_server is None or settings.lora is None:
        return []
    return [league.defender_folder(defender_after(before)) / "adapter" for before in range(1, number)]


class DefenderSeat(Learner):
    """The Defender of a round."""

    def __init__(self, table: Table, stage: str, number: int, served: Path) -> None:
        """served: where weights are written for servers that sample, unless the settings name a folder."""
        self.table, self.number = table, number
        settings, league = table.recipe.defender, table.league
        league.rest_attacker()
        vlm, seed = league.defender_to_train(defender_after(number - 1)), table.seed(stage)
        ranks = Ranks.here(sharded=table.recipe.engine.sharded("defender"))
        server = (
            RolloutServer(
                settings.rollout_server,
                served,
                min_pixels=settings.min_pixels,
                max_pixels=settings.max_pixels,
                cache=league.answers,
                earlier=adapters_before(league, number),
            )
            if settings.rollout_server
            else None
        )
        self.rollout = Rollout()
        self.trainer: DefenderTrainer = (
            SftTrainer(vlm, settings, seed, ranks=ranks)
            if settings.algorithm.type == "sft"
            else DefenderTrainer(
                vlm, settings, seed, judge=league.reasoning_judge(), ranks=ranks, server=server
            )
        )

    def sample(self, step: int, batches: Sequence[Sequence[Item]]) -> bool:
        """See `DefenderTrainer.sample`."""
        return self.trainer.sample(self.rollout, batches, step)

    def learn(self, step: int) -> tuple[Metrics, list[Answer]]:
        """The rest of an update; its metrics and all answers that it sampled, told by the first process."""
        rollout, self.rollout = self.rollout, Rollout()
        metrics = self.trainer.learn(rollout, step)
        if self.trainer.ranks.number:
            return metrics, []
        name = defender_after(self.number)
        return metrics, [replace(sampled.answer, defender=name) for sampled in self.trainer.sampled]

    def imitate(self, step: int, batch: Sequence[Item]) -> Metrics:
        """See `SftTrainer.imitate`."""
        assert isinstance(self.trainer, SftTrainer)
        return self.trainer.imitate(batch, step)

    def settle(self) -> None:
        """After the last update: see `DefenderTrainer.settle`; after the last round, part of the way back to
        the base Defender.
        """
        self.trainer.settle()
        recipe, league = self.table.recipe, self.table.league
        share = recipe.defender.final_interpolation
        if self.number == recipe.selfplay.rounds and share < 1:
            move_towards_base(self.trainer.vlm, league.defender_to_train(defender_after(0)), share)

    def write(self, folder: Path) -> None:
        """Write the Defender as it is kept, after its last update."""
        self.trainer.vlm.save(folder)
        if self.trainer.server is not None:
            self.trainer.server.forget()
