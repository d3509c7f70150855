"""Where a forge's questions come from: data in any layout that `sparring.data.layouts` knows, read record
by record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from sparring.config import ForgeSettings
from sparring.data.errors import Problem
from sparring.data.items import Record, Records
from sparring.data.layouts import Found, data_digest, find_layout
from sparring.data.questions import QuestionChecker, open_records
from sparring.forge.painters import is_plain
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


@dataclass(frozen=True, slots=True)
class Estimate:
    """Records of the source, (part, model, dtype) of every model that would be loaded, and calls at most by
    what is called.
    """

    records: int
    format: str
    models: list[tuple[str, str, str]]
    calls: dict[str, int]


def estimate(settings: ForgeSettings) -> Estimate:
    """Upper bounds: every record is taken to be readable, to pass every check, and never to be fooled.
    DataError where the source cannot be opened.
    """
    source = open_source(settings.data, settings.format, settings.images)
    records = sum(1 for _ in islice(source.units(), settings.limit))
    stages, judge = settings.stages, settings.judge
    extend = stages.extend.painter
    candidates, votes = records * stages.attempts, 1 if stages.panel.temperature == 0 else stages.panel.votes
    models: list[tuple[str, str, str]] = [("defender", settings.defender.model, settings.defender.dtype)]
    calls = {"questions to the Defender, about clean pictures": records}
    if stages.propose.locate:
        calls["requests for the boxes of targets"] = records
    if extend is not None:
        calls["pictures extended"] = records
        if extend.model != "edges":
            models.append(("outpainting", extend.model, extend.dtype))
        if stages.extend.checks:
            calls["verdicts on extended pictures"] = records * len(stages.extend.checks) * votes
    if stages.propose.model is not None:
        models.append(("proposals", stages.propose.model, stages.propose.dtype))
        calls["requests for proposals"] = candidates
    if stages.panel.prompts:
        calls["verdicts on proposals"] = candidates * stages.propose.number * votes
    if stages.implant != "painter":
        models.append(("implanting", settings.attacker.model, settings.attacker.dtype))
        calls["pictures edited"] = candidates
    else:
        calls["boxes painted"] = candidates * stages.propose.number
        if not is_plain(stages.painter.model):
            models.append(("implanting", stages.painter.model, stages.painter.dtype))
    if judge.model is not None:
        models.append(("judge", judge.model, judge.dtype))
        calls["counts of queried objects (one a kind of object)"] = records + candidates
    calls["questions to the Defender, about candidates"] = candidates * (
        1 if judge.trial_temperature == 0 else judge.trials
    )
    return Estimate(records, source.format, models, calls)
