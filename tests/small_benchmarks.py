"""Benchmark files of their official layouts, small and synthetic."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from small_eval import in_base64
from small_vlms import noise_pictures

PICTURES = noise_pictures(6)


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def hr_rows() -> list[dict[str, Any]]:
    rows = []
    for place in range(8):
        image = in_base64(PICTURES[place // 4]) if place % 4 == 0 else str(place // 4 * 4)
        options = dict(zip("ABCD", np.roll(["one", "two", "three", "four"], place).tolist(), strict=True))
        row = {"index": place, "question": 'Says "this\nor that"?', **options, "answer": "ABCD"[place % 4]}
        rows.append(
            row | {"category": ("single", "cross")[place // 4], "cycle_category": place % 4, "image": image}
        )
    return rows


def vstar_folder(folder: Path) -> Path:
    for place, kind in enumerate(("direct_attributes", "relative_position")):
        (folder / kind).mkdir(parents=True)
        PICTURES[place].save(folder / kind / f"sa_{place}.png")
        record = {
            "target_object": ["glove"],
            "bbox": [[5, 6, 10, 20]],
            "question": "What colour?",
            "options": ["The glove is red.", "The glove is blue."],
        }
        (folder / kind / f"sa_{place}.json").write_text(json.dumps(record))
    return folder


def hallusion_record(**change: Any) -> dict[str, Any]:
    base = {
        "category": "VD",
        "subcategory": "ocr",
        "visual_input": "1",
        "set_id": "0",
        "figure_id": "1",
        "question_id": "0",
    }
    return base | {"question": "Same?", "gt_answer": "1", "filename": "./VD/ocr/0_1.png"} | change
