"""What a work came to: who beats whom, strategies and the league of a game; the figures of other works."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sparring.benchmarks.results import headline, table_rows
from sparring.data.errors import RunError
from sparring.data.words import plural
from sparring.measures.payoff import CLEAN
from sparring.probe.table import tables
from sparring.report import page
from sparring.report.heldout import UNATTACKED, HeldOut
from sparring.report.numbers import interval, percent
from sparring.report.run import Run, read_run
from sparring.report.study import contents_of
from sparring.report.viewer.exhibits import address
from sparring.report.viewer.works import Work

Rate = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A player's place in the league. against: (opponent's name, rate) of every game; best, worst: among
    these."""

    name: str
    rate: Rate | None
    against: tuple[tuple[str, Rate | None], ...]
    more: tuple[tuple[str, Rate | None], ...]


def game_outcome(work: Work, db: sqlite3.Connection | None) -> dict[str, Any]:
    """The contents of the page of a game, finished or not."""
    run = read_run(work.folder, played=False, exhibits=False)
    league: dict[str, Any] = {"defenders": (), "attackers": ()}
    if db is not None:
        so_far = HeldOut(db, run.stages, run.rounds, list(run.rivals))
        if run.summary is None:
            run = replace(run, payoff=so_far.as_dict(), strategies=so_far.strategies())
        league = {"defenders": defenders(so_far, run.payoff), "attackers": attackers(so_far)}
    return {**page.outcome(run), "league": league, "links": links(work, run)}


def links(work: Work, run: Run) -> dict[str, list[list[str]]]:
    """The addresses of the pictures behind every cell of the two matrices."""
    payoff = run.payoff
    opponents = payoff.get("opponents", [])
    attacked = [name for name in opponents if name not in (*UNATTACKED, *run.rivals)]

    def pictures(**filters: str) -> str:
        return address("/fight", {"run": work.name}, filters)

    return {
        "accuracy": [[pictures(opponent=o, asked=d) for o in opponents] for d in payoff.get("defenders", [])],
        "asr": [[pictures(opponent=o, fooled=d) for o in attacked] for d in payoff.get("defenders", [])],
    }


def defenders(play: HeldOut, payoff: Mapping[str, Any]) -> tuple[Place, ...]:
    """Every Defender that has played, by its accuracy under the opponent that it is worst against."""
    found = []
    for row, name in enumerate(play.defenders):
        cells = dict(zip(payoff["opponents"], payoff["accuracy"][row], strict=True))
        against = tuple((o, cells.get(o)) for o in play.opponents if o != CLEAN and cells.get(o))
        if not any(cells.values()):
            continue
        worst = min((cell for _, cell in against if cell), key=lambda cell: cell["value"], default=None)
        found.append(Place(name, worst, against, (("clean", cells.get(CLEAN)),)))
    return tuple(sorted(found, key=lambda place: -(place.rate or {"value": 0.0})["value"]))


def attackers(play: HeldOut) -> tuple[Place, ...]:
    """Every opponent that attacks, by its valid success on the base Defender."""
    found = []
    for column, name in enumerate(play.opponents):
        reports = [(d, row[column]) for d, row in zip(play.defenders, play.reports, strict=True)]
        told = [(d, report) for d, report in reports if report is not None]
        if not told:
            continue
        first = told[0][1]
        more = (
            ("accepted", first.accepted_rate.as_dict()),
            ("label still valid", first.label_valid_rate.as_dict()),
        )
        against = tuple((d, report.valid_asr.as_dict()) for d, report in told)
        found.append(Place(name, against[0][1], against, more))
    return tuple(sorted(found, key=lambda place: -((place.rate or {}).get("value") or 0.0)))


def other_outcome(work: Work) -> dict[str, Any]:
    """The template and contents of the page of a work that is no game; no contents where nothing is there
    yet."""
    results = work.results()
    if results is None:
        return {}
    try:
        return {
            "attack": _attack,
            "evaluation": _evaluation,
            "probe": _probe,
            "forge": _forge,
            "fine-tuning": _tuning,
            "study": contents_of,
        }[work.kind](results)
    except (KeyError, TypeError, IndexError) as error:
        raise RunError(f"the figures in {work.folder} are not those of this version: {error!r}") from error


def _attack(results: Mapping[str, Any]) -> dict[str, Any]:
    rates = [
        (name.replace("_", " "), f"{percent(value['value'])} ({interval(value)}), n = {value['n']}")
        for name, value in {**results, **results["first_try"]}.items()
        if isinstance(value, dict) and "ci95" in value
    ]
    return {"headline": f"An attack on {results['defender']}", "facts": [*rates, *_plain(results)]}


def _evaluation(results: Mapping[str, Any]) -> dict[str, Any]:
    profile = str(results["profile"])
    return {
        "results": results,
        "profile": profile,
        "headline": f"{results['title']}: {headline(results, profile)}",
        "table": table_rows(results["profiles"]),
        "notes": {name: own["note"] for name, own in results["profiles"].items() if own["note"]},
        "figures": results["profiles"][profile]["figures"],
    }


def _probe(results: Mapping[str, Any]) -> dict[str, Any]:
    names = list(results["defenders"])
    text = "1 Defender" if len(names) == 1 else f"{len(names)} Defenders"
    return {"headline": f"{text}, {plural(results['questions'], 'question')}", "tables": tables(results)}


def _forge(results: Mapping[str, Any]) -> dict[str, Any]:
    share, read = results["kept_share"], plural(results["records"]["read"], "question")
    return {
        "headline": f"{results['records']['kept']} of {read} gave a pair",
        "share": share,
        "funnel": results["stages"],
    }


def _tuning(results: Mapping[str, Any]) -> dict[str, Any]:
    return {"headline": "A fine-tuned Defender", "facts": _plain(results)}


def _plain(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures that are one number or word each."""
    return [
        (name.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in results.items()
        if isinstance(value, str | int | float) and name not in ("schema", "kind")
    ]
