"""The quality of forged pairs: 1,000 embedded questions, forged by the bundled players, and what was
published is checked anew. One JSON line.

python benchmarks/forge_quality.py [--records 1000] [--seed 11] [--extended 60]

Nothing of the forge's own checks is used: the published Parquet files are read with `datasets`, the answer
on every adversarial picture is judged by the scenes' oracle, boxes and pixels are compared here, and the
Defender is loaded anew and asked again, in two orders and batch sizes, neither of them the forge's. A second
forge of `--extended` questions draws their scenes' borders outwards first, and keeps what the Defender gets
wrong. Bars: the answer is still right on 98 % of the kept pairs, no box overlaps, the Defender is wrong
again on 90 %, and no pixel is changed where none may be.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from _defenders import finish, report
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from sparring.asking.questions import ask
from sparring.data.questions import read_questions
from sparring.data.records import VisualQuestion
from sparring.engine.screen import Screen
from sparring.forge.run import run_forge
from sparring.measures.statistics import rate
from sparring.models.vlms.local import LocalVLM
from sparring.recipes.borrow import forge_settings
from sparring_arena.audit import label_valid
from sparring_arena.dataset import write_questions

BATCHES = (50, 7)
EXTEND = (
    "stages.extend={painter: {model: edges}, checks: []}",
    "stages.right_when_clean=false",
    "stages.attempts=1",
)
Row = dict[str, Any]


def forge(data: Path, out: Path, changes: Sequence[str], limit: int) -> dict[str, Any]:
    """Forge by the recipe of the demo; the funnel."""
    settings = forge_settings([("data", str(data)), ("limit", limit)], recipe="arena", changes=changes)
    return run_forge(settings, out, screen=Screen(Console(file=io.StringIO())))


def rows(out: Path, name: str = "default") -> list[Row]:
    """Every row of a configuration of the published data set, of all splits; none where it has none."""
    folder = str(out / "dataset")
    if name not in datasets.get_dataset_config_names(folder):
        return []
    loaded = datasets.load_dataset(folder, name, cache_dir=str(out / "cache"))
    return [row for split in loaded for row in loaded[split]]


def pixels(image: Image.Image | Path) -> NDArray[np.uint8]:
    if isinstance(image, Path):
        image = Image.open(image)
    return np.asarray(image.convert("RGB"))


def overlaps(row: Row) -> int:
    """Pairs of a distractor's box with a target's or another distractor's that have a pixel in common."""
    targets, distractors = ([item["box"] for item in row[kind]] for kind in ("targets", "distractors"))
    pairs = [(a, b) for a in distractors for b in targets] + list(combinations(distractors, 2))
    return sum(min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]) for a, b in pairs)


def stray_pixels(row: Row) -> int:
    """Pixels outside of the distractors' boxes that are not the clean picture's own."""
    changed = (pixels(row["image"]) != pixels(row["adversarial_image"])).any(-1)
    for x0, y0, x1, y1 in (item["box"] for item in row["distractors"]):
        changed[y0:y1, x0:x1] = False
    return int(changed.sum())


def wrong_again(
    kept: Sequence[Row], asked: dict[str, VisualQuestion], column: str, batch: int, backwards: bool
) -> list[bool]:
    """Whether a Defender that was loaded anew answers wrong, greedily, about the pictures of a column."""
    settings = forge_settings([("data", "unread")], recipe="arena").defender
    questions, images = [asked[row["id"]] for row in kept], [row[column] for row in kept]
    step = -1 if backwards else 1
    answers = ask(LocalVLM.load(settings.model), questions[::step], images[::step], settings, batch=batch)
    return [not answer.right for answer in answers][::step]


def moved_whole(row: Row, question: VisualQuestion) -> bool:
    """Whether the source picture lies in the extended one as it was, with the targets' boxes moved by where
    it lies, and their pixels under them.
    """
    notes, source, larger = json.loads(row["notes"]), pixels(question.image), pixels(row["image"])
    x, y = int(notes.get("offset_x", 0)), int(notes.get("offset_y", 0))
    inside = larger[y : y + source.shape[0], x : x + source.shape[1]]
    boxes = [
        (target.name, [c + shift for c, shift in zip(target.box, (x, y, x, y), strict=True)])
        for target in question.targets
    ]
    return np.array_equal(inside, source) and boxes == [
        (target["name"], target["box"]) for target in row["targets"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument(
        "--extended", type=int, default=60, help="records of the second forge, the first of the same scenes"
    )
    parser.add_argument("--seed", type=int, default=11, help="of the scenes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, _ = write_questions(folder, seed=options.seed, train=options.records, held_out=1)
        asked = {question.id: question for question in read_questions(data)}
        funnel = forge(data, folder / "pairs", (), options.records)
        kept, useless = rows(folder / "pairs"), rows(folder / "pairs", "useless")
        made = kept + useless
        valid = [label_valid(asked[row["id"]], row["adversarial_image"]) is True for row in kept]
        useless_valid = [label_valid(asked[row["id"]], row["adversarial_image"]) is True for row in useless]
        wrong = [
            wrong_again(kept, asked, "adversarial_image", batch, batch == BATCHES[1]) for batch in BATCHES
        ]
        right_when_clean = [not bad for bad in wrong_again(kept, asked, "image", BATCHES[0], False)]
        sources_kept = sum(
            np.array_equal(pixels(row["image"]), pixels(asked[row["id"]].image)) for row in kept
        )
        forge(data, folder / "larger", EXTEND, options.extended)
        larger = [row for name in ("default", "useless", "rejected") for row in rows(folder / "larger", name)]
        grown = [row for row in larger if row["image"].size != Image.open(asked[row["id"]].image).size]
        whole = [moved_whole(row, asked[row["id"]]) for row in larger]
        painted = [row for row in larger if row["adversarial_image"] is not None]
    figures = {
        "kept": funnel["records"]["kept"],
        "kept_share": {key: funnel["kept_share"][key] for key in ("value", "n", "ci95")},
        "seconds": funnel["seconds"],
        "answer_still_right": rate(valid).as_dict(),
        "answer_still_right_useless": rate(useless_valid).as_dict(),
        "invalid": [row["id"] for row, good in zip(kept, valid, strict=True) if not good],
        "overlapping_boxes": sum(map(overlaps, made)),
        "wrong_again": {
            f"batch {batch}": rate(own).as_dict() for batch, own in zip(BATCHES, wrong, strict=True)
        },
        "right_when_clean_again": rate(right_when_clean).as_dict(),
        "stray_pixels": sum(map(stray_pixels, made)),
        "pictures_compared": len(made),
        "extended": len(grown),
        "extended_moved_whole": rate(whole).as_dict(),
        "extended_stray_pixels": sum(map(stray_pixels, painted)),
        "extended_pictures_compared": len(painted),
        "extended_overlapping_boxes": sum(map(overlaps, painted)),
    }
    bars = {
        "answer still right on 98 %": sum(valid) >= 0.98 * len(kept) > 0,
        "no box overlaps": figures["overlapping_boxes"] == figures["extended_overlapping_boxes"] == 0,
        "the Defender is wrong again on 90 %": all(sum(own) >= 0.9 * len(kept) > 0 for own in wrong),
        "a source picture moves whole, boxes with it": all(whole) and len(grown) > 0,
        "no pixel changes outside of the boxes": figures["stray_pixels"]
        == figures["extended_stray_pixels"]
        == 0
        < len(painted),
        "the clean picture is the source's": sources_kept == len(kept),
    }
    case = {
        "records": options.records,
        "seed": options.seed,
        "recipe": "arena",
        "extended_records": options.extended,
        "content_hash": funnel["content_hash"],
        "threads": 1,
    }
    finish(report("quality of forged pairs", case, figures, bars))


if __name__ == "__main__":
    main()
