"""Which items of a benchmark are asked, and with their options in which order; without any model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sparring.config import EvalSettings
from sparring.evaluation.benchmarks import Benchmark, read_benchmark, read_benchmark_records
from sparring.evaluation.items import Item, shuffled_options, with_yes_no_options
from sparring.rl.seeds import derive_seed


def shuffles(settings: EvalSettings, benchmark: Benchmark) -> bool:
    """Are options put in an order of our own?"""
    return benchmark.shuffle if settings.shuffle is None else settings.shuffle


def chosen_items(settings: EvalSettings, benchmark: Benchmark, data: Path) -> tuple[list[Item], dict[str, int]]:
    """The benchmark's items, or `limit` of them, drawn by the seed and left in their order; with options as
    they are to be shown.

    And reason -> bad records that were dropped, where the settings want that; else they raise DataError.
    """
    images = Path(settings.images) if settings.images else None
    records = read_benchmark_records(benchmark, data, images, skip_bad=settings.skip_bad_records)
    items = [record.item for record in records if record.item is not None]
    items = drawn(items, limit=settings.limit, seed=settings.seed, shuffle=shuffles(settings, benchmark))
    dropped = Counter(record.problems[0].reason for record in records if record.problems)
    return [with_yes_no_options(item) for item in items] if settings.prompt == "options" else items, dict(dropped)


def draw_items(
    benchmark: Benchmark,
    data: Path,
    images: Path | None,
    *,
    limit: int | None,
    seed: int,
    shuffle: bool,
    skip_bad: bool = False,
) -> list[Item]:
    """The benchmark's items, or `limit` of them, drawn by the seed and left in their order. shuffle: options
    in an order that follows from the seed."""
    return drawn(read_benchmark(benchmark, data, images, skip_bad=skip_bad), limit=limit, seed=seed, shuffle=shuffle)


def drawn(items: list[Item], *, limit: int | None, seed: int, shuffle: bool) -> list[Item]:
    """The items, or `limit` of them, drawn by the seed and left in their order; their options, where wanted,
    in an order of the seed's."""
    if limit is not None:
        kept = {item.id for item in sorted(items, key=lambda item: derive_seed(seed, "limit", item.id))[:limit]}
        items = [item for item in items if item.id in kept]
    return [shuffled_options(item, seed) for item in items] if shuffle else items


def data_sha256(items: Sequence[Item]) -> str:
    """SHA-256 of what is asked: ids, questions, options as shown, answers. Pictures are told apart by the
    answers' keys."""
    lines = (json.dumps([item.id, item.kind, item.question, list(item.options), item.answer]) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
