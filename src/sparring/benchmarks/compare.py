"""Two evaluations of the same questions, item by item: who is harmed, who is rescued, and whether the
difference is more than chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.benchmarks.items import Answered, Mark
from sparring.benchmarks.rules.figures import grouped
from sparring.benchmarks.scoring import marks_of
from sparring.data.errors import RunError
from sparring.measures.statistics import holm, mcnemar_exact, paired_bootstrap

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Pair:
    """One item in both: under one profile, before (A) and after (B)."""

    before: Answered
    after: Answered
    before_mark: Mark
    after_mark: Mark

    @property
    def outcome(self) -> str:
        """ "harmed" (right only before), "rescued" (right only after), "right" or "wrong" in both; right is a
        full score.
        """
        right = self.before_mark.score == 1, self.after_mark.score == 1
        return {
            (True, False): "harmed",
            (False, True): "rescued",
            (True, True): "right",
            (False, False): "wrong",
        }[right]


def pair_up(before: Path, after: Path, profile: str) -> tuple[dict[str, Any], list[Pair]]:
    """What the two evaluations are, and their common items under one profile; items that a profile leaves out
    in either are left out.

    Raises RunError where they are of different suites, share no item, or a common item was another question.
    """
    (facts_a, items_a, marks_a), (facts_b, items_b, marks_b) = (
        marks_of(before, profile),
        marks_of(after, profile),
    )
    if facts_a["rules"] != facts_b["rules"]:
        raise RunError(
            f"{before} is an evaluation of {facts_a['title']} and {after} of {facts_b['title']}: there is "
            f"nothing to compare."
        )
    first = {one.item.id: (one, mark) for one, mark in zip(items_a, marks_a, strict=True)}
    pairs, left_out = [], 0
    for one, mark in zip(items_b, marks_b, strict=True):
        if one.item.id not in first:
            continue
        other, other_mark = first[one.item.id]
        # The words of a yes-no question may be shown as options in one and not in the other.
        shown = [sorted(item.options) if item.kind == "choice" else [] for item in (other.item, one.item)]
        if other.item.question != one.item.question or shown[0] != shown[1]:
            raise RunError(
                f'item "{one.item.id}" asks "{other.item.question}" in {before} and "{one.item.question}" in '
                f"{after}."
            )
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
        "before": {
            "folder": str(before),
            "defender": facts_a["defender"],
            "headline": _headline(facts_a, profile),
        },
        "after": {
            "folder": str(after),
            "defender": facts_b["defender"],
            "headline": _headline(facts_b, profile),
        },
        "only_before": len(items_a) - len(pairs) - left_out,
        "only_after": len(items_b) - len(pairs) - left_out,
        "left_out": left_out,
        "differences_in_asking": list(_differences(facts_a, facts_b, pairs)),
        "other_pictures": sum(pair.before.cluster != pair.after.cluster for pair in pairs),
    }
    return facts, pairs


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], pairs: Sequence[Pair]) -> Iterator[str]:
    """What the two were asked differently in, in words."""
    for name in ("prompt", "trials", "temperature", "max_new_tokens", "shuffled", "seed"):
        if a[name] != b[name]:
            yield name
    if a["prompt"] == b["prompt"] and any(
        pair.before.prompt != pair.after.prompt
        for pair in pairs
        if pair.before.prompt and pair.after.prompt and pair.before.item.options == pair.after.item.options
    ):
        yield "words of the prompt"
    if a["pixels"]["limits"] != b["pixels"]["limits"]:
        yield "limits of pixels"
    if a.get("judge", {}).get("model") != b.get("judge", {}).get("model"):
        yield "judge"


def _headline(facts: Mapping[str, Any], profile: str) -> dict[str, Any]:
    own = facts["profiles"][profile]
    return {name: own[name] for name in ("figure", "value", "ci95", "n")}


def paired_difference(pairs: Sequence[Pair], *, seed: int = 0) -> dict[str, Any]:
    """After minus before: the mean difference of scores with its interval from the bootstrap of whole
    pictures, and McNemar's exact p.
    """
    a, b = [pair.after_mark.score for pair in pairs], [pair.before_mark.score for pair in pairs]
    # An edited picture stands for the one that it was made from: pictures of before tie items together.
    difference = paired_bootstrap(
        a, b, [pair.before.cluster for pair in pairs], resamples=RESAMPLES, seed=seed
    )
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
    """The comparison of two evaluations under one profile: all items, and every category with p-values
    adjusted by Holm.
    """
    facts, pairs = pair_up(before, after, profile)
    parts = {name: part for name, part in _by_category(pairs).items() if name}
    categories = {name: paired_difference(part, seed=seed) for name, part in sorted(parts.items())}
    for own, adjusted in zip(
        categories.values(), holm([own["mcnemar"] for own in categories.values()]), strict=True
    ):
        own["mcnemar_holm"] = adjusted
    return {
        "schema": 1,
        "kind": "comparison",
        **facts,
        "all": paired_difference(pairs, seed=seed),
        "categories": categories,
    }


def _by_category(pairs: Sequence[Pair]) -> dict[str | None, list[Pair]]:
    by_name = {pair.after.item.id: pair for pair in pairs}
    groups = grouped([(pair.after, pair.after_mark) for pair in pairs], lambda one: one[0].item.category)
    return {name: [by_name[one.item.id] for one, _ in part] for name, part in groups.items()}
