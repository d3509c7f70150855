"""A forge, from source to data set: batches in order, by one process or several, each written as it
is done.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from sparring.config import EngineSettings, ForgeSettings
from sparring.data.errors import DataError, Problem
from sparring.data.items import Record
from sparring.data.words import plural
from sparring.engine.crew import Engine, Make
from sparring.engine.device import FATAL, begin_computing, spares_no_other
from sparring.engine.files import write_json
from sparring.engine.folder import run_folder
from sparring.engine.screen import Screen
from sparring.forge.funnel import make_funnel
from sparring.forge.ledger import Ledger, Packed, pack
from sparring.forge.publish import content_hash, publish
from sparring.forge.records import Result, Sample, refused
from sparring.forge.smith import Smith
from sparring.forge.sources import Source, open_source

Read = tuple[int, "Sample | list[Problem] | Result"]
"""A record's number, and what was read of it."""


def work(smith: Smith, batch: Sequence[Read]) -> list[Result]:
    """What became of every record, in order. Raises only what is fatal."""
    samples: list[Sample] = []
    found: dict[int, Result] = {}
    for number, read in batch:
        if isinstance(read, Sample):
            samples.append(read)
        else:
            found[number] = read if isinstance(read, Result) else refused(read)
    found |= {result.number: result for result in forge(smith, samples)}
    return [found[number] for number, _ in batch]


def forge(smith: Smith, samples: Sequence[Sample]) -> list[Result]:
    """What became of every sample, in order. Raises only what is fatal."""
    try:
        return smith.forge(samples)
    except FATAL:
        raise
    except Exception:  # noqa: BLE001  any error of one record must not cost the others
        pass  # and its frames must not hold what the batch took of the memory
    return [_alone(smith, sample) for sample in samples]


def _read(source: Source, units: Sequence[Record]) -> list[Sample | list[Problem] | Result]:
    try:
        return list(source.read(units))
    except FATAL:
        raise
    except Exception as error:
        if len(units) == 1:
            if spares_no_other(error):
                raise
            return [_broken(units[0].number, None, "intake", error)]
        return [read for unit in units for read in _read(source, [unit])]


def _alone(smith: Smith, sample: Sample) -> Result:
    try:
        return smith.forge([sample])[0]
    except Exception as error:
        if spares_no_other(error):
            raise
        return _broken(sample.number, sample.question.id, "forge", error)


def _broken(number: int, name: str | None, stage: str, error: Exception) -> Result:
    """The result of a record that raised; the message is the traceback."""
    text = "".join(traceback.format_exception(error))
    return Result(number, name, "broken", stage, type(error).__name__, text)


def run_forge(
    settings: ForgeSettings, out: Path, *, engine: EngineSettings | None = None, screen: Screen | None = None
) -> dict[str, Any]:
    """Forge, from the start or from where an earlier process was stopped; writes `out/dataset`, and
    `out/funnel.json`, which is returned.

    What comes out does not depend on the engine. Errors: DataError for a source that cannot be
    opened or holds nothing, ModelError where a player cannot be had, RunError if the folder is in use, holds
    another forge, or if the source has changed.
    """
    screen, engine = screen or Screen(), engine or EngineSettings()
    source = open_source(settings.data, settings.format, settings.images)
    with (
        run_folder(settings, out, file="forge.yaml", resume="the command that began it") as folder,
        closing(Ledger(folder)) as ledger,
    ):
        ledger.bind(source.fingerprint, settings.data)
        total = sum(1 for _ in islice(source.units(), settings.limit))
        if total == 0:
            raise DataError(f"{settings.data}: there is no record in it.")
        screen.say(
            f"{plural(total, 'record')}, seed {settings.seed}, "
            f"{plural(engine.workers_of('play'), 'worker')}, in {folder}"
        )
        if ledger.batches * settings.batch < total:
            device = begin_computing(settings.device, settings.threads)
            with closing(Engine(engine, device, screen.warn)) as crews:
                crews.outlive(lambda: _work(settings, ledger, source, crews, screen, total))
        if (counts := ledger.counts())["refused"] == sum(counts.values()):
            first = next(ledger.set_aside("refused"))
            raise DataError(
                f"{settings.data}: none of its {plural(total, 'record')} can be used. The first: "
                f"{first['message']}"
            )
        funnel = make_funnel(settings, ledger, content_hash(ledger, settings))
        publish(folder, settings, ledger, funnel)
        write_json(folder / "funnel.json", funnel)
        return funnel


def _work(
    settings: ForgeSettings, ledger: Ledger, source: Source, crews: Engine, screen: Screen, total: int
) -> None:
    """Forge and write the batches that are not in the ledger."""
    units = batched(islice(source.units(), settings.limit), settings.batch)
    batches = islice(units, ledger.batches, None)
    read = ([*zip((u.number for u in own), _read(source, own), strict=True)] for own in batches)
    make = Make(ready_smith, (settings, ledger.folder / "answers.sqlite"))
    with (
        screen.stage("forge", total) as bar,
        crews.crew("play", make, lambda: ready_smith(*make.arguments)) as crew,
    ):
        bar.advance(sum(ledger.counts().values()), ledger.counts())
        for packed in crew.map(forge_batch, read):
            ledger.write(packed)
            bar.advance(len(packed), ledger.counts())


def ready_smith(settings: ForgeSettings, answers: Path) -> Smith:
    """A smith with all players loaded. answers: see `Players`."""
    begin_computing(settings.device, settings.threads)
    answers.parent.mkdir(parents=True, exist_ok=True)  # on another machine there is no such folder
    smith = Smith(settings, answers)
    smith.load()
    return smith


def forge_batch(smith: Smith, batch: Sequence[Read]) -> list[Packed]:
    """What became of a batch, ready to be written."""
    results = work(smith, batch)
    smith.forget()
    return [pack(result) for result in results]


def batched(units: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """The units in lists of that length; the last may be shorter."""
    while part := list(islice(units, size)):
        yield part
