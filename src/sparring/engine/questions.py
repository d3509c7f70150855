"""The questions of a run: read from files or generated, and split into those that are played on and those
that judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from sparring.config import CallSettings, Recipe, SftSettings
from sparring.data.errors import DataError, RecipeError, RunError
from sparring.data.layouts import data_digest
from sparring.data.questions import Questions, read_questions, require_disjoint, split_held_out
from sparring.data.records import VisualQuestion
from sparring.data.words import plural
from sparring.engine.calls import import_call
from sparring.engine.files import unless_refused
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.engine.stages import Stage
from sparring.seeds import derive_seed, shuffled

DATA = "data"
"""The stage, and folder, in which a generator writes, or files are noted."""
PICTURES = "questions"
"""The folder, in a run's, of pictures that data carry inside them."""
Sides = tuple[list[VisualQuestion], list[VisualQuestion], tuple[Questions, ...]]
"""Training questions, held-out questions, the files as they were read."""


def load_questions(
    recipe: Recipe,
    out: Path,
    ledger: Ledger,
    screen: Screen,
    sides: Sides | None = None,
    *,
    keep: Callable[[list[VisualQuestion]], list[VisualQuestion]] | None = None,
    measured: int | None = None,
    kind: str = "game",
) -> tuple[list[VisualQuestion], list[VisualQuestion]]:
    """(training questions, held-out questions); generated files are written once, below `out/data`, and read
    back like anybody's own.

    sides: what `named_sides` gave of the recipe's files, where they are read already. keep: which of a
    side's questions are played. measured: how many of the held-out ones, the first; None: all. kind: of the
    work, in words.

    Errors: DataError for records that do not load; RecipeError where the recipe names neither a file nor a
    generator; RunError where a file that it names is not what the run in `out` began with.
    """
    settings = recipe.data
    if sides is None and settings.path is None:
        if settings.generator is None:
            raise RecipeError(
                "data names no questions: set data.path to a JSONL file, or data.generator to a function "
                "that writes one."
            )
        paths = _generated(settings.generator, recipe.seed, out, ledger, screen)
        with unless_refused(out, PICTURES) as folder:
            sides = read_sides(recipe, *paths, folder)
    train, held_out, read = sides or named_sides(recipe, out)
    if settings.path is not None:
        digests = {str(questions.path): data_digest(questions.path) for questions in read}
        require_same_data(out, ledger, digests, kind)
    for questions in read:
        say_dropped(questions.path, questions.dropped_by_reason(), screen)
    if keep is not None:
        train, held_out = keep(train), keep(held_out)
    held_out = held_out[:measured]
    ledger.record_questions("train", train)
    ledger.record_questions("held_out", held_out)
    return train, held_out


def require_same_data(out: Path, ledger: Ledger, digests: Mapping[str, str], kind: str) -> None:
    """Note the data of a run by their hashes, once. RunError where they are not those that it began with:
    figures of two sets of questions would mix.

    digests: name of the data -> `data_digest`. kind: of the work, in words.
    """
    stage = Stage(out, DATA, ledger)
    if not stage.done:
        stage.begin()
        stage.finish({"sha256": dict(digests)})
        return
    before = stage.result["sha256"]
    if isinstance(before, str):  # a fine-tuning of an earlier version
        before = dict.fromkeys(digests, before)
    require_unchanged(before, digests, kind, out)


def require_unchanged(before: Mapping[str, str], now: Mapping[str, str], kind: str, out: Path) -> None:
    """Raise RunError, naming what has changed, where the data that work began with have other hashes now."""
    changed = [name for name, digest in now.items() if before.get(name) != digest]
    if changed:
        raise RunError(
            f"{', '.join(changed)}: changed since the {kind} in {out} began. Restore it, or begin anew in "
            f"another folder."
        )


def read_drawn(
    path: str | Path,
    *,
    limit: int | None,
    seed: int,
    skip_bad: bool,
    screen: Screen,
    images: str | None = None,
    folder: Path | None = None,
) -> list[VisualQuestion]:
    """The data's questions, or `limit` of them, drawn by the seed and left in the data's order. Raises
    DataError for bad records.

    images, folder: as of `read_questions`.
    """
    found = read_questions(path, skip_bad=skip_bad, images=images, folder=folder)
    say_dropped(found.path, found.dropped_by_reason(), screen)
    chosen = set(shuffled(range(len(found)), seed, "limit")[:limit])
    return [question for place, question in enumerate(found) if place in chosen]


def say_dropped(path: Path, dropped: Mapping[str, int], screen: Screen) -> None:
    """Warn of the bad records that were dropped, if any. dropped: reason -> how many."""
    if dropped:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
        screen.warn(f"{path}: {plural(sum(dropped.values()), 'bad record')} dropped ({reasons})")


def named_sides(recipe: Recipe, out: Path | None = None) -> Sides:
    """The sides of the files that a recipe names. out: the run's folder, where there is to be one. Raises
    DataError as `read_sides` does, and RunError where `out` cannot be a folder."""
    settings = recipe.data
    assert settings.path is not None  # the caller's to know
    paths = Path(settings.path), Path(settings.held_out_path) if settings.held_out_path else None
    if out is None:
        return read_sides(recipe, *paths)
    with unless_refused(out, PICTURES) as folder:
        return read_sides(recipe, *paths, folder)


def read_sides(
    recipe: Recipe, train_path: Path, held_out_path: Path | None, folder: Path | None = None
) -> Sides:
    """(training questions, held-out questions, the files as they were read). Raises DataError for bad
    records, and where a side would be empty.

    folder: where pictures are written that the data carry inside them.
    """
    settings = recipe.data
    paths = [path for path in (train_path, held_out_path) if path is not None]
    images = settings.images if settings.path is not None else None
    read = tuple(
        read_questions(path, skip_bad=settings.skip_bad_records, images=images, folder=folder)
        for path in paths
    )
    if held_out_path is None:
        train, held_out = split_held_out(
            read[0].records, recipe.data.held_out, derive_seed(recipe.seed, "held out")
        )
    else:
        train, held_out = read[0].records, _some(read[1].records, recipe.data.held_out)
        require_disjoint(train, held_out)
    return train, held_out, read


def played_sides(recipe: Recipe, out: Path) -> Sides:
    """The sides of the game in a folder, which has been begun there. Errors as of `named_sides`."""
    if recipe.data.path is not None:
        return named_sides(recipe, out)
    files = json.loads((out / DATA / "done.json").read_text(encoding="utf-8"))["files"]
    train, *held_out = (out / DATA / name for name in files)
    with unless_refused(out, PICTURES) as folder:
        return read_sides(recipe, train, held_out[0] if held_out else None, folder)


def _some(questions: list[VisualQuestion], count: int) -> list[VisualQuestion]:
    """`count` of them, in their order, chosen alike for every run's seed: runs are compared on the same
    questions."""
    chosen = set(shuffled(range(len(questions)), 0, "held out")[:count])
    return [question for index, question in enumerate(questions) if index in chosen]


def _generated(
    settings: CallSettings, seed: int, out: Path, ledger: Ledger, screen: Screen
) -> tuple[Path, Path | None]:
    """The files of a generator: it is called as f(folder, seed=..., **arguments) and names one file, or a
    training and a held-out file."""
    stage = Stage(out, DATA, ledger)
    if not stage.done:
        generator = import_call(settings, "data.generator")
        stage.clear()
        stage.begin()
        screen.say(f"writing questions to {stage.folder}")
        written = generator(stage.folder, seed=seed, **settings.arguments)
        paths = [Path(path) for path in (written if isinstance(written, tuple | list) else (written,))]
        if not 1 <= len(paths) <= 2 or not all(path.resolve().is_relative_to(stage.folder) for path in paths):
            raise DataError(
                f'data.generator "{settings.call}" must return one or two paths of files that it wrote below '
                f"{stage.folder}; it returned {written}."
            )
        stage.finish({"files": [path.resolve().relative_to(stage.folder).as_posix() for path in paths]})
    first, *rest = (stage.folder / name for name in stage.result["files"])
    return first, rest[0] if rest else None


def read_taught(settings: SftSettings, out: Path) -> Questions:
    """The questions of a fine-tuning. Raises DataError for bad records, RunError where `out` cannot be a
    folder."""
    with unless_refused(out, PICTURES) as folder:
        return read_questions(
            settings.data, skip_bad=settings.skip_bad_records, images=settings.images, folder=folder
        )
