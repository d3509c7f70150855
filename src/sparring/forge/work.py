"""Units of a source become results: one that cannot be read, or that breaks, costs the others nothing.

A batch that fails is done again one record at a time, and the record that breaks is set aside with its traceback.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from sparring.data.errors import ModelError, RecipeError, RunError
from sparring.data.items import Record
from sparring.data.problems import Problem
from sparring.forge.records import Result, Sample, refused
from sparring.forge.smith import Smith
from sparring.forge.sources import Source

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
