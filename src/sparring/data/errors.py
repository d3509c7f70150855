"""The errors of the project. Each says what happened, to which record or field, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class SparringError(Exception):
    """Base of every error that Sparring raises on purpose."""


class DataError(SparringError, ValueError):
    """A data file or one of its records cannot be used."""


class RecipeError(SparringError, ValueError):
    """A recipe is wrong: an unknown key, a value out of range, a file that is not there."""


class ModelError(SparringError, ValueError):
    """A checkpoint cannot be loaded or does not fit its part."""


class UnchangedError(ModelError):
    """A LoRA changes no weight."""


class RefusedError(ModelError):
    """A question that a model, its processor or its server does not take, or answers with no reply. Others
    may be asked.

    places: of several that were asked together, the number of each that is not taken -> why.
    """

    def __init__(self, message: str, places: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.places: dict[int, str] = dict(places or {})


class TrainingError(SparringError, RuntimeError):
    """Training cannot go on: losses that are not finite, a phase without signal."""


class RunError(SparringError, RuntimeError):
    """A run folder is missing, in use, or belongs to another recipe."""


SHOWN = 20
"""Problems listed in an error; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a record. `reason` is a short phrase to count by; `message` names record, field
    and value."""

    line: int
    id: str | None
    reason: str
    message: str


class Fault(Exception):
    """A field that cannot be used; becomes a Problem where the record's number and id are known."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def of(self, path: Path, unit: str, number: int, name: str | None = None) -> Problem:
        """The problem of that record of that file. unit: what its records are called."""
        record = f"{path.name} {unit} {number}" + (f' (id "{name}")' if name else "")
        return Problem(number, name, self.reason, f"{record}: {self}")


def refuse(path: Path, problems: Sequence[Problem], *, nothing_left: bool = False) -> DataError:
    """The error that lists the first 20 problems of a file. nothing_left: bad records were skipped, and
    all were bad."""
    shown = "\n".join(problem.message for problem in problems[:SHOWN])
    more = f"\n... and {len(problems) - SHOWN} more problems" if len(problems) > SHOWN else ""
    records = len({problem.line for problem in problems})
    if nothing_left:
        return DataError(f"{path}: no usable record is left.\n{shown}{more}")
    advice = "Fix the record, or pass" if records == 1 else f"Fix these {records} records, or pass"
    without = "it" if records == 1 else "them"
    return DataError(f"{shown}{more}\n{advice} --skip-bad-records to go on without {without}.")
