"""Training curves: one small multiple a phase for what matters, and everything else on a line through the
whole game.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from sparring.report.axes import Series, Style, curves, span_of
from sparring.report.run import Run

History = Sequence[tuple[int, Mapping[str, Any]]]

LABELS = {
    "reward_mean": "mean reward",
    "reward_std": "spread of the reward in a group",
    "dead_groups": "groups without signal (share)",
    "kept_groups": "kept",
    "thrown_high": "all right",
    "thrown_low": "all wrong",
    "surplus_groups": "groups sampled beyond need",
    "right_mean": "right answers (share)",
    "unparsed": "replies without an answer (share)",
    "finished": "replies that ended by themselves (share)",
    "broken": "updates left out: loss not finite",
    "length_mean": "tokens in a reply",
    "reward_accuracy": "reward: the right option in a box",
    "reward_format": "reward: nothing but the box",
    "reward_inconsistency": "reward: taken for inconsistent reasoning",
    "reward_length": "reward: punishment for length",
    "consistent": "answers that their reasoning arrives at (share)",
    "verdict_unread": "reasoning whose verdict is unread (share)",
    "consistency_weight": "weight of the consistency constraint",
    "reference_kl": "KL to the Defender before the round",
    "reward_bonus": "reward: bonus for passing the gate",
    "reward_efficacy": "reward: the Defender’s failures",
    "reward_frontier": "reward: failing half of the trials",
    "reward_fall": "reward: fall of the right answer’s probability",
    "reward_diversity": "reward: edits that differ from each other",
    "reward_variety": "reward: kinds of attack that are rare",
    "reward_custom": "reward: your own function",
    "reward_shortfall": "reward: penalty for damaged targets",
    "loss": "loss",
    "grad_norm": "gradient norm",
    "ratio_mean": "mean ratio",
    "ratio_first": "ratio before the first step",
    "clip_fraction": "clipped share",
    "approx_kl": "KL to the old policy",
    "kl": "KL to the reference",
    "skipped": "optimiser steps skipped",
    "intact": "intact",
    "accepted": "accepted",
    "fooled": "fooled",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart; `chart` is None for a phase that has not begun."""

    title: str
    chart: Markup | None


@dataclass(frozen=True)
class Strip:
    """Panels that share their axes, and what to read off them."""

    title: str
    note: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Player:
    """The curves of one player: those that matter, and all others."""

    name: str
    strips: tuple[Strip, ...]
    others: tuple[Panel, ...]


def players(run: Run) -> list[Player]:
    """The curves of the bootstrap, the Attacker and the Defender."""
    phases = {
        part: [run.histories.get(f"round{i}/{part}", []) for i in range(1, run.rounds + 1)]
        for part in ("attacker", "defender")
    }
    attacker, defender = phases["attacker"], phases["defender"]
    bootstrap = run.histories.get("round0/bootstrap", [])
    found = []
    if bootstrap:
        strip = _strip(
            "Loss of the fine-tuning",
            "Falling means that the editor learns to draw the distractors that worked.",
            [bootstrap],
            ["loss"],
            ["Bootstrap"],
        )
        found.append(Player("Bootstrap", (strip,), ()))
    titles = [f"Round {i}" for i in range(1, run.rounds + 1)]
    found.append(
        Player(
            "Attacker",
            (
                _strip(
                    "Reward",
                    "Higher means that more edits pass the gate and push the frozen Defender off the right "
                    "answer.",
                    attacker,
                    ["reward_mean"],
                    titles,
                ),
                _strip(
                    "What became of its edits",
                    "Shares of an update’s edits: targets intact, the whole gate passed, gate passed and "
                    "Defender fooled. Fooled should rise while accepted stays up.",
                    attacker,
                    ["intact", "accepted", "fooled"],
                    titles,
                    y_label="share of edits",
                    floor=0.0,
                    ceiling=1.0,
                ),
            ),
            panels_of(attacker, {"reward_mean", "intact", "accepted", "fooled"}),
        )
    )
    if any("reward_mean" not in metrics for phase in defender for _, metrics in phase):
        note = "Falling means that the Defender learns to say the right replies."
        found.append(
            Player(
                "Defender",
                (_strip("Loss of the fine-tuning", note, defender, ["loss"], titles),),
                panels_of(defender, {"loss"}),
            )
        )
        return found
    found.append(
        Player(
            "Defender",
            (
                _strip(
                    "Reward",
                    "Higher means more right answers in the asked form, on a mix of accepted edits and clean "
                    "pictures.",
                    defender,
                    ["reward_mean"],
                    titles,
                ),
                _strip(
                    "What became of the groups",
                    "Only groups whose replies differ in reward teach (kept). When nearly all are right, the "
                    "Defender has learned what these edits can teach.",
                    defender,
                    ["thrown_high", "thrown_low", "kept_groups"],
                    titles,
                    y_label="groups",
                    floor=0.0,
                ),
            ),
            panels_of(defender, {"reward_mean", "thrown_high", "thrown_low", "kept_groups"}),
        )
    )
    return found


def _values(history: History, metric: str, offset: int = 0) -> tuple[tuple[float, float], ...]:
    """(update from 1, value); nan where an update does not report the metric."""
    found = []
    for step, metrics in history:
        value = metrics.get(metric)
        found.append((float(offset + step + 1), float(value) if isinstance(value, int | float) else math.nan))
    return tuple(found)


def _strip(
    title: str,
    note: str,
    phases: Sequence[History],
    metrics: Sequence[str],
    titles: Sequence[str],
    *,
    y_label: str | None = None,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Strip:
    styles: tuple[Style, ...] = ("soft", "ink", "accent") if len(metrics) > 1 else ("accent",)
    series = [
        [Series(LABELS[m], _values(phase, m), style) for m, style in zip(metrics, styles, strict=True)]
        for phase in phases
    ]
    y_range = span_of([one for own in series for one in own], floor=floor, ceiling=ceiling)
    last = max((x for own in series for one in own for x, _ in one.points), default=1.0)
    panels = []
    for own, name in zip(series, titles, strict=True):
        drawn = any(one.finite for one in own)
        chart = (
            curves(
                own,
                label=f"{name}: {title}",
                y_range=y_range,
                x_range=(1.0, max(last, 2.0)),
                y_label=y_label or LABELS[metrics[0]],
            )
            if drawn
            else None
        )
        panels.append(Panel(name, chart))
    return Strip(title, note, tuple(panels))


def panels_of(phases: Sequence[History], shown: Set[str] = frozenset()) -> tuple[Panel, ...]:
    """A chart of every metric but those of `shown`, all phases on one line."""
    names = dict.fromkeys(
        name
        for phase in phases
        for _, metrics in phase
        for name, v in metrics.items()
        if isinstance(v, int | float)
    )
    panels = []
    for name in names:
        if name in shown:
            continue
        points: list[tuple[float, float]] = []
        breaks, offset = [], 0
        for phase in phases:
            if offset and phase:
                breaks.append(offset + 0.5)
                points.append((offset + 0.5, math.nan))
            points += _values(phase, name, offset)
            offset += max((step + 1 for step, _ in phase), default=0)
        one, label = Series(name, tuple(points), "ink"), LABELS.get(name, name.replace("_", " "))
        if one.finite:
            chart = curves(
                [one],
                label=label,
                y_range=span_of([one]),
                x_range=(1.0, max(offset, 2.0)),
                y_label="",
                x_label="update, all rounds",
                breaks=breaks,
            )
            panels.append(Panel(label, chart))
    return tuple(panels)
