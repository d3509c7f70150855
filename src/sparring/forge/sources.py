"""Where a forge's questions come from: data in any layout that `sparring.data.layouts` knows, read record
by record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sparring.data.items import Record, Records
from sparring.data.layouts import Found, data_digest, find_layout
from sparring.data.problems import Problem
from sparring.data.questions import QuestionChecker, open_records
from sparring.forge.records import Sample


@dataclass(frozen=True)
class Source:
    """A source of questions. images: the folder that pictures are named from; None: the source's own."""

    found: Found
    images: Path | None = None

    @property
    def format(self) -> str:
        """The name of its layout."""
        return self.found.name

    def units(self) -> Records:
        """All records in order, each small enough to be sent to another process: pictures stay where they
        are."""
        return open_records(self.found.path, self.images, self.found.name)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides the records, pictures apart: another one, and a forge cannot be
        continued."""
        return data_digest(self.found.path)

    def read(self, units: Sequence[Record]) -> list[Sample | list[Problem]]:
        """Every unit as a sample, or as what is wrong with it. Every picture is decoded once."""
        checker = QuestionChecker(self.found.path, None, keep=True)
        found: list[Sample | list[Problem]] = []
        for unit in units:
            known = len(checker.problems)
            question = checker.check(unit)
            if question is None:
                found.append(checker.problems[known:])
            else:
                found.append(Sample(unit.number, question, checker.images[question.image]))
        return found


def open_source(path: str | Path, kind: str = "auto", images: str | Path | None = None) -> Source:
    """The source at that path; `auto` tells its layout by what lies there. Raises DataError where there is
    nothing, or nothing that is known."""
    source = Source(find_layout(Path(path), kind), Path(images) if images is not None else None)
    source.units()  # raises where the folder of pictures is not there
    return source
