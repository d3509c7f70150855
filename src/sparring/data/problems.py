"""What can be wrong with a record, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparring.data.errors import DataError

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
