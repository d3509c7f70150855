"""Runs side by side: their curves on the same axes, and paired differences of what they answered."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparring.benchmarks.compare import RESAMPLES, pair_up, paired_difference
from sparring.data.errors import RunError
from sparring.data.records import LETTERS
from sparring.data.words import plural
from sparring.measures.payoff import CLEAN
from sparring.measures.statistics import Difference, holm, mcnemar_exact, paired_bootstrap
from sparring.report import numbers
from sparring.report.axes import Series, Style, curves, span_of
from sparring.report.charts import interval_bar
from sparring.report.heldout import HeldOut
from sparring.report.run import Run, read_run
from sparring.report.training import LABELS, Panel
from sparring.report.viewer.conditions import CLEAN as CLEAN_STAGE
from sparring.report.viewer.conditions import PROBED_CLEAN
from sparring.report.viewer.now import thinned
from sparring.report.viewer.works import Work

STYLES: Sequence[Style] = ("run0", "run1", "run2", "run3", "run4", "run5")
MOST = len(STYLES)
"""Runs that are put side by side at most."""
CLEANS = (CLEAN_STAGE, PROBED_CLEAN)
METRICS = {
    "attacker": (
        "reward_mean", "intact", "accepted", "fooled", "dead_groups", "loss", "grad_norm", "clip_fraction",
        "kl",
    ),
    "defender": (
        "reward_mean", "right_mean", "thrown_high", "thrown_low", "length_mean", "loss", "grad_norm",
        "clip_fraction", "approx_kl",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is known in another run: there its options may stand in another order, and boxes may
    have been added since."""

    question: str
    options: tuple[str, ...]
    right: str
    targets: str

    @classmethod
    def of(cls, row: sqlite3.Row) -> Asked:
        options = json.loads(row["options"])
        right = options[LETTERS.index(row["answer"])]
        return cls(row["question"], tuple(sorted(options)), right, row["targets"])

    def same(self, other: Asked) -> bool:
        alike = replace(self, targets="") == replace(other, targets="")
        return alike and (self.targets == other.targets or "[]" in (self.targets, other.targets))


@dataclass(frozen=True, slots=True)
class Sheet:
    """Item -> was it answered right, from 0 to 1; what it shares with items that are no independent evidence;
    and what was asked."""

    right: Mapping[str, float]
    clusters: Mapping[str, str]
    questions: Mapping[str, Asked]


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure of two runs: what the second less the first is over their common items; p: McNemar's exact
    value adjusted by Holm over all measures of these two runs, None where scores are no truth values."""

    measure: str
    first: float
    second: float
    difference: Difference
    p: float | None


@dataclass(frozen=True, slots=True)
class Against:
    """A run against the first one; note: why there is nothing to compare, or what to keep in mind."""

    name: str
    rows: tuple[Compared, ...]
    note: str = ""


def overlays(works: Sequence[Work]) -> list[tuple[str, list[Panel]]]:
    """Player -> a chart a metric, one line a run, all rounds in a row."""
    runs = [thinned(read_run(work.folder, played=False, exhibits=False)) for work in works]
    found = []
    for player, metrics in METRICS.items():
        panels = [_overlay(runs, player, metric) for metric in metrics]
        drawn = [panel for panel in panels if panel.chart is not None]
        if drawn:
            found.append((player.capitalize(), drawn))
    return found


def _overlay(runs: Sequence[Run], player: str, metric: str) -> Panel:
    series = []
    for place, (run, style) in enumerate(zip(runs, STYLES, strict=False)):
        points: list[tuple[float, float]] = []
        offset = 0
        for number in range(1, run.rounds + 1):
            history = run.histories.get(f"round{number}/{player}", [])
            if offset and history:
                points.append((offset + 0.5, math.nan))
            for step, metrics in history:
                value = metrics.get(metric)
                number_or_gap = float(value) if isinstance(value, int | float) else math.nan
                points.append((float(offset + step + 1), number_or_gap))
            offset += max((step + 1 for step, _ in history), default=0)
        series.append(Series(chr(ord("A") + place), tuple(points), style))
    series = [one for one in series if one.finite]
    title = LABELS.get(metric, metric)
    if not series:
        return Panel(title, None)
    last = max(x for one in series for x, _ in one.points)
    chart = curves(
        series,
        label=f"{player}: {title}",
        y_range=span_of(series),
        x_range=(1.0, max(2.0, last)),
        x_label="update, all rounds",
        y_label="",
    )
    return Panel(title, chart)


def compared(works: Sequence[Work], defender: str | None) -> list[Against]:
    """Every further run against the first one. defender: of games, whose answers; None: the last one that
    each of them has."""
    first, *others = works
    found = []
    for other in others:
        if first.kind != other.kind:
            note = f"an {first.kind} and a {other.kind} answer no common question"
            found.append(Against(other.name, (), note))
        elif first.kind == "evaluation":
            found.append(_evaluations(first, other))
        else:
            sheets = [sheets_of(work, defender) for work in (first, other)]
            found.append(differences(other.name, *sheets))
    return found


def _evaluations(first: Work, other: Work) -> Against:
    try:
        facts, pairs = pair_up(first.folder, other.folder, str((first.results() or {}).get("profile")))
    except (RunError, KeyError) as error:
        return Against(other.name, (), str(error))
    told = paired_difference(pairs)
    value = told["difference"]
    difference = Difference(value["value"], value["n"], *value["ci95"])
    asked = ", ".join(facts["differences_in_asking"])
    row = Compared("score", told["before"], told["after"], difference, told["mcnemar"])
    return Against(other.name, (row,), f"They were asked differently: {asked}." if asked else "")


def differences(name: str, first: Mapping[str, Sheet], second: Mapping[str, Sheet]) -> Against:
    """The measures that both have, paired by item; the bootstrap of their intervals resamples pictures."""
    rows, changed = [], 0
    for measure in first:
        if measure not in second:
            continue
        a, b = first[measure], second[measure]
        common = [item for item in a.right if item in b.right]
        same = [item for item in common if a.questions[item].same(b.questions[item])]
        changed += len(common) - len(same)
        if not same:
            continue
        before, after = [a.right[i] for i in same], [b.right[i] for i in same]
        clusters = [a.clusters[item] for item in same]
        difference = paired_bootstrap(after, before, clusters, resamples=RESAMPLES, seed=0)
        p = mcnemar_exact(after, before)
        rows.append(Compared(measure, sum(before) / len(same), sum(after) / len(same), difference, p))
    adjusted = holm([row.p for row in rows if row.p is not None])
    told = tuple(
        Compared(row.measure, row.first, row.second, row.difference, p)
        for row, p in zip(rows, adjusted, strict=True)
    )
    note = "" if told else "they have no question in common that both have answered"
    if changed:
        note = f"{plural(changed, 'answer')} left out: the question of that id is another one there"
    return Against(name, told, note)


def sheets_of(work: Work, defender: str | None) -> dict[str, Sheet]:
    """Measure -> sheet, of a game, an attack or a probe, finished or not."""
    with work.database() as db:
        if db is None:
            return {}
        questions = {
            row["id"]: row
            for row in db.execute(
                "SELECT id, image, question, options, answer, targets FROM questions WHERE split = 'held_out'"
            )
        }
        rights = _played(work, db, defender) if work.kind == "game" else _answered(db)

        def sheet(right: Mapping[str, float]) -> Sheet:
            known = {item: value for item, value in right.items() if item in questions}
            clusters = {item: questions[item]["image"] for item in known}
            return Sheet(known, clusters, {item: Asked.of(questions[item]) for item in known})

        return {name: sheet(right) for name, right in rights.items()}


def defenders_of(work: Work) -> list[str]:
    """The Defenders of a game that have answered the clean pictures."""
    run = read_run(work.folder, played=False, exhibits=False)
    played = [name for name in run.stages if name.startswith(f"evaluation/{CLEAN}/")]
    return [name.rpartition("/")[2] for name in played if run.stages[name].status == "done"]


def _played(work: Work, db: sqlite3.Connection, defender: str | None) -> dict[str, dict[str, float]]:
    run = read_run(work.folder, played=False, exhibits=False)
    play = HeldOut(db, run.stages, run.rounds, list(run.rivals))
    name = defender or next((d for d in reversed(play.defenders) if play.played(d, CLEAN)), "base")
    found = {}
    for opponent in play.opponents:
        if play.played(name, opponent):
            right_N = play.right(name, opponent)
            where = "on clean pictures" if opponent == CLEAN else f"under {numbers.player(opponent)}"
            found[f"right, {where}"] = dict(zip(play.ids, map(float, right_N), strict=True))
    return found


def _answered(db: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """Right on clean pictures, and on the first edit of every question; where an edit was not accepted, and
    nobody asked about it, the clean answer stands. What has neither an answer nor a verdict is left
    out."""
    found: dict[str, dict[str, float]] = {}
    query = (
        "SELECT stage, question_id, defender, right FROM answers"
        " WHERE step = 0 AND sample = 0 AND trial = 0"
        " AND (stage LIKE 'evaluation/%' OR stage LIKE 'attack/%' OR stage = 'clean')"
    )
    by_stage: dict[tuple[str, str], dict[str, float]] = {}
    for row in db.execute(query):
        by_stage.setdefault((row["defender"], row["stage"]), {})[row["question_id"]] = float(row["right"])
    rejected: dict[str, set[str]] = {}
    for row in db.execute(
        "SELECT stage, question_id FROM verdicts WHERE step = 0 AND sample = 0 AND NOT accepted"
    ):
        rejected.setdefault(row["stage"], set()).add(row["question_id"])
    for (defender, stage), right in sorted(by_stage.items()):
        clean = next((own for (d, s), own in by_stage.items() if d == defender and s in CLEANS), {})
        stands = {item: clean[item] for item in rejected.get(stage, ()) if item in clean}
        where = "on clean pictures" if stage in CLEANS else f"under {stage.partition('/')[2]}"
        found[f"{numbers.player(defender)}: right, {where}"] = stands | right
    return found


def bar(row: Compared, rows: Sequence[Compared]) -> Any:
    """A difference with its interval, on the axis of all of a table."""
    ends = [end for one in rows for end in (one.difference.low, one.difference.high) if end is not None]
    extent = min([0.0, *ends]) - 0.03, max([0.0, *ends]) + 0.03
    told = row.difference.as_dict()
    interval = numbers.points_interval(told)
    words = f"{row.measure}: {numbers.points(told['value'])} points, 95 % interval {interval}"
    return interval_bar(told, extent, words)
