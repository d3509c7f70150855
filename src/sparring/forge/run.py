"""A forge, from source to data set: batches in order, by one process or several, each written as it
is done.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from sparring.config import ForgeSettings
from sparring.data.errors import DataError, ModelError, Problem, RecipeError, RunError
from sparring.data.items import Record
from sparring.engine.device import begin_computing
from sparring.engine.files import write_json
from sparring.engine.folder import run_folder
from sparring.engine.pool import in_order
from sparring.engine.screen import Screen
from sparring.forge.funnel import make_funnel
from sparring.forge.ledger import Ledger, Packed, pack
from sparring.forge.publish import content_hash, publish
from sparring.forge.records import Result, Sample, refused
from sparring.forge.smith import Smith
from sparring.forge.sources import Source, open_source

FATAL = (ModelError, RecipeError, RunError)
"""Errors that no other record would be spared: they stop the forge, which can be started again."""


def work(smith: Smith, source: Source, units: Sequence[Record]) -> list[Result]:
    """What became of every unit, in order. Raises only what is fatal."""
    samples: list[Sample] = []
    found: dict[int, Result] = {}
    for unit, read in zip(units, _read(source, units), strict=True):
        if isinstance(read, Sample):
            samples.append(read)
        else:
            found[unit.number] = read if isinstance(read, Result) else refused(read)
    found |= {result.number: result for result in forge(smith, samples)}
    return [found[unit.number] for unit in units]


def forge(smith: Smith, samples: Sequence[Sample]) -> list[Result]:
    """What became of every sample, in order. Raises only what is fatal."""
    try:
        return smith.forge(samples)
    except FATAL:
        raise
    except Exception:  # noqa: BLE001  any error of one record must not cost the others
        return [_alone(smith, sample) for sample in samples]


def _read(source: Source, units: Sequence[Record]) -> list[Sample | list[Problem] | Result]:
    try:
        return list(source.read(units))
    except FATAL:
        raise
    except Exception as error:  # noqa: BLE001
        if len(units) == 1:
            return [_broken(units[0].number, None, "intake", error)]
        return [read for unit in units for read in _read(source, [unit])]


def _alone(smith: Smith, sample: Sample) -> Result:
    try:
        return smith.forge([sample])[0]
    except FATAL:
        raise
    except Exception as error:  # noqa: BLE001
        return _broken(sample.number, sample.question.id, "forge", error)


def _broken(number: int, name: str | None, stage: str, error: Exception) -> Result:
    """The result of a record that raised; the message is the traceback."""
    text = "".join(traceback.format_exception(error))
    return Result(number, name, "broken", stage, type(error).__name__, text)


_at_work: tuple[Smith, Source] | None = None


def run_forge(
    settings: ForgeSettings, out: Path, *, workers: int = 1, screen: Screen | None = None
) -> dict[str, Any]:
    """Forge, from the start or from where an earlier process was stopped; writes `out/dataset`, and
    `out/funnel.json`, which is returned.

    What comes out does not depend on the number of workers. Errors: DataError for a source that cannot be
    opened or holds nothing, ModelError where a player cannot be had, RunError if the folder is in use, holds
    another forge, or if the source has changed.
    """
    screen = screen or Screen()
    source = open_source(settings.data, settings.format, settings.images)
    with (
        run_folder(settings, out, file="forge.yaml", resume="the command that began it") as folder,
        closing(Ledger(folder)) as ledger,
    ):
        ledger.bind(source.fingerprint, settings.data)
        total = sum(1 for _ in islice(source.units(), settings.limit))
        if total == 0:
            raise DataError(f"{settings.data}: there is no record in it.")
        done = ledger.batches
        batches = islice(batched(islice(source.units(), settings.limit), settings.batch), done, None)
        screen.say(f"{total} records, seed {settings.seed}, {workers} worker(s), in {folder}")
        if done * settings.batch < total:
            _work(settings, folder, ledger, batches, workers, screen, total)
        if (counts := ledger.counts())["refused"] == sum(counts.values()):
            first = next(ledger.set_aside("refused"))
            raise DataError(
                f"{settings.data}: none of its {total} records can be used. The first: {first['message']}"
            )
        funnel = make_funnel(settings, ledger, content_hash(ledger, settings))
        publish(folder, settings, ledger, funnel)
        write_json(folder / "funnel.json", funnel)
        return funnel


def _work(
    settings: ForgeSettings,
    folder: Path,
    ledger: Ledger,
    batches: Iterable[list[Record]],
    workers: int,
    screen: Screen,
    total: int,
) -> None:
    with screen.stage("forge", total) as bar:
        bar.advance(sum(ledger.counts().values()), ledger.counts())
        results = in_order(
            forge_batch,
            batches,
            processes=workers,
            begin=begin,
            arguments=(settings, folder / "answers.sqlite"),
        )
        for packed in results:
            ledger.write(packed)
            bar.advance(len(packed), ledger.counts())


def begin(settings: ForgeSettings, answers: Path) -> None:
    """Load the players into this process."""
    global _at_work
    begin_computing(settings.device, settings.threads)
    _at_work = Smith(settings, answers), open_source(settings.data, settings.format, settings.images)
    _at_work[0].load()


def forge_batch(units: list[Record]) -> list[Packed]:
    """What became of a batch, ready to be written."""
    assert _at_work is not None
    smith, source = _at_work
    results = work(smith, source, units)
    smith.forget()
    return [pack(result) for result in results]


def batched(units: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """The units in lists of that length; the last may be shorter."""
    while part := list(islice(units, size)):
        yield part
