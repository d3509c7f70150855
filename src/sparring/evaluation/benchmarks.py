"""The benchmarks that can be evaluated: how their files are read, how their questions are put, whose rules score them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparring.data.errors import DataError, RecipeError
from sparring.evaluation import formats
from sparring.evaluation.choices import read_choices
from sparring.evaluation.items import Item
from sparring.evaluation.tables import Row

Reader = Callable[[Path, Path | None], list[Item]]
MMMU_SUBJECT = re.compile(r"^[a-z]+_(.+?)_\d+$")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """name: as --suite has it. rules: the name under which profiles know it. shuffle: options are put in an order of our own, item by item.

    resources: what scores need beside the items, read from the data.
    """

    name: str
    title: str
    rules: str
    read: Reader
    shuffle: bool = True
    resources: Callable[[Path], Mapping[str, Any]] = lambda path: {}


def _l2(row: Row) -> dict[str, Any]:
    return {"l2_category": row.text("l2_category", "l2-category")}


def _custom(path: Path, images: Path | None) -> list[Item]:
    return read_choices(path, "custom", images=images, open_answers=True, extra=lambda row: {"split": row.text("split")})


def _hrbench(path: Path, images: Path | None) -> list[Item]:
    needed = ("A", "B", "C", "D", "category", "cycle_category")
    return read_choices(path, "hrbench", images=images, needed=needed, extra=lambda row: {"cycle": row.text("cycle_category")})


def _mmstar(path: Path, images: Path | None) -> list[Item]:
    return read_choices(path, "mmstar", images=images, needed=("category", ("l2_category", "l2-category")), extra=_l2)


def _mmmu(path: Path, images: Path | None) -> list[Item]:
    category, extra = ("category", "subject"), lambda row: {"split": row.text("split")}
    items = read_choices(path, "mmmu", images=images, open_answers=True, category=category, extra=extra)
    return [item if item.category else replace(item, category=_subject(item.id)) for item in items]


def _subject(identity: str) -> str | None:
    match = MMMU_SUBJECT.match(identity)
    return match[1] if match else None


def _realworldqa(path: Path, images: Path | None) -> list[Item]:
    return read_choices(path, "realworldqa", images=images, open_answers=True)


def _blink(path: Path, images: Path | None) -> list[Item]:
    return read_choices(path, "blink", images=images, needed=(("category", "sub_task"),), category=("category", "sub_task"))


def _ai2d(path: Path, images: Path | None) -> list[Item]:
    return read_choices(path, "ai2d", images=images)


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("vstar", "V*Bench", "vstar", formats.read_vstar),
        # The four cycles of a question are the answer to the order of options; another order would undo them.
        Benchmark("hrbench-4k", "HR-Bench 4K", "hrbench", _hrbench, shuffle=False),
        Benchmark("hrbench-8k", "HR-Bench 8K", "hrbench", _hrbench, shuffle=False),
        Benchmark("pope", "POPE", "pope", formats.read_pope),
        Benchmark("hallusionbench", "HallusionBench", "hallusionbench", formats.read_hallusionbench),
        Benchmark("mmmu", "MMMU", "mmmu", _mmmu),
        Benchmark("mmstar", "MMStar", "mmstar", _mmstar),
        Benchmark("realworldqa", "RealWorldQA", "realworldqa", _realworldqa),
        Benchmark("blink", "BLINK", "blink", _blink),
        Benchmark("ai2d", "AI2D", "ai2d", _ai2d),
        Benchmark("vqav2", "VQAv2", "vqav2", formats.read_vqav2),
        Benchmark("amber", "AMBER, discriminative", "amber", formats.read_amber),
        Benchmark("chair", "CHAIR", "chair", formats.read_chair, resources=formats.chair_resources),
        Benchmark("custom", "questions of your own", "custom", _custom),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name. Raises RecipeError, listing the names, where there is none of it."""
    if name not in BENCHMARKS:
        raise RecipeError(f"--suite {name}: no such suite. There are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


def read_benchmark(benchmark: Benchmark, path: Path, images: Path | None = None) -> list[Item]:
    """The items of a benchmark's file or folder. Raises DataError, naming the column, field or file that is missing or the row that is wrong."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Name the data of {benchmark.title} with --data.")
    items = benchmark.read(path, images)
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f'{path}: the id "{item.id}" is given twice. Ids are unique in a suite.')
        seen.add(item.id)
    return items
