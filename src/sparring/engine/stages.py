"""Stages: what has been done is never done again, and what was cut off goes on from its last saved state.

A stage is a folder below the run's folder. `done.json`, renamed into place last, says that it is finished
and holds its result. A training stage keeps the state of its trainer in `state/<updates done>`, a folder
renamed into place whole.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sparring.engine.files import write_json
from sparring.engine.ledger import Ledger
from sparring.engine.screen import duration
from sparring.engine.stopping import finished_first, stop_wanted


class Trainer(Protocol):
    """What both players' trainers can do: save and load everything that the next update depends on."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


class Stage:
    """One stage of a run: `name` is its folder below the run's folder and its key in the ledger."""

    def __init__(self, out: Path, name: str, ledger: Ledger) -> None:
        self.name, self.folder, self.ledger = name, out / name, ledger
        self._began = time.monotonic()

    @property
    def done(self) -> bool:
        """The stage has been finished, by this process or by one before it."""
        return (self.folder / "done.json").is_file()

    @property
    def result(self) -> dict[str, Any]:
        """What `finish` was given."""
        value = json.loads((self.folder / "done.json").read_text(encoding="utf-8"))
        assert isinstance(value, dict)
        return value

    def begin(self, *, resumes: bool = False) -> None:
        """Make the folder and note in the ledger that the stage is running. What a cut-off try wrote is
        dropped, unless the stage resumes it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not resumes:
            self.ledger.forget(self.name)
        self.ledger.record_stage(self.name, "running")

    def clear(self) -> None:
        """Remove the folder of a stage that was cut off and cannot be continued."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Mark the stage as done with its result (JSON values), which is given back as a resumed run would
        read it.
        """
        self.ledger.record_stage(self.name, "done", time.monotonic() - self._began, result)
        write_json(self.folder / "done.json", result)
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        return self.result

    def folder_written_whole(self, name: str, write: Callable[[Path], object]) -> Path:
        """A folder inside the stage's that `write` fills and that is there whole or not at all."""
        partial, final = self.folder / f"{name}.partial", self.folder / name
        for folder in (partial, final):
            shutil.rmtree(folder, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        os.replace(partial, final)
        return final

    def save_state(self, trainer: Trainer, updates: int) -> None:
        """Keep the trainer as it is after so many updates; the state before it is dropped once the new one is
        there.
        """
        newest = self.folder_written_whole(f"state/{updates:06d}", trainer.save)
        for folder in newest.parent.iterdir():
            if folder != newest:
                shutil.rmtree(folder)

    def load_state(self, trainer: Trainer) -> int:
        """Bring the trainer to its last saved state; the number of updates that it has done (0: nothing was
        saved).
        """
        saved = sorted(f for f in (self.folder / "state").glob("*") if f.name.isdigit())
        if not saved:
            return 0
        trainer.load(saved[-1])
        return int(saved[-1].name)


def plateaued(rewards: Sequence[float], patience: int | None) -> bool:
    """Has the reward stopped rising? The mean of the last `patience` updates is not above the best mean of as
    many in a row before them.
    """
    if patience is None or len(rewards) < 2 * patience:
        return False
    means = [sum(rewards[i : i + patience]) / patience for i in range(len(rewards) - patience + 1)]
    return means[-1] <= max(means[:-patience])


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many updates a phase has, after how many each a state is saved, and the `plateaued` that ends it
    early.
    """

    steps: int
    checkpoint_every: int
    patience: int | None = None


def train(
    stage: Stage,
    trainer: Trainer,
    update: Callable[[int], dict[str, Any]],
    schedule: Schedule,
    *,
    on_update: Callable[[dict[str, Any]], None],
    on_state: Callable[[int], None] = lambda updates: None,
    say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Do the updates of a phase from its last saved state on; gives the metrics of all of them, those before
    a kill included.

    say: is told, after the first of these updates, how long the others will take.

    `update(step)` does one update and must be a function of the trainer's state and of the step alone. With
    a patience its metrics hold `reward_mean`, but for updates that nobody could reward. `on_state(updates)`
    is called with every state that was saved or has been loaded; what it raises stops the training, which
    that state outlives. A signal that asks the process to end is followed after the update under way, whose
    state is saved whatever the schedule says (`engine.stopping`).
    """
    steps, patience = schedule.steps, schedule.patience
    start = stage.load_state(trainer)
    if start:
        on_state(start)
    stage.ledger.forget(stage.name, start)
    history = stage.ledger.updates(stage.name)
    for metrics in history:
        on_update(metrics)
    for step in range(start, steps):
        if patience is not None and plateaued(
            [own["reward_mean"] for own in history if "reward_mean" in own], patience
        ):
            break
        began = time.monotonic()
        with finished_first():
            metrics = update(step)
            if say is not None and step == start and steps - start > 1:
                seconds = time.monotonic() - began
                say(
                    f"{stage.name}: an update takes {duration(seconds)}, the {steps - start - 1} left some "
                    f"{duration(seconds * (steps - start - 1))}"
                )
            stage.ledger.record_update(stage.name, step, metrics)
            history.append(metrics)
            on_update(metrics)
            due = (step + 1) % schedule.checkpoint_every == 0 and step + 1 < steps
            if due or stop_wanted():
                stage.save_state(trainer, step + 1)
        if due:
            on_state(step + 1)
    return history
