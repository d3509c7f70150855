"""Which items of a benchmark are asked, and with their options in which order; without any model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sparring.config import EvalSettings
from sparring.evaluation.benchmarks import Benchmark, read_benchmark
from sparring.evaluation.items import Item, shuffled_options, with_yes_no_options
from sparring.rl.seeds import derive_seed


def shuffles(settings: EvalSettings, benchmark: Benchmark) -> bool:
    """Are options put in an order of our own?"""
    return benchmark.shuffle if settings.shuffle is None else settings.shuffle


def chosen_items(settings: EvalSettings, benchmark: Benchmark, data: Path) -> list[Item]:
    """The benchmark's items, or `limit` of them, drawn by the seed and left in their order; with options as
    they are to be shown."""
    images = Path(settings.images) if settings.images else None
    items = draw_items(benchmark, data, images, limit=settings.limit, seed=settings.seed, shuffle=shuffles(settings, benchmark))
    return [with_yes_no_options(item) for item in items] if settings.prompt == "options" else items


def draw_items(benchmark: Benchmark, data: Path, images: Path | None, *, limit: int | None, seed: int, shuffle: bool) -> list[Item]:
    """The benchmark's items, or `limit` of them, drawn by the seed and left in their order. shuffle: options
    in an order that follows from the seed."""
    items = read_benchmark(benchmark, data, images)
    if limit is not None:
        kept = {item.id for item in sorted(items, key=lambda item: derive_seed(seed, "limit", item.id))[:limit]}
        items = [item for item in items if item.id in kept]
    return [shuffled_options(item, seed) for item in items] if shuffle else items


def data_sha256(items: Sequence[Item]) -> str:
    """SHA-256 of what is asked: ids, questions, options as shown, answers. Pictures are told apart by the
    answers' keys."""
    lines = (json.dumps([item.id, item.kind, item.question, list(item.options), item.answer]) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
