"""The suites of `sparring_arena.suites` in the official layouts of the benchmarks whose shape they have, so
that they are read, asked and scored as those are.

    vstar            "visual_search" as a folder of pairs of JSON and picture; the right option comes first
    hrbench          "large_pictures" as a TSV with pictures in base64, `category` and `cycle_category`
    pope             "presence" as JSON lines, a file each for random, popular and adversarial absent objects
    hallusionbench   "altered_pairs" as `HallusionBench.json`: a set is a pair of pictures, its figures are
                     the two pictures (0 before, 1 after), its questions are asked of both; category VD,
                     subcategory "added" or "removed"

Beside what the official files hold stand the boxes of the targets (`targets`), and the suite's own JSONL
file. Each function writes below the folder that it is given, always the same bytes for the same arguments,
and returns the path that `sparring eval --data` and `sparring probe --data` take:

    sparring eval --suite vstar --data sparring_arena.benchmarks:vstar:number=100 ...
"""

from __future__ import annotations

import base64
import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparring.data.presence import YES
from sparring.data.questions import read_questions
from sparring.data.records import LETTERS, VisualQuestion
from sparring_arena.suites import SIDE, write_suite


def vstar(folder: str | Path, *, seed: int = 0, number: int = 100) -> Path:
    """V*Bench's folder: `direct_attributes/` and `relative_position/`, half of the `number`
    questions each.
    """
    folder = Path(folder)
    for question in _suite(folder, "visual_search", seed, number):
        own = folder / str(question.category)
        own.mkdir(exist_ok=True)
        shutil.copyfile(question.image, own / f"{question.id}.png")
        wrong = [option for option in question.options if option != question.answer_text]
        record = {
            "target_object": [target.name for target in question.targets],
            "bbox": [
                [x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in (target.box for target in question.targets)
            ],
            "question": question.question,
            "options": [question.answer_text, *wrong],
        }
        (own / f"{question.id}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return folder


def hrbench(folder: str | Path, *, seed: int = 0, number: int = 50, side: int = SIDE) -> Path:
    """HR-Bench's TSV: `number` pictures of `side` x `side` pixels, each asked in four orders of its options;
    three rows refer to the first's picture.
    """
    folder = Path(folder)
    shown: dict[Path, int] = {}
    rows = []
    for index, question in enumerate(_suite(folder, "large_pictures", seed, number, side)):
        first = shown.setdefault(question.image, index)
        rows.append(
            {
                "index": index,
                "question": question.question,
                **dict(zip(LETTERS, question.options, strict=False)),
                "answer": question.answer,
                "category": question.category,
                "cycle_category": question.id.rsplit("-", 1)[1],
                "image": base64.b64encode(question.image.read_bytes()).decode() if first == index else first,
                "targets": json.dumps(_targets(question)),
            }
        )
    path = folder / "hrbench.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def pope(folder: str | Path, *, seed: int = 0, number: int = 50) -> Path:
    """POPE's folder of `scenes_pope_random.json`, `..._popular.json` and `..._adversarial.json`: up to four
    questions about each of `number` pictures.
    """
    folder = Path(folder)
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for question in _suite(folder, "presence", seed, number):
        own = lines[str(question.category)]
        own.append(
            {
                "question_id": len(own) + 1,
                "image": question.image.relative_to(folder.resolve()).as_posix(),
                "text": question.question,
                "label": question.answer_text,
                "targets": _targets(question),
            }
        )
    for split, records in lines.items():
        _write_lines(folder / f"scenes_pope_{split}.json", records)
    return folder


def hallusionbench(folder: str | Path, *, seed: int = 0, number: int = 50) -> Path:
    """HallusionBench's folder: `number` pairs of pictures, two questions about both of each pair."""
    folder = Path(folder)
    questions = _suite(folder, "altered_pairs", seed, number)
    kinds = {
        question.id.split("-")[1]: question.category for question in questions if "-changed-" in question.id
    }
    records = []
    for question in questions:
        _, pair, which, half = question.id.split("-")
        figure = ("before", "after").index(half)
        records.append(
            {
                "category": "VD",
                "subcategory": kinds[pair],
                "visual_input": str(figure + 1),
                "set_id": str(int(pair)),
                "figure_id": str(figure),
                "question_id": str(("changed", "kept").index(which)),
                "question": question.question,
                "gt_answer": str(int(question.answer_text == YES)),
                "filename": f"./{question.image.relative_to(folder.resolve()).as_posix()}",
                "targets": _targets(question),
            }
        )
    (folder / "HallusionBench.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return folder


def _suite(folder: Path, name: str, seed: int, number: int, side: int = SIDE) -> list[VisualQuestion]:
    return read_questions(write_suite(folder, name, seed=seed, number=number, side=side)).records


def _targets(question: VisualQuestion) -> list[dict[str, Any]]:
    return [{"name": target.name, "box": list(target.box)} for target in question.targets]


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
