"""Figures of an evaluation: every profile on the same answers, each with its denominator, its interval and what a model without eyes would get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.benchmarks.items import Answered, Mark, Marked
from sparring.benchmarks.judge import RULE, read_marks
from sparring.benchmarks.profiles import PROFILES, Rule, profiles_of, rule_of
from sparring.benchmarks.rules.figures import grouped
from sparring.benchmarks.scoring import marks_of
from sparring.data.errors import RunError
from sparring.measures.statistics import bootstrap_statistic, holm, mcnemar_exact, paired_bootstrap, rate

RESAMPLES = 500


def mark_all(answered: Sequence[Answered], benchmark: str, resources: Mapping[str, Any]) -> dict[str, list[Mark]]:
    """Profile -> one mark an item, for every profile that knows the benchmark."""
    return {profile: read_marks(rule_of(profile, benchmark), answered, resources) for profile in profiles_of(benchmark)}


def profile_figures(
    answered: Sequence[Answered], marks: Sequence[Mark], rule: Rule, *, seed: int = 0, judge: str | None = None
) -> dict[str, Any]:
    """What a profile says: its figures, the first of them with an interval, counts, and baselines on the same scale.

    judge: the model that was asked about what the rule left unread; `judged` then counts the answers that it read.

    The interval is Wilson's where the figure is the share of items that are right, else a percentile bootstrap over pictures.
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
        asked = f"{judge} read {read} answers that the rule did not" if rule.unjudged else ""
        found |= {"judged": read, "note": "; ".join(part for part in (asked, rule.note) if part)}
    return found


def _interval(marked: Sequence[Marked], rule: Rule, name: str, value: float, rows: int, seed: int) -> list[float | None]:
    if not marked:
        return [None, None]
    # An accuracy of all, or of one split.
    plain = name.startswith("accuracy") or name == "aAcc"
    if plain and {mark.score for _, mark in marked} <= {0.0, 1.0}:
        hits = round(value * rows)
        found = rate([True] * hits + [False] * (rows - hits))
        return [found.low, found.high]
    clusters = list(grouped(marked, lambda one: one[0].cluster or one[0].item.id).values())

    def statistic(drawn: Sequence[int]) -> float:
        return rule.figures([one for place in drawn for one in clusters[place]])[name]

    return list(bootstrap_statistic(statistic, len(clusters), resamples=RESAMPLES, seed=seed))


def _baseline(marked: Sequence[Marked], rule: Rule, kind: str) -> float | None:
    """The first figure of a model that always says the first option, or the most frequent right one; None where answers are free."""
    if not marked or not any(one.item.choices for one, _ in marked):
        return None
    usual = Counter(one.item.answer for one, _ in marked if one.item.choices).most_common()
    most = min((answer for answer, count in usual if count == usual[0][1]), default=None)
    said = [(one.item.choices[0] if kind == "first" else most) if one.item.choices else None for one, _ in marked]
    figures = rule.figures(
        [(one, Mark(word, float(word is not None and word == one.item.answer))) for (one, _), word in zip(marked, said, strict=True)]
    )
    return next(iter(figures.values()))


def table_rows(profiles: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The side-by-side table: a head and one row a profile."""
    counts = ["n", "unparsed", "errors", "left_out", *(["judged"] if any("judged" in own for own in profiles.values()) else [])]
    head = ["profile", "figure", "value", "95 % interval", *(name.replace("_", " ") for name in counts), "always first", "majority"]
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
    facts = [f"{results['title']} ({results['items']} items, {results['pictures']} pictures), answered by {results['defender']}."]
    facts.append(
        f"Prompt style {results['prompt']}, {results['trials']} trial(s), temperature {results['temperature']:g}. {pixels_in_words(results)}"
    )
    if results.get("without_picture"):
        facts.append(f"{results['without_picture']} items are asked without a picture, as the benchmark wants it.")
    if dropped := results.get("dropped"):
        facts.append(f"Left out are {sum(dropped.values())} bad records ({', '.join(f'{why}: {n}' for why, n in dropped.items())}).")
    if judge := results.get("judge"):
        counts = ", ".join(f"{judge[name]} {name.replace('_', ' ')}" for name in ("read", "none", "malformed", "given_up"))
        facts.append(f"The judge {judge['model']} was asked about {judge['asked']} replies: {counts}.")
    notes = [f"* {name}: {own['note']}." for name, own in results["profiles"].items() if own["note"]]
    return "\n".join([f"# {results['title']}", "", *facts, "", *lines, "", *notes]).rstrip() + "\n"


def pixels_in_words(results: Mapping[str, Any]) -> str:
    """What happened to the pictures before the model saw them."""
    limits, reduced = results["pixels"]["limits"], results["pixels"]["reduced"]
    if "max_area" in limits:
        text = f"The processor keeps pictures between {limits['min_area']:,} and {limits['max_area']:,} pixels"
    elif "size" in limits:
        sides = " x ".join(str(value) for value in limits["size"].values())
        text = f"The processor makes every picture {sides} pixels"
    elif limits.get("max_area_sent") is not None:
        text = f"Pictures were sent with at most {limits['max_area_sent']:,} pixels; what the server makes of them it decides by itself"
    else:
        return "Pictures were sent as they are; what the server makes of them it decides by itself."
    return f"{text}; {reduced} of {results['pictures']} pictures were made smaller." if reduced is not None else f"{text}."


def headline(results: Mapping[str, Any], profile: str) -> str:
    """The quoted figure in a line."""
    own = results["profiles"][profile]
    if own["value"] is None:
        return f"{own['figure']}: nothing to count"
    low, high = own["ci95"]
    return f"{own['figure']} {100 * own['value']:.1f} %  of {own['n']}  (95 % interval {100 * low:.1f} to {100 * high:.1f})"


PAIRED_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Pair:
    """One item in both: under one profile, before (A) and after (B)."""

    before: Answered
    after: Answered
    before_mark: Mark
    after_mark: Mark

    @property
    def outcome(self) -> str:
        """ "harmed" (right only before), "rescued" (right only after), "right" or "wrong" in both; right is a full score."""
        right = self.before_mark.score == 1, self.after_mark.score == 1
        return {(True, False): "harmed", (False, True): "rescued", (True, True): "right", (False, False): "wrong"}[right]


def pair_up(before: Path, after: Path, profile: str) -> tuple[dict[str, Any], list[Pair]]:
    """What the two evaluations are, and their common items under one profile; items that a profile leaves out in either are left out.

    Raises RunError where they are of different suites, share no item, or a common item was another question.
    """
    (facts_a, items_a, marks_a), (facts_b, items_b, marks_b) = marks_of(before, profile), marks_of(after, profile)
    if facts_a["rules"] != facts_b["rules"]:
        raise RunError(f"{before} is an evaluation of {facts_a['title']} and {after} of {facts_b['title']}: there is nothing to compare.")
    first = {one.item.id: (one, mark) for one, mark in zip(items_a, marks_a, strict=True)}
    pairs, left_out = [], 0
    for one, mark in zip(items_b, marks_b, strict=True):
        if one.item.id not in first:
            continue
        other, other_mark = first[one.item.id]
        # The words of a yes-no question may be shown as options in one and not in the other.
        shown = [sorted(item.options) if item.kind == "choice" else [] for item in (other.item, one.item)]
        if other.item.question != one.item.question or shown[0] != shown[1]:
            raise RunError(f'item "{one.item.id}" asks "{other.item.question}" in {before} and "{one.item.question}" in {after}.')
        if "left_out" in (mark.status, other_mark.status):
            left_out += 1
        else:
            pairs.append(Pair(other, one, other_mark, mark))
    if not pairs:
        raise RunError(f"{before} and {after} have no item in common.")
    facts = {
        "suite": facts_b["suite"],
        "title": facts_b["title"],
        "profile": profile,
        "before": {"folder": str(before), "defender": facts_a["defender"], "headline": _headline(facts_a, profile)},
        "after": {"folder": str(after), "defender": facts_b["defender"], "headline": _headline(facts_b, profile)},
        "only_before": len(items_a) - len(pairs) - left_out,
        "only_after": len(items_b) - len(pairs) - left_out,
        "left_out": left_out,
        "differences_in_asking": [
            name for name in ("prompt", "trials", "temperature", "max_new_tokens", "shuffled", "seed") if facts_a[name] != facts_b[name]
        ]
        + (["judge"] if facts_a.get("judge", {}).get("model") != facts_b.get("judge", {}).get("model") else []),
        "other_pictures": sum(pair.before.cluster != pair.after.cluster for pair in pairs),
    }
    return facts, pairs


def _headline(facts: Mapping[str, Any], profile: str) -> dict[str, Any]:
    own = facts["profiles"][profile]
    return {name: own[name] for name in ("figure", "value", "ci95", "n")}


def paired_difference(pairs: Sequence[Pair], *, seed: int = 0) -> dict[str, Any]:
    """After minus before: the mean difference of scores with its interval from the bootstrap of whole pictures, and McNemar's exact p."""
    a, b = [pair.after_mark.score for pair in pairs], [pair.before_mark.score for pair in pairs]
    # An edited picture stands for the one that it was made from: pictures of before tie items together.
    difference = paired_bootstrap(a, b, [pair.before.cluster for pair in pairs], resamples=PAIRED_RESAMPLES, seed=seed)
    outcomes = [pair.outcome for pair in pairs]
    harmed, rescued = outcomes.count("harmed"), outcomes.count("rescued")
    return {
        "before": sum(b) / len(b),
        "after": sum(a) / len(a),
        "difference": difference.as_dict(),
        "harmed": harmed,
        "rescued": rescued,
        "net_flips": harmed - rescued,
        "mcnemar": mcnemar_exact([score == 1 for score in a], [score == 1 for score in b]),
    }


def compare(before: Path, after: Path, profile: str, *, seed: int = 0) -> dict[str, Any]:
    """The comparison of two evaluations under one profile: all items, and every category with p-values adjusted by Holm."""
    facts, pairs = pair_up(before, after, profile)
    parts = {name: part for name, part in _by_category(pairs).items() if name}
    categories = {name: paired_difference(part, seed=seed) for name, part in sorted(parts.items())}
    for own, adjusted in zip(categories.values(), holm([own["mcnemar"] for own in categories.values()]), strict=True):
        own["mcnemar_holm"] = adjusted
    return {"schema": 1, "kind": "comparison", **facts, "all": paired_difference(pairs, seed=seed), "categories": categories}


def _by_category(pairs: Sequence[Pair]) -> dict[str | None, list[Pair]]:
    by_name = {pair.after.item.id: pair for pair in pairs}
    groups = grouped([(pair.after, pair.after_mark) for pair in pairs], lambda one: one[0].item.category)
    return {name: [by_name[one.item.id] for one, _ in part] for name, part in groups.items()}
