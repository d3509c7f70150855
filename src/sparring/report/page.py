"""`report.html`: one file that shows a run, with style, charts and pictures inside it. It loads nothing and
runs no script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sparring.report import numbers
from sparring.report.axes import Style, Whisker
from sparring.report.charts import heat_map, interval_bar, progress_chart, shares_chart
from sparring.report.gallery import choose, gallery_filters, hang
from sparring.report.heldout import UNATTACKED
from sparring.report.render import write_page
from sparring.report.run import Run, read_run
from sparring.report.training import players

KIND_ORDER = ("add", "remove", "replace", "hybrid", "imperceptible", "unchanged")


def write_report(out: Path) -> Path:
    """Write `out/report.html` from what a run has put into its folder so far; what is not there yet is shown
    as "not yet".

    Errors: RunError if the folder holds no run or its files cannot be read.
    """
    run = read_run(Path(out))
    return write_page(run.out, "report.html.j2", _contents(run))


def _contents(run: Run) -> dict[str, Any]:
    summary = run.summary or {}
    hung, notes = hang(choose([exhibit for exhibit in run.exhibits if exhibit.attacker not in run.rivals]))
    return {
        **outcome(run),
        "name": summary.get("recipe") or run.recipe.get("name") or run.out.name,
        "seed": summary.get("seed", run.recipe.get("seed")),
        "seconds": summary.get("wall_seconds", run.meta.get("wall_seconds")),
        "memory": summary.get("peak_rss_mb", run.meta.get("peak_rss_mb")),
        "restarts": sum(summary.get("restarts", {}).values()),
        "description": run.recipe.get("description", ""),
        "rounds": [_round(run, number) for number in range(1, run.rounds + 1)],
        "players": players(run),
        "forged": _forged(run),
        "watched": _watched(run),
        "hung": hung,
        "gallery_notes": notes,
        "gallery_words": {"questions": "Held-out questions", "defender": "base Defender"},
        "counts_judged": bool((run.recipe.get("judge") or {}).get("model")),
        "last_defender": run.last_defender if run.last_defender != "base" else None,
        "filters": gallery_filters(hung),
        "warnings": summary.get("warnings") or _warnings(run),
    }


def outcome(run: Run) -> dict[str, Any]:
    """What held-out play came to, so far: the contents of "outcome.html.j2"."""
    summary, payoff = run.summary or {}, run.payoff
    gains = _gains(summary.get("gains", {}), run)
    accuracy, asr = payoff.get("accuracy") or [], payoff.get("valid_asr")
    played = any(cell for row in accuracy for cell in row)
    defenders, opponents = payoff.get("defenders", []), payoff.get("opponents", [])
    rows, columns = list(map(numbers.player, defenders)), list(map(numbers.player, opponents))
    attacked, asr_shown = _attacked(opponents, asr, run.rivals) if asr else ([], [])
    return {
        "run": run,
        "gains": gains,
        "headline": _headline(gains, run.summary is not None),
        "progress": progress(payoff, run.rivals) if played else None,
        "heat": heat_map(rows, columns, accuracy, "accuracy") if played else None,
        "read_off": _read_off(payoff, run.rivals),
        "worst": payoff.get("worst_case"),
        "asr": heat_map(rows, list(map(numbers.player, attacked)), asr_shown, "valid attack success", low=0.0)
        if asr
        else None,
        "rivals": summary.get("rivals") or {},
        "light_guarded": any(
            (run.recipe.get("judge") or {}).get(name) for name in ("light_level", "light_spread")
        ),
        "strategies": _strategies(run.strategies),
    }


@dataclass(frozen=True, slots=True)
class Gain:
    """A headline figure: its name, what it says, the difference, its bar, and the two rates whose difference
    it is.
    """

    title: str
    meaning: str
    difference: Mapping[str, Any] | None
    bar: Markup | None
    first: float | None
    last: float | None


def _gains(gains: Mapping[str, Any], run: Run) -> list[Gain]:
    last = numbers.player(f"round{run.rounds}") if run.rounds else "last"
    meanings = {
        "robust": (
            "Robust gain",
            f"accuracy of the {last} Defender less that of the base one, both under the {last} Attacker",
        ),
        "clean": ("Clean gain", "the same difference on untouched pictures"),
        "attacker": (
            "Attacker’s gain",
            f"valid attack success of the {last} Attacker less that of the bootstrap one, both against the "
            f"base Defender",
        ),
    }
    ends = [end for gain in gains.values() for end in (*gain["ci95"], gain["value"]) if end is not None]
    extent = min([0.0, *ends]) - 0.03, max([0.0, *ends]) + 0.03
    rates = _rates(run, f"round{run.rounds}")
    return [
        Gain(
            title,
            meaning,
            gains.get(key),
            interval_bar(gains[key], extent, _said(title, gains[key])) if key in gains else None,
            *rates[key],
        )
        for key, (title, meaning) in meanings.items()
    ]


def _said(title: str, gain: Mapping[str, Any]) -> str:
    return f"{title}: {numbers.points(gain['value'])} points, 95 % interval {numbers.points_interval(gain)}"


def _read_off(payoff: Mapping[str, Any], rivals: Mapping[str, str]) -> dict[str, str]:
    """What the figures of the payoff matrix say, whatever it is: of the Defenders over the rounds, and of
    attack success."""
    table, names = payoff.get("accuracy") or [], list(payoff.get("opponents", []))
    success = payoff.get("valid_asr") or []
    said = {"defenders": "", "success": ""}
    attackers = [i for i, name in enumerate(names) if name not in (*UNATTACKED, *rivals)]
    if table and attackers:
        last = attackers[-1]
        under = [row[last] for row in table]
        clean = [row[names.index("clean")] for row in table] if "clean" in names else []
        parts = [
            _went(f"under the {numbers.player(names[last])} Attacker", under),
            _went("on clean pictures", clean),
        ]
        said["defenders"] = _sentence("From the first Defender to the last, accuracy", parts)
    if success and attackers:
        first, column = [success[0][i] for i in attackers], [row[attackers[-1]] for row in success]
        parts = [
            _went(
                f"against the {numbers.player(payoff['defenders'][0])} Defender, from the first Attacker to "
                f"the last",
                first,
            ),
            _went(
                f"for the {numbers.player(names[attackers[-1]])} Attacker, from the first Defender to "
                f"the last",
                column,
            ),
        ]
        said["success"] = _sentence("Attack success", parts)
        falls = [
            f"{numbers.player(names[attackers[k]])} ({numbers.percent(b['value'])}) after "
            f"{numbers.player(names[attackers[k - 1]])} ({numbers.percent(a['value'])})"
            for k, (a, b) in enumerate(pairwise(first), start=1)
            if a and b and None not in (a["value"], b["value"]) and b["value"] < a["value"]
        ]
        if falls:
            said["success"] += f" Weaker than the Attacker before: {', '.join(falls)}."
    return said


def _sentence(subject: str, parts: Sequence[str | None]) -> str:
    told = [part for part in parts if part is not None]
    return f"{subject} {'; '.join(told)}." if told else ""


def _went(what: str, cells: Sequence[Mapping[str, Any] | None]) -> str | None:
    """From what to what a rate went; it rose or fell where the intervals at its two ends do not meet."""
    ends = [cell for cell in cells if cell and cell["value"] is not None]
    if len(ends) < 2:
        return None
    first, last = ends[0], ends[-1]
    if last["ci95"][0] > first["ci95"][1]:
        verb = "rose"
    elif last["ci95"][1] < first["ci95"][0]:
        verb = "fell"
    else:
        verb = "went (its intervals overlap)"
    return f"{verb} from {numbers.percent(first['value'])} to {numbers.percent(last['value'])} {what}"


def _rates(run: Run, last: str) -> dict[str, tuple[float | None, float | None]]:
    """From what to what each gain went."""

    def of(cell: Mapping[str, Any] | None) -> float | None:
        return None if cell is None else cell["value"]

    summary = run.summary or {}
    rounds = summary.get("rounds") or [{}]
    last_asr = rounds[-1].get("attacker", {}).get("valid_asr_base")
    return {
        "robust": (of(_accuracy(run.payoff, "base", last)), of(_accuracy(run.payoff, last, last))),
        "clean": (of(_accuracy(run.payoff, "base", "clean")), of(_accuracy(run.payoff, last, "clean"))),
        "attacker": (of(summary.get("bootstrap", {}).get("valid_asr")), of(last_asr)),
    }


def _headline(gains: Sequence[Gain], finished: bool) -> str:
    """The run's outcome in a sentence."""
    if not finished:
        return "A run under way"
    robust = gains[0]
    low, high = robust.difference["ci95"] if robust.difference else (None, None)
    if robust.first is None or robust.last is None or low is None or high is None:
        return "An image editor and a vision-language model, trained against each other"
    before, after = numbers.percent(robust.first), numbers.percent(robust.last)
    if low > 0:
        return f"Under attack, the Defender now answers {after} right, up from {before}"
    if high < 0:
        return f"Under attack, the Defender now answers {after} right, down from {before}"
    return f"No clear gain under attack: the Defender answers {after} right, before {before}"


def _strategies(strategies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The kinds of successful edits by opponent, as a chart and the table's rates; None before they are
    known.
    """
    if not strategies:
        return None
    first = next(iter(strategies.values()))
    shown = [
        kind
        for kind in KIND_ORDER
        if kind in first and (kind != "unchanged" or any(own[kind]["value"] for own in strategies.values()))
    ]
    bars = {
        numbers.player(name): {kind: own[kind]["value"] for kind in shown if own[kind]["value"]}
        for name, own in strategies.items()
    }
    return {
        "kinds": shown,
        "rates": strategies,
        "chart": shares_chart(bars, label="What the successful edits of every opponent did, as shares"),
    }


def progress(payoff: Mapping[str, Any], rivals: Mapping[str, str]) -> Markup:
    """Accuracy on clean pictures and under the first and last Attackers, Defender by Defender."""
    opponents, table = payoff["opponents"], payoff["accuracy"]
    attackers = [name for name in opponents if name not in (*UNATTACKED, *rivals)]
    seen = [name for name in attackers if any(row[opponents.index(name)] for row in table)]
    wanted: dict[str, tuple[str, Style]] = {"clean": ("Clean", "ink")}
    if seen and len(seen) > 1:
        wanted[seen[0]] = (f"vs. {numbers.player(seen[0])}", "soft")
    if seen:
        wanted[seen[-1]] = (f"vs. {numbers.player(seen[-1])}", "accent")
    lines: dict[str, list[Whisker]] = {}
    for opponent, (label, _) in wanted.items():
        cells = [row[opponents.index(opponent)] for row in table]
        lines[label] = [
            Whisker(i, cell["value"], *cell["ci95"])
            for i, cell in enumerate(cells)
            if cell and cell["value"] is not None
        ]
    return progress_chart(
        [numbers.player(name) for name in payoff["defenders"]],
        lines,
        dict(wanted.values()),
        label="Accuracy of every Defender on clean pictures and under attack",
        x_label="Defender",
        y_label="accuracy on held-out questions, %",
    )


def _attacked(
    opponents: Sequence[str], table: Sequence[Sequence[Any]], rivals: Mapping[str, str]
) -> tuple[list[str], list[list[Any]]]:
    """The columns of a matrix in which an Attacker attacks; rivals have a table of their own."""
    places = [i for i, name in enumerate(opponents) if name not in (*UNATTACKED, *rivals)]
    return [opponents[i] for i in places], [[row[i] for i in places] for row in table]


def _round(run: Run, number: int) -> dict[str, Any]:
    """What a round's card shows, from the summary where it is there and from the stages' results
    before that.
    """
    known: Mapping[str, Any] = next(
        (r for r in (run.summary or {}).get("rounds", []) if r["round"] == number), {}
    )
    stages = {
        part: run.stages.get(f"round{number}/{part}")
        for part in ("attacker", "curriculum", "defender", "watch")
    }
    results = {part: dict(row.result) if row else {} for part, row in stages.items()}
    attacker, defender = (
        results["attacker"] | known.get("attacker", {}),
        results["defender"] | known.get("defender", {}),
    )
    edits = sum(run.edits.get(f"round{number}/{part}", 0) for part in ("attacker", "curriculum"))
    algorithms = {player: _algorithm(run, player) for player in ("attacker", "defender")}
    parts = (
        attacker,
        results["curriculum"] | known.get("curriculum", {}),
        defender,
        results["watch"] | known.get("watch", {}),
    )
    warnings = [w for part in parts for w in part.get("warnings", [])]
    return {
        "number": number,
        "begun": bool(known) or any(stages.values()),
        "attacker": {"algorithm": algorithms["attacker"]}
        | attacker
        | {"edits": attacker.get("edits", edits or None)},
        "curriculum": results["curriculum"] | known.get("curriculum", {}),
        "defender": {"algorithm": algorithms["defender"]} | defender,
        "against": f"round{number - 1}" if number > 1 else "base",
        "before": _accuracy(run.payoff, f"round{number - 1}" if number > 1 else "base", f"round{number}"),
        "after": _accuracy(run.payoff, f"round{number}", f"round{number}"),
        "warnings": warnings,
    }


def _algorithm(run: Run, player: str) -> str | None:
    """How a player learns; runs of earlier versions hold the bare name."""
    stored = (run.recipe.get(player) or {}).get("algorithm")
    return stored.get("type") if isinstance(stored, dict) else stored


def _forged(run: Run) -> Mapping[str, Any] | None:
    """What the bootstrap's forge came to: counts, and the funnel stage by stage; None before it is
    through.
    """
    row = run.stages.get("round0/forge")
    known: Mapping[str, Any] = (run.summary or {}).get("bootstrap") or (row.result if row else {})
    return known if "funnel" in known else None


def _watched(run: Run) -> list[dict[str, Any]]:
    """What no reward pays for, of the rounds in which it has been measured, beside the reward."""
    found = []
    for number in range(1, run.rounds + 1):
        row = run.stages.get(f"round{number}/watch")
        known: Mapping[str, Any] = next(
            (r for r in (run.summary or {}).get("rounds", []) if r["round"] == number), {}
        )
        result = known.get("watch") or (row.result if row else None)
        if result:
            found.append({"number": number, **result})
    return found


def _accuracy(payoff: Mapping[str, Any], defender: str, opponent: str) -> Mapping[str, Any] | None:
    if defender not in payoff.get("defenders", []) or opponent not in payoff.get("opponents", []):
        return None
    cell: Mapping[str, Any] | None = payoff["accuracy"][payoff["defenders"].index(defender)][
        payoff["opponents"].index(opponent)
    ]
    return cell


def _warnings(run: Run) -> list[str]:
    return [f"{name}: {text}" for name, row in run.stages.items() for text in row.result.get("warnings", [])]
