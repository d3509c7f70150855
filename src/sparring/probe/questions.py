"""What a probe asks: questions in any layout, or a benchmark's as `sparring eval` reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sparring.benchmarks.layouts import find_benchmark
from sparring.benchmarks.questions import data_sha256, draw_items, questions_of
from sparring.config import ProbeSettings
from sparring.data.layouts import data_digest
from sparring.data.questions import read_questions, require_disjoint, split_held_out
from sparring.data.records import VisualQuestion
from sparring.data.words import plural
from sparring.engine.calls import written_data
from sparring.engine.files import unless_refused
from sparring.engine.ledger import Ledger
from sparring.engine.questions import PICTURES, read_drawn, require_same_data, say_dropped
from sparring.engine.screen import Screen


@dataclass
class Asked:
    """probed: questions to probe with; practice: those that adaptive Attackers train on, no picture in
    common. left_out: reason -> items of a suite.

    digests: what tells the data from other ones, by name.
    """

    probed: list[VisualQuestion]
    practice: list[VisualQuestion]
    digests: Mapping[str, str]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def begin(self, out: Path, ledger: Ledger) -> None:
        """Note the questions; RunError where the data are not those that this probe began with."""
        require_same_data(out, ledger, self.digests, "probe")
        ledger.record_questions("held_out", [*self.probed, *self.practice])

    @cached_property
    def without_boxes(self) -> int:
        """How many of the questions to probe with protect no box, so that no edit of theirs can fail the
        integrity check.
        """
        return sum(not question.targets for question in self.probed)

    def warnings(self) -> list[str]:
        """What a reader of the figures should know of the questions."""
        texts = []
        if self.left_out:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.left_out.items())
            texts.append(
                f"left out, because a probe cannot ask it: {plural(sum(self.left_out.values()), 'item')} of "
                f"the suite ({reasons})"
            )
        if self.without_boxes:
            texts.append(
                f"{self.without_boxes} of {plural(len(self.probed), 'question')} without boxes: integrity is "
                f"not checked there, and an edit of theirs counts as "
                "valid unless the judge (--judge) or the auditor (--audit) objects"
            )
        return texts


def read_asked(settings: ProbeSettings, out: Path, screen: Screen) -> Asked:
    """Read and check the questions of a probe whose attackers would load. Below `out` is written what data
    carry inside them; where anything is refused, no folder is left.

    Errors: DataError where the questions do not load, RunError where `out` cannot be a folder, and those of
    `check_attackers`.
    """
    data = written_data(settings.data, out)
    with unless_refused(out, PICTURES) as folder:
        asked = _read_asked(settings, data, folder, screen)
        from sparring.probe.attackers import check_attackers  # models' libraries, after all that needs none

        check_attackers(settings)
        return asked


def _read_asked(settings: ProbeSettings, data: Path, folder: Path, screen: Screen) -> Asked:
    left_out = dict[str, int]()
    if settings.suite is None:
        records = read_drawn(
            data,
            limit=settings.limit,
            seed=settings.seed,
            skip_bad=settings.skip_bad_records,
            screen=screen,
            images=settings.images,
            folder=folder,
        )
        digests = {settings.data: data_digest(data)}
    else:
        benchmark, images = find_benchmark(settings.suite), Path(settings.images) if settings.images else None
        # The very items, with their options in the very order, that `sparring eval` asks under this seed and
        # limit.
        items, dropped = draw_items(
            benchmark,
            data,
            images,
            limit=settings.limit,
            seed=settings.seed,
            shuffle=benchmark.shuffle,
            skip_bad=settings.skip_bad_records,
        )
        suite = questions_of(items, data, folder, skip_bad=settings.skip_bad_records)
        records, left_out = suite.questions.records, dict(suite.left_out)
        damaged = suite.questions.dropped_by_reason()
        say_dropped(data, Counter(dropped) + Counter(damaged), screen)
        digests = {settings.data: data_sha256(items)}
    if not settings.adapt:
        return Asked(records, [], digests, left_out)
    if settings.adapt_data is None:
        advice = "Add questions, or name others to train on with --adapt-data."
        practice, probed = split_held_out(records, len(records) // 2, settings.seed, advice=advice)
        return Asked(probed, practice, digests, left_out)
    practised = read_questions(
        settings.adapt_data, skip_bad=settings.skip_bad_records, images=settings.images, folder=folder
    )
    say_dropped(practised.path, practised.dropped_by_reason(), screen)
    advice = "leave --adapt-data out and half of the questions are trained on, split by picture."
    require_disjoint(practised.records, records, advice=advice)
    digests[settings.adapt_data] = data_digest(Path(settings.adapt_data))
    return Asked(records, practised.records, digests, left_out)
