"""What a run tells its trackers, such as TensorBoard, by way of accelerate.

It is told in rows. A row has a key, and its number among the run's rows is its step: one axis for
everything. `OUT/track/rows.sqlite` holds the rows that were told, and under which ids the trackers know the
run, so that a resumed run goes on there and tells nothing twice. A row is noted before it is told: what a
kill leaves between the two is in the ledger alone.

A tracker that fails is named once in a warning and left out until the run is resumed.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml
from PIL.Image import Image

from sparring.config import Recipe
from sparring.data.errors import RecipeError
from sparring.engine.files import open_database

PROJECT = "sparring"
FOLDER = "track"
SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, key TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS ids (tracker TEXT PRIMARY KEY, id TEXT);
"""
MODULES = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}
"""Tracker -> modules that it needs; the extra of this package that brings them has the tracker's name."""
ONLINE = ("online", "shared")
SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""Environment variables that keep the trackers from telling their makers how they are used."""

Cell = str | float | None | Image


@dataclass(frozen=True, slots=True)
class Table:
    """A table to look at; cells may be pictures."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def require_trackers(recipe: Recipe) -> None:
    """Raises RecipeError where a tracker is not installed, or would ask a person for its key."""
    for name in recipe.track:
        if not all(map(_is_installed, MODULES[name])):
            raise RecipeError(f"track: {name} is not installed. Install it: pip install 'sparring[{name}]'")
    if "wandb" in recipe.track and _wandb_mode() in ONLINE and not os.environ.get("WANDB_API_KEY"):
        raise RecipeError(
            f"track: wandb is to be {_wandb_mode()} (WANDB_MODE), and WANDB_API_KEY is not set. Set it, or "
            f"leave WANDB_MODE out: then the run is kept in its folder, for `wandb sync`."
        )


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    # A folder of that name in the working directory, such as `wandb` leaves, has no file to begin with.
    return spec is not None and spec.origin is not None


class Trackers:
    """The trackers of one run; of a recipe that names none, nothing at all."""

    def __init__(self, recipe: Recipe, out: Path, warn: Callable[[str], object]) -> None:
        """out: the run's folder. warn: is told of a tracker that fails. Raises RecipeError as
        `require_trackers` does.
        """
        require_trackers(recipe)
        self.recipe, self.folder, self._warn = recipe, out / FOLDER, warn
        self.name = out.name
        self._kinds: dict[str, _Kind] = {}
        if not recipe.track:
            return
        for variable, value in SILENT.items():
            os.environ.setdefault(variable, value)
        from accelerate import PartialState

        PartialState(cpu=True)  # without it accelerate's own log raises errors
        self.folder.mkdir(parents=True, exist_ok=True)
        self._db = open_database(self.folder / "rows.sqlite", SCHEMA)
        for name in dict.fromkeys(recipe.track):
            self._kinds[name] = KINDS[name]()
            self._attempt(name, lambda kind: kind.begin(self))

    def id_of(self, tracker: str) -> str | None:
        """Under which id the tracker knows the run; None where it does not yet."""
        row = self._db.execute("SELECT id FROM ids WHERE tracker = ?", (tracker,)).fetchone()
        return None if row is None else str(row[0])

    def keep_id(self, tracker: str, value: str) -> None:
        """Note the id of a run that the tracker has begun."""
        with self._db:
            self._db.execute("INSERT INTO ids VALUES (?, ?)", (tracker, value))

    def lacks(self, key: str) -> bool:
        """Is there a tracker, and a row of this key still to be told?"""
        if not self._kinds:
            return False
        return self._db.execute("SELECT 1 FROM rows WHERE key = ?", (key,)).fetchone() is None

    def tell(self, key: str, values: Mapping[str, Any], tables: Sequence[Table] = ()) -> None:
        """Tell all trackers a row, unless it was told before. What is no number is left out of its
        values.
        """
        if not self.lacks(key):
            return
        with self._db:
            step = self._db.execute("INSERT INTO rows (key) VALUES (?)", (key,)).lastrowid
        assert step is not None
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        for name in tuple(self._kinds):
            self._attempt(name, lambda kind: kind.tell(numbers, tables, step))

    def close(self) -> None:
        """Wait until the trackers have everything."""
        for name in tuple(self._kinds):
            self._attempt(name, lambda kind: kind.tracker.finish())
        if self.recipe.track:
            self._db.close()

    def _attempt(self, name: str, act: Callable[[_Kind], object]) -> None:
        try:
            with redirect_stdout(sys.stderr):  # where some of them greet
                act(self._kinds[name])
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on
            del self._kinds[name]
            why = next(iter(str(error).splitlines()), "")[:200]
            self._warn(
                f"track: {name} failed ({type(error).__name__}: {why}). The run goes on without it; its "
                f"ledger has everything"
            )


class _Kind:
    """A tracker of one kind, as accelerate drives it: `tracker` is accelerate's object once it has begun."""

    tracker: Any

    def begin(self, run: Trackers) -> None:
        """Begin a run, or go on with the one whose id is kept."""
        raise NotImplementedError

    def table(self, table: Table, step: int) -> None:
        """Show a table."""
        raise NotImplementedError

    def start(self, tracker: Any) -> None:
        """Start accelerate's tracker: the driver alone has one, so nobody is asked who is the first."""
        self.tracker = tracker
        tracker.main_process_only = False
        tracker.start()

    def tell(self, numbers: Mapping[str, float], tables: Sequence[Table], step: int) -> None:
        """Tell a row."""
        self.tracker.log(dict(numbers), step=step)
        for table in tables:
            self.table(table, step)


class _TensorBoard(_Kind):
    def begin(self, run: Trackers) -> None:
        from accelerate.tracking import TensorBoardTracker

        self.start(TensorBoardTracker("tensorboard", run.folder))
        if run.id_of("tensorboard") is None:
            run.keep_id("tensorboard", "tensorboard")
            text = yaml.safe_dump(run.recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            self.tracker.log({"recipe": indent(text, "    ")}, step=0)  # a block of code in Markdown

    def table(self, table: Table, step: int) -> None:
        """It has no tables: the words become one of Markdown, and the pictures of a row one picture."""
        import numpy as np

        writer = self.tracker.tracker
        for number, row in enumerate(table.rows):
            if pictures := [np.asarray(cell.convert("RGB")) for cell in row if isinstance(cell, Image)]:
                beside = np.concatenate(pictures, axis=1)
                writer.add_image(f"{table.name}/{number}", beside, step, dataformats="HWC")
        words = [place for place, cell in enumerate(table.rows[0]) if not isinstance(cell, Image)]
        lines = [[table.columns[i] for i in words], ["---"] * len(words)]
        lines += [[_plain(row[i]) for i in words] for row in table.rows]
        writer.add_text(table.name, "\n".join(f"| {' | '.join(line)} |" for line in lines), step)
        writer.flush()


class _Wandb(_Kind):
    def begin(self, run: Trackers) -> None:
        import wandb
        from accelerate.tracking import WandBTracker

        self.start(
            WandBTracker(
                os.environ.get("WANDB_PROJECT", PROJECT),
                id=_own_id(run, "wandb"),
                name=run.name,
                dir=str(run.folder),
                mode=_wandb_mode(),
                resume="allow",
                config=run.recipe.model_dump(mode="json"),
                settings=wandb.Settings(console="off", silent=True),
            )
        )

    def table(self, table: Table, step: int) -> None:
        import wandb

        rows = [
            [wandb.Image(cell) if isinstance(cell, Image) else cell for cell in row] for row in table.rows
        ]
        self.tracker.log_table(table.name, list(table.columns), rows, step=step)


class _Trackio(_Kind):
    def begin(self, run: Trackers) -> None:
        from accelerate.tracking import TrackioTracker

        name = f"{run.name}-{_own_id(run, 'trackio')}"
        config = run.recipe.model_dump(mode="json")
        self.start(TrackioTracker(PROJECT, name=name, resume="allow", embed=False, config=config))

    def table(self, table: Table, step: int) -> None:
        import trackio

        rows = [
            [trackio.Image(cell) if isinstance(cell, Image) else _plain(cell) for cell in row]
            for row in table.rows
        ]
        self.tracker.log({table.name: trackio.Table(columns=list(table.columns), data=rows)}, step=step)


class _MLflow(_Kind):
    def begin(self, run: Trackers) -> None:
        import mlflow
        from accelerate.tracking import MLflowTracker

        local = "MLFLOW_TRACKING_URI" not in os.environ
        if local:
            mlflow.set_tracking_uri(f"sqlite:///{run.folder / 'mlflow.db'}")
        kept, place = run.id_of("mlflow"), (run.folder / "mlflow").as_uri() if local else None
        self.start(MLflowTracker(PROJECT, logging_dir=place, run_id=kept, run_name=run.name))
        if kept is None:
            run.keep_id("mlflow", self.tracker.tracker.info.run_id)
            mlflow.log_dict(run.recipe.model_dump(mode="json"), "recipe.json")

    def table(self, table: Table, step: int) -> None:
        import mlflow

        columns = {
            name: [mlflow.Image(row[i]) if isinstance(row[i], Image) else row[i] for row in table.rows]
            for i, name in enumerate(table.columns)
        }
        mlflow.log_table(columns, f"{table.name}/{step}.json")


KINDS: dict[str, type[_Kind]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "trackio": _Trackio,
    "mlflow": _MLflow,
}


def _wandb_mode() -> str:
    return os.environ.get("WANDB_MODE", "offline")


def _own_id(run: Trackers, tracker: str) -> str:
    """An id of ours for a tracker that takes one."""
    if run.id_of(tracker) is None:
        run.keep_id(tracker, secrets.token_hex(4))
    kept = run.id_of(tracker)
    assert kept is not None
    return kept


def _plain(cell: Cell) -> str:
    """What is read as Markdown, such that all of it is plain text: no link, no picture, no markup."""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    text = "" if cell is None else str(cell)
    return "".join(c if c.isalnum() or c == " " else "<br>" if c == "\n" else f"&#{ord(c)};" for c in text)
