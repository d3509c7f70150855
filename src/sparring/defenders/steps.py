"""Several optimizer steps on the answers of one roll-out: on which groups each is taken, and what an update says of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sparring.defenders.rollout import Group

Metrics = dict[str, float]


def mini_batches(groups: Sequence[Group], steps: int) -> list[Sequence[Group]]:
    """At most `steps` shares of whole groups, as equal as can be, none empty: share i has groups i, i + steps, ... in the order of sampling."""
    return [groups[first::steps] for first in range(min(steps, len(groups)))]


def of_all_steps(taken: Sequence[Metrics | None]) -> Metrics:
    """The metrics of an update from those of its steps, None for one that was left out because its loss or gradient was not finite.

    `broken` is the share of these. The others are means over the tokens of the steps that were taken, but for `grad_norm`, a mean over the steps,
    `trained_tokens`, a sum, and `ratio_first`, which is the first one's: it alone was computed with the weights that made the answers.
    """
    done = [metrics for metrics in taken if metrics is not None]
    broken = {"broken": 1 - len(done) / len(taken)}
    if not done:
        return broken
    tokens = sum(metrics["trained_tokens"] for metrics in done)
    means = {name: sum(metrics[name] * (metrics["trained_tokens"] / tokens) for metrics in done) for name in done[0]}
    return {
        **broken,
        **means,
        "ratio_first": done[0]["ratio_first"],
        "grad_norm": fmean(metrics["grad_norm"] for metrics in done),
        "trained_tokens": tokens,
        "micro_batch_halved": done[-1]["micro_batch_halved"],
    }
