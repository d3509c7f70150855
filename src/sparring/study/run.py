"""A study under way: its cells shared out to worker processes, each going on from where it was cut off."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

from sparring.config import Recipe
from sparring.config.study import CellKind
from sparring.data.errors import SparringError
from sparring.data.records import VisualQuestion
from sparring.data.words import plural
from sparring.engine.files import make_folder, write_json
from sparring.engine.folder import run_folder
from sparring.engine.ledger import Ledger
from sparring.engine.pool import LocalWorker, WorkersLostError, gpus_of
from sparring.engine.screen import Screen, duration, plain_console
from sparring.study.plan import DONE, Cell, Study
from sparring.study.trim import QUESTIONS, drop_stale, note_data, require_own, trim_study


def run_study(
    study: Study, out: Path, workers: int = 1, screen: Screen | None = None, *, trim: bool = False
) -> dict[str, Any]:
    """All cells that are not done yet, in so many processes at a time, then the figures; writes and returns
    `out/study.json`, and writes `out/study.md`. trim: `trim_study` first and after every cell.

    A cell that fails is told and noted, with the probes that need its game, and the others go on; the next
    call tries it again. Arms and seeds may be added to the study and taken away, as far as the cells that
    stay keep their settings: arms that share games share them under the name of the first of them. Errors:
    RunError where the folder is in use, or as of `require_own` and `note_data`.
    """
    screen = screen or Screen()
    with run_folder(study.settings, out, file="study.yaml", grows=True) as folder:
        require_own(study, folder)
        note_data(study, folder)
        drop_stale(study, folder, screen.say)
        failed = Queue(study, folder, workers, screen, trim=trim).play()
        from sparring.study.figures import results_of
        from sparring.study.table import write_study_table

        results = results_of(study, folder, failed)
        write_json(folder / "study.json", results)
        write_study_table(folder / "study.md", results)
        return results


@dataclass(frozen=True)
class Job:
    """A cell under way in a process of its own. place: which of the workers it has taken."""

    cell: Cell
    worker: LocalWorker
    place: int
    began: float


class Queue:
    """What is to be done, what is under way, and what has failed."""

    def __init__(self, study: Study, out: Path, workers: int, screen: Screen, *, trim: bool = False) -> None:
        self.study, self.out, self.workers, self.screen = study, out, workers, screen
        self.trim, self.todo, self.count = trim, study.to_do(out), len(study.cells())
        self.failed: dict[Cell, str] = {}
        self.jobs: dict[Future[str | None], Job] = {}
        self.gpus = _gpus(study.recipes.values()) / workers

    def play(self) -> dict[Cell, str]:
        """Do every cell that can be done; cell -> why it could not."""
        done = self.count - len(self.todo)
        self.screen.say(
            f"{self.study.settings.name}: {done} of {plural(self.count, 'cell')} are done, left: "
            f"{self.left()}; in {self.out}"
        )
        self._trim()
        try:
            while self.todo or self.jobs:
                self._give_up()
                self._begin()
                if not self.jobs:
                    self._give_up_all()
                for future in wait(self.jobs, return_when=FIRST_COMPLETED).done:
                    self._end(self.jobs.pop(future), future)
        finally:
            for job in self.jobs.values():
                job.worker.end()
        return self.failed

    def _give_up(self) -> None:
        """Of cells whose game has failed."""
        for cell in list(self.todo):
            missing = [need for need in cell.needs if need in self.failed]
            if missing:
                self._fail(cell, f"needs the {missing[0]}, which has failed")
                self.todo.remove(cell)

    def _give_up_all(self) -> None:
        """Nothing is under way, and nothing can begin: what a cell needs was done, and has gone meanwhile."""
        for cell in self.todo:
            missing = next(need for need in cell.needs if not need.done(self.out))
            self._fail(cell, f"needs the {missing}, which is not there any more")
        self.todo.clear()

    def _begin(self) -> None:
        """As many cells as there are free workers and games for."""
        taken = {job.place for job in self.jobs.values()}
        places = [place for place in range(self.workers) if place not in taken]
        ready = [cell for cell in self.todo if all(need.done(self.out) for need in cell.needs)]
        for place, cell in zip(places, ready, strict=False):
            self.todo.remove(cell)
            worker = LocalWorker(gpus_of(place, self.workers, self.gpus))
            future = worker.submit(play_cell, self.study, cell, self.out)
            self.jobs[future] = Job(cell, worker, place, time.monotonic())

    def _end(self, job: Job, future: Future[str | None]) -> None:
        try:
            error = future.result()
        except WorkersLostError as lost:
            error = f"{lost} (was there memory enough?)"
        except Exception as other:  # noqa: BLE001  whatever it is, the other cells go on
            error = f"{type(other).__name__}: {other}"
        job.worker.end()
        if error is None and not job.cell.done(self.out):
            error = f"it has ended, but {job.cell.folder(self.out)} lacks what it writes last"
        if error is not None:
            self._fail(job.cell, error)
            return
        self._trim()
        left = len(self.todo) + len(self.jobs)
        self.screen.say(
            f"{job.cell}: done in {duration(time.monotonic() - job.began)}; "
            f"{self.count - left - len(self.failed)} of {plural(self.count, 'cell')}, left: {self.left()}"
        )

    def _trim(self) -> None:
        if self.trim:
            trim_study(self.study, self.out, [job.cell for job in self.jobs.values()])

    def _fail(self, cell: Cell, error: str) -> None:
        self.failed[cell] = error
        self.screen.warn(f"{cell} has failed: {error}")

    def left(self) -> str:
        """The time that is left, in words."""
        spent = {job.cell: time.monotonic() - job.began for job in self.jobs.values()}
        left = dict.fromkeys(self.todo, 0.0) | spent
        took, stated = seconds_of(self.study, self.out), self.study.settings.seconds
        return time_left(took, left, self.workers, stated)


def seconds_of(study: Study, out: Path) -> dict[Cell, float]:
    """What every finished cell took, all its tries together, also edits that are deleted. Raises RunError."""
    found = {}
    for cell in study.cells():
        if (cell.folder(out) / DONE[cell.kind]).is_file():
            file = "results.json" if cell.kind == "probe" else DONE[cell.kind]
            found[cell] = cell.number(out, file, "wall_seconds")
    return found


def expected(
    cell: Cell, took: Mapping[Cell, float], stated: Mapping[CellKind, float] = MappingProxyType({})
) -> float | None:
    """Seconds that a cell should take: the mean of the finished ones of its arm, else of its kind; where
    there are none, what the study's file states for the kind; None where it states nothing.
    """
    alike = {other: seconds for other, seconds in took.items() if other.kind == cell.kind}
    own = [seconds for other, seconds in alike.items() if other.arm == cell.arm]
    return fmean(own or alike.values()) if alike else stated.get(cell.kind)


def time_left(
    took: Mapping[Cell, float],
    spent: Mapping[Cell, float],
    workers: int,
    stated: Mapping[CellKind, float] = MappingProxyType({}),
) -> str:
    """What is left for so many workers, in words, from what finished cells took. spent: cell that is not done
    -> seconds that it has had. stated: as of `expected`.
    """
    if not spent:
        return "nothing"
    told = {cell: expected(cell, took, stated) for cell in spent}
    unknown = sorted({cell.kind for cell, seconds in told.items() if seconds is None})
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        return f"unknown until the first {' and '.join(unknown)} {verb} done"
    rest = [max(0.0, (told[cell] or 0.0) - had) for cell, had in spent.items()]
    return f"some {duration(max(sum(rest) / workers, max(rest)))}"


def _gpus(recipes: Collection[Recipe]) -> int:
    """How many GPUs the workers share out."""
    if all(recipe.device == "cpu" for recipe in recipes):
        return 0
    import torch

    return torch.cuda.device_count()


# ---- inside a worker


def play_cell(study: Study, cell: Cell, out: Path) -> str | None:
    """Do a cell from where it was cut off; why it failed, in words, None where it did not. What it has to say
    is added to `out/logs/KIND-ARM-SEED.txt`.
    """
    log = make_folder(out / "logs") / f"{cell.kind}-{cell.arm}-{cell.seed}.txt"
    with open(log, "a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        screen = Screen(plain_console(file=file))
        try:
            if cell.kind == "game":
                from sparring.selfplay.loop import run_game

                run_game(study.recipe(cell.arm, cell.seed), cell.folder(out), screen)
            elif cell.kind == "edits":
                _edit(study, cell, out, screen)
            else:
                _probe(study, cell, out, screen)
        except Exception as error:  # noqa: BLE001  whatever it is, the other cells go on
            file.write("".join(traceback.format_exception(error)))
            name = "" if isinstance(error, SparringError) else f"{type(error).__name__}: "
            return f"{name}{str(error).rstrip('.')}. Its log: {log}"
    return None


def _probe(study: Study, cell: Cell, out: Path, screen: Screen) -> None:
    from sparring.data.layouts import data_digest
    from sparring.engine.questions import played_sides
    from sparring.probe.questions import Asked
    from sparring.probe.run import run_probe

    edits = study.edits(cell.seed).folder(out)
    train, held_out, read = played_sides(study.recipe(study.settings.baseline, cell.seed), edits)
    digests = {str(questions.path): data_digest(questions.path) for questions in read}
    asked = Asked(held_out, train, digests)
    run_probe(study.probe(cell, out), cell.folder(out), screen, asked=asked, edits=edits)


def _edit(study: Study, cell: Cell, out: Path, screen: Screen) -> None:
    """The questions of a seed, and the edits of them that all its probes share."""
    from sparring.engine.questions import load_questions
    from sparring.probe.edits import make_shared_edits

    def held_out(folder: Path, ledger: Ledger) -> list[VisualQuestion]:
        data = study.recipes[study.settings.baseline].data
        write_json(folder / QUESTIONS, data.model_dump(mode="json"))
        recipe = study.recipe(cell.arm, cell.seed)
        return load_questions(recipe, folder, ledger, screen, kind="making of edits")[1]

    make_shared_edits(study.probe(cell, out), cell.folder(out), held_out, screen)
