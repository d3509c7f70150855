"""Whatever a record holds, it is read or refused by name: nothing raises but this project's errors."""

import csv
import json
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparring.benchmarks.layouts import BENCHMARKS, read_benchmark
from sparring.data.convert import convert
from sparring.data.errors import DataError
from sparring.data.questions import open_records, read_questions

ODD: list[Any] = [
    None, "", 0, -1, 3.5, float("nan"), float("inf"), True, [], {}, [None], [[]], {"a": 1}, {"bytes": None}, {"path": 3}, {"bytes": "x"},
    ["a", "b", None, "c"], "\ud800", "\0", "nan", "[", "{", "['a'", "[1,2]", "{'a': 1}", "data:", "data:image/png;base64,!!!!", "A" * 70,
    "../a.png", "/", "~", "a.png\n", "(A)", "A.", ["A", {"b": 1}], {"text": ["a"], "label": ["A"]}, {"text": "a", "label": "A"},
    {"A": None, "B": "x"}, {"A": ["x"], "B": "y"}, 10**30, 1e300, "9" * 50, "²", "１", ["a.png", "a.png"], {"name": "x", "box": [1, 2, 3, 4]},
    [{"name": "x", "box": None}], [{"name": 1, "box": [1, 2, 3, 4]}], [{"name": "x", "box": ["1", 2, 3, 4]}], {"name": ["a"], "box": 3},
]  # fmt: skip
ROW: dict[str, Any] = {
    "id": "r", "index": 1, "image": "a.png", "question": "Which?", "options": ["x", "y"], "answer": "A", "targets": [], "category": "c",
    "l2_category": "d", "cycle_category": "0", "A": "x", "B": "y", "C": "z", "D": "w", "text": "t", "label": "yes", "hint": "h",
    "question_type": "multiple-choice", "reasoning": "r", "l2-category": "e",
}  # fmt: skip
FILES: dict[str, Any] = {
    "coco.json": {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "cup"}],
    },
    "relations.json": [
        {
            "image": "a.png",
            "conversations": [{"value": "?"}, {"value": "left"}],
            "target_instances": [{"name": "cup", "bbox": [1, 2, 3, 4]}],
            "id": 1,
        }
    ],
    "v/a.json": {"question": "?", "options": ["x", "y"], "target_object": ["cup"], "bbox": [[1, 2, 3, 4]]},
    "HallusionBench.json": [
        dict.fromkeys(
            (
                "category",
                "subcategory",
                "visual_input",
                "set_id",
                "figure_id",
                "question_id",
                "question",
                "gt_answer",
            ),
            "1",
        )
        | {"filename": "a.png"}
    ],
}


def tried(read: Callable[[], object]) -> None:
    with suppress(DataError):
        read()


@pytest.mark.parametrize("suffix", ["jsonl", "json", "tsv"])
def test_odd_values_in_tables(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    path, rng = tmp_path / f"q.{suffix}", random.Random(suffix)
    suites = [suite for name, suite in BENCHMARKS.items() if name != "chair"]
    for round_ in range(150):
        rows = []
        for number in range(3):
            row = (
                ROW
                | {"id": f"r{number}", "index": number}
                | {name: rng.choice(ODD) for name in rng.sample(list(ROW), rng.randint(0, 3))}
            )
            rows.append({name: value for name, value in row.items() if rng.random() > 0.03})
        if suffix == "tsv":
            with path.open("w", newline="", errors="surrogatepass") as file:
                writer = csv.DictWriter(file, list(ROW), delimiter="\t")
                writer.writeheader()
                writer.writerows(
                    [
                        {
                            name: json.dumps(cell) if isinstance(cell, list | dict) else cell
                            for name, cell in row.items()
                        }
                        for row in rows
                    ]
                )
        else:
            path.write_text("\n".join(map(json.dumps, rows)) if suffix == "jsonl" else json.dumps(rows))
        tried(partial(read_questions, path, skip_bad=round_ % 2 == 0))
        tried(partial(read_benchmark, rng.choice(suites), path, skip_bad=round_ % 2 == 0))
        if round_ % 10 == 0:
            tried(lambda: convert(path, open_records(path), tmp_path / "out", skip_bad=True))


@pytest.mark.parametrize("name", FILES)
def test_odd_values_in_annotations(tmp_path: Path, name: str) -> None:
    path, rng = tmp_path / name, random.Random(name)
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(path.parent / "a.png")

    def spoilt(value: Any) -> Any:
        if rng.random() < 0.15:
            return rng.choice(ODD)
        if isinstance(value, dict):
            return {key: spoilt(own) for key, own in value.items() if rng.random() > 0.03}
        return [spoilt(own) for own in value] if isinstance(value, list) else value

    for _ in range(150):
        path.write_text(json.dumps(spoilt(FILES[name])))
        tried(lambda: read_questions(path.parent if name.startswith("v/") else path, skip_bad=True))
        tried(lambda: read_benchmark(BENCHMARKS["vstar"], path.parent))
        tried(lambda: read_benchmark(BENCHMARKS["hallusionbench"], path))
