"""The benchmarks that can be evaluated: how their files are read, how their questions are put, whose rules
score them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparring.benchmarks.chair import Vocabulary
from sparring.data.coco import CocoPicture, coco_pictures, id_key
from sparring.data.errors import DataError, Fault, RecipeError, refuse
from sparring.data.files import files_below
from sparring.data.items import Item, Record, Records
from sparring.data.layouts import FORMATS, find_layout, looks_like
from sparring.data.pictures import named_picture
from sparring.data.rows import Layout, read_rows
from sparring.data.suites import field_of, only_file, read_amber, read_hallusionbench, read_pope, read_vqav2
from sparring.data.tables import Row
from sparring.data.vstar import read_vstar, records_of

CAPTION = "Describe this image in detail."


def read_chair(path: Path, images: Path | None) -> Records:
    """CHAIR: a folder with COCO's `instances*.json`, the official `synonyms.txt`, and, where it is there,
    `captions*.json`; one caption a picture.

    The objects of a picture are those that were annotated, and those that its reference captions name. A
    caption that is no text, or of no picture, is a bad record of its own.
    """
    vocabulary = Vocabulary.read(only_file(path, "synonyms.txt"))
    instances = only_file(path, "instances*.json")
    told: dict[str, set[str]] = defaultdict(set)
    for file in files_below(path, "captions*.json"):
        for number, note in enumerate(field_of(file, "annotations"), start=1):
            if isinstance(note, dict) and "image_id" in note and isinstance(note.get("caption"), str):
                told[id_key(note["image_id"])] |= set(vocabulary.objects(note["caption"]))
            else:
                fault = Fault("wrong type", "must be an object with an image_id and a caption, a text.")
                yield Record(number, None, (fault.of(file, "annotation", number),), "annotation")
    pictures = list(coco_pictures(instances))
    yield from records_of(
        instances, "image", pictures, lambda number, own: _caption(images or path, own, vocabulary, told)
    )


def _caption(
    folder: Path, picture: CocoPicture, vocabulary: Vocabulary, told: Mapping[str, set[str]]
) -> Item:
    if picture.file is None:
        raise Fault("missing key", "the picture has no file_name.")
    objects = {name for note in picture.notes for name in vocabulary.objects(note.name)} | told.get(
        id_key(picture.id), set()
    )
    return Item(
        picture.id,
        "caption",
        CAPTION,
        "",
        pictures=(named_picture(folder, picture.file),),
        meta={"objects": sorted(objects)},
    )


def chair_resources(path: Path) -> dict[str, Any]:
    """What CHAIR's scores need beside the items: the lines of synonyms."""
    return {"synonyms": Vocabulary.read(only_file(path, "synonyms.txt")).lines}


Reader = Callable[[Path, Path | None], Records]
MMMU_SUBJECT = re.compile(r"^[a-z]+_(.+?)_\d+$")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """name: as --suite has it. rules: the name under which profiles know it. shuffle: options are put in an
    order of our own, item by item.

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


def _rows(name: str, *needed: str | tuple[str, ...], **more: Any) -> Reader:
    layout = Layout(name, needed=needed, **{"open_answers": False, **more})
    return lambda path, images: read_rows(path, layout, images)


_lines_of_vstar = _rows("vstar", "category")
_table_of_mmmu = _rows(
    "mmmu",
    open_answers=True,
    category=("category", "subject"),
    extra=lambda row: {"split": row.text("split")},
)
_own_table = _rows("custom", open_answers=True, extra=lambda row: {"split": row.text("split")})


def _vstar(path: Path, images: Path | None) -> Records:
    lines = path / "test_questions.jsonl"
    if path.is_dir() and lines.is_file() and not list(path.glob("*/*.json")):
        return _lines_of_vstar(lines, images)
    return read_vstar(path, images) if path.is_dir() else _lines_of_vstar(path, images)


def _mmmu(path: Path, images: Path | None) -> Records:
    for record in _table_of_mmmu(path, images):
        item = record.item
        yield (
            record
            if item is None or item.category
            else replace(record, item=replace(item, category=_subject(item.id)))
        )


def _subject(identity: str) -> str | None:
    match = MMMU_SUBJECT.match(identity)
    return match[1] if match else None


def _custom(path: Path, images: Path | None) -> Records:
    """A table of one's own, or any other layout that can be told."""
    found = find_layout(path)
    return (
        found.format.read(found.path, images) if found.name not in TABLES else _own_table(found.path, images)
    )


TABLES = ("jsonl", "huggingface", "vlmevalkit")
_CYCLES = {"extra": lambda row: {"cycle": row.text("cycle_category")}}
_SUB_TASKS = ("category", "sub_task")
_hrbench = _rows("hrbench", "A", "B", "C", "D", "category", "cycle_category", **_CYCLES)
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("vstar", "V*Bench", "vstar", _vstar),
        # The four cycles of a question are the answer to the order of options; another order would undo them.
        Benchmark("hrbench-4k", "HR-Bench 4K", "hrbench", _hrbench, shuffle=False),
        Benchmark("hrbench-8k", "HR-Bench 8K", "hrbench", _hrbench, shuffle=False),
        Benchmark("pope", "POPE", "pope", read_pope),
        Benchmark("hallusionbench", "HallusionBench", "hallusionbench", read_hallusionbench),
        Benchmark("mmmu", "MMMU", "mmmu", _mmmu),
        Benchmark(
            "mmstar",
            "MMStar",
            "mmstar",
            _rows("mmstar", "category", ("l2_category", "l2-category"), extra=_l2),
        ),
        Benchmark("realworldqa", "RealWorldQA", "realworldqa", _rows("realworldqa", open_answers=True)),
        Benchmark("blink", "BLINK", "blink", _rows("blink", _SUB_TASKS, category=_SUB_TASKS)),
        Benchmark("ai2d", "AI2D", "ai2d", _rows("ai2d")),
        Benchmark("vqav2", "VQAv2", "vqav2", read_vqav2),
        Benchmark("amber", "AMBER, discriminative", "amber", read_amber),
        Benchmark("chair", "CHAIR", "chair", read_chair, resources=chair_resources),
        Benchmark("custom", "questions of your own", "custom", _custom),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name. Raises RecipeError, listing the names, where there is none of it."""
    if name not in BENCHMARKS:
        raise RecipeError(f"--suite {name}: no such suite. There are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


def read_benchmark(
    benchmark: Benchmark, path: Path, images: Path | None = None, *, skip_bad: bool = False
) -> list[Item]:
    """The items of a benchmark's file or folder.

    Raises DataError, naming the column, field or file that is missing, and what the data look like instead;
    or the records that are wrong, where bad ones are not to be skipped, or none is good.
    """
    return [
        record.item
        for record in read_benchmark_records(benchmark, path, images, skip_bad=skip_bad)
        if record.item is not None
    ]


def read_benchmark_records(
    benchmark: Benchmark, path: Path, images: Path | None = None, *, skip_bad: bool = False
) -> list[Record]:
    """As `read_benchmark`, with the records that are bad, which hold no item."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Name the data of {benchmark.title} with --data.")
    try:
        records = list(benchmark.read(path, images))
    except DataError as error:
        found = looks_like(path)
        if "this is " in str(error) or found in (FORMATS[name].words for name in TABLES):
            raise
        raise DataError(f"{error} What lies there is {found}.") from error
    problems = [problem for record in records for problem in record.problems]
    good = any(record.item is not None for record in records)
    if problems and not (skip_bad and good):
        raise refuse(path, problems, nothing_left=skip_bad)
    seen: set[str] = set()
    for record in records:
        if record.item is not None and record.item.id in seen:
            raise DataError(f'{path}: the id "{record.item.id}" is given twice. Ids are unique in a suite.')
        seen |= {record.item.id} if record.item is not None else set()
    return records
