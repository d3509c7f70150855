"""Figures of an evaluation: every profile on the same answers, each with its denominator, its interval and
what a model without eyes would get.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sparring.benchmarks.items import Answered, Mark, Marked
from sparring.benchmarks.judge import RULE, read_marks
from sparring.benchmarks.profiles import PROFILES, Rule, profiles_of, rule_of
from sparring.benchmarks.rules.figures import grouped, quoted_split
from sparring.data.words import plural
from sparring.measures.statistics import bootstrap_statistic, rate

RESAMPLES = 500


def mark_all(
    answered: Sequence[Answered], benchmark: str, resources: Mapping[str, Any]
) -> dict[str, list[Mark]]:
    """Profile -> one mark an item, for every profile that knows the benchmark."""
    return {
        profile: read_marks(rule_of(profile, benchmark), answered, resources)
        for profile in profiles_of(benchmark)
    }


def profile_figures(
    answered: Sequence[Answered],
    marks: Sequence[Mark],
    rule: Rule,
    *,
    seed: int = 0,
    judge: str | None = None,
) -> dict[str, Any]:
    """What a profile says: its figures, the first of them with an interval, counts, and baselines on the same
    scale.

    judge: the model that was asked about what the rule left unread; `judged` then counts the answers that it
    read.

    The interval is Wilson's where the figure is the share of items that are right and no two of them show the
    same picture, else a percentile bootstrap over pictures. Where all items are right, or all wrong, such a
    bootstrap has no width: then a figure of 0 or 1 has Wilson's, of pictures, and F1 has none.
    """
    marked = [(one, mark) for one, mark in zip(answered, marks, strict=True) if mark.status != "left_out"]
    figures = rule.figures(marked)
    name, rows = next(iter(figures)), rule.rows(marked)
    counts = Counter(mark.status for mark in marks)
    found: dict[str, Any] = {
        "figure": name,
        "value": figures[name] if marked else None,
        "n": rows,
        "ci95": _interval(marked, rule, name, figures[name], rows, seed),
        "low_is_good": rule.low_is_good,
        "figures": figures,
        "unparsed": counts["unparsed"],
        "errors": counts["error"],
        "left_out": counts["left_out"],
        "baselines": {kind: _baseline(marked, rule, kind) for kind in ("first", "majority")},
        "note": "; ".join(part for part in (rule.unjudged, rule.note) if part),
    }
    if judge is not None:
        read = sum(mark.rule == RULE for mark in marks)
        asked = f"{judge} read {plural(read, 'answer')} that the rule did not" if rule.unjudged else ""
        found |= {"judged": read, "note": "; ".join(part for part in (asked, rule.note) if part)}
    return found


def _interval(
    marked: Sequence[Marked], rule: Rule, name: str, value: float, rows: int, seed: int
) -> list[float | None]:
    if not marked:
        return [None, None]
    if rows < len(marked):
        marked = quoted_split(marked)
    clusters = list(grouped(marked, lambda one: one[0].cluster or one[0].item.id).values())
    # An accuracy of all, or of one split.
    share, scores = name.startswith("accuracy") or name == "aAcc", {mark.score for _, mark in marked}
    alike = len(scores) == 1
    if alike and name == "f1":
        return [None, None]
    if (alike and value in (0.0, 1.0)) or (share and scores <= {0.0, 1.0} and len(clusters) == len(marked)):
        n = len(clusters) if alike else rows
        hits = round(value * n)
        found = rate([True] * hits + [False] * (n - hits))
        return [found.low, found.high]

    def statistic(drawn: Sequence[int]) -> float:
        return rule.figures([one for place in drawn for one in clusters[place]])[name]

    return list(bootstrap_statistic(statistic, len(clusters), resamples=RESAMPLES, seed=seed))


def _baseline(marked: Sequence[Marked], rule: Rule, kind: str) -> float | None:
    """The first figure of a model that always says the first option, or the most frequent right one, as the
    rule has them; None where answers are free.
    """
    asked = [rule.choices(one.item) for one, _ in marked]
    if not any(choices for choices, _ in asked):
        return None
    usual = Counter(right for choices, right in asked if choices).most_common()
    most = min((answer for answer, count in usual if count == usual[0][1]), default=None)
    said = [(choices[0] if kind == "first" else most) if choices else None for choices, _ in asked]
    figures = rule.figures(
        [
            (one, Mark(word, float(word is not None and word == right)))
            for (one, _), word, (_, right) in zip(marked, said, asked, strict=True)
        ]
    )
    return next(iter(figures.values()))


def table_rows(profiles: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The side-by-side table: a head and one row a profile."""
    counts = [
        "n",
        "unparsed",
        "errors",
        "left_out",
        *(["judged"] if any("judged" in own for own in profiles.values()) else []),
    ]
    head = [
        "profile",
        "figure",
        "value",
        "95 % interval",
        *(name.replace("_", " ") for name in counts),
        "always first",
        "majority",
    ]
    rows = [head]
    for name in [*(p for p in PROFILES if p in profiles), *(p for p in profiles if p not in PROFILES)]:
        own = profiles[name]
        low, high = own["ci95"]
        interval = "–" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"
        values = [own["value"], own["baselines"]["first"], own["baselines"]["majority"]]
        value, first, most = ("–" if one is None else f"{100 * one:.1f}" for one in values)
        figure = own["figure"] + (" (low is good)" if own["low_is_good"] else "")
        rows.append([name, figure, value, interval, *(str(own[key]) for key in counts), first, most])
    return rows


def markdown(results: Mapping[str, Any]) -> str:
    """`results.md`: what was asked and the side-by-side table, in per cent."""
    rows = table_rows(results["profiles"])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * 2 + "---:|" * (len(rows[0]) - 2))
    facts = [
        f"{results['title']} ({plural(results['items'], 'item')}, "
        f"{plural(results['pictures'], 'picture')}), answered by {results['defender']}."
    ]
    facts.append(
        f"Prompt style {results['prompt']}, {plural(results['trials'], 'trial')}, temperature "
        f"{results['temperature']:g}. {pixels_in_words(results)}"
    )
    if results.get("without_picture"):
        facts.append(
            f"{plural(results['without_picture'], 'item')} asked without a picture, as the benchmark wants."
        )
    if dropped := results.get("dropped"):
        facts.append(
            f"Left out: {plural(sum(dropped.values()), 'bad record')} "
            f"({', '.join(f'{why}: {n}' for why, n in dropped.items())})."
        )
    if judge := results.get("judge"):
        counts = ", ".join(
            f"{judge[name]} {name.replace('_', ' ')}" for name in ("read", "none", "malformed", "given_up")
        )
        facts.append(f"The judge {judge['model']} was asked about {judge['asked']} replies: {counts}.")
    notes = [f"* {name}: {own['note']}." for name, own in results["profiles"].items() if own["note"]]
    return "\n".join([f"# {results['title']}", "", *facts, "", *lines, "", *notes]).rstrip() + "\n"


def pixels_in_words(results: Mapping[str, Any]) -> str:
    """What happened to the pictures before the model saw them."""
    limits, reduced = results["pixels"]["limits"], results["pixels"]["reduced"]
    if "max_area" in limits:
        text = (
            f"The processor keeps pictures between {limits['min_area']:,} and {limits['max_area']:,} pixels"
        )
    elif "size" in limits:
        sides = " x ".join(str(value) for value in limits["size"].values())
        text = f"The processor makes every picture {sides} pixels"
    elif limits.get("max_area_sent") is not None:
        text = (
            f"Pictures were sent with at most {limits['max_area_sent']:,} pixels; what the server makes "
            f"of them it decides by itself"
        )
    else:
        return "Pictures were sent as they are; what the server makes of them it decides by itself."
    return (
        f"{text}; {reduced} of {plural(results['pictures'], 'picture')} were made smaller."
        if reduced is not None
        else f"{text}."
    )


def headline(results: Mapping[str, Any], profile: str) -> str:
    """The quoted figure in a line."""
    own = results["profiles"][profile]
    if own["value"] is None:
        return f"{own['figure']}: nothing to count"
    low, high = own["ci95"]
    interval = "no interval" if low is None else f"95 % interval {100 * low:.1f} to {100 * high:.1f}"
    return f"{own['figure']} {100 * own['value']:.1f} %  of {own['n']}  ({interval})"
