"""Photographs that come with scikit-image, with boxes written down by hand: both stages and their checks on
pictures that nobody rendered.
"""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import skimage.data
from PIL import Image

from endpoint_server import question, serving
from small_forge import forge_of, forge_quietly
from sparring.data.convert import write_questions
from sparring.data.images import load_image
from sparring.data.questions import read_questions
from sparring.data.records import Target
from sparring.forge.checks import apart

QUESTIONS = Path(__file__).with_name("photographs.jsonl")
DARK = 70  # mean grey level below which the panel below finds fault with a picture


def looks(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
    """The judge counts one of everything, and finds that dark pictures do not hang together; the Defender
    says A.
    """
    if body["model"] != "judge":
        return {"text": "\\boxed{A}"}
    if question(body).endswith("s?"):
        return {"text": "one"}
    wrong = "hang together" in question(body) and np.asarray(image).mean() < DARK
    return {
        "text": json.dumps(
            {"verdict": "fail" if wrong else "pass", "reason": "too dark to tell" if wrong else "looks right"}
        )
    }


def smaller(folder: Path) -> Path:
    """The questions' file with photographs of a third of the size: what the judge is sent takes less time."""
    shutil.copy(QUESTIONS, folder)
    for name in {json.loads(line)["image"] for line in QUESTIONS.read_text().splitlines()}:
        shutil.copy(Path(skimage.data.__file__).parent / name, folder)
    questions = []
    for own in read_questions(folder / QUESTIONS.name):
        path = folder / f"{own.id}.png"
        load_image(own.image).reduce(3).save(path)
        targets = tuple(
            Target(target.name, (x0 // 3, y0 // 3, x1 // 3, y1 // 3))
            for target in own.targets
            for x0, y0, x1, y1 in [target.box]
        )
        questions.append(replace(own, image=path, targets=targets))
    return write_questions(folder / "smaller.jsonl", questions)


def test_photographs_through_both_stages(tmp_path: Path) -> None:
    path = smaller(tmp_path)
    asked = {own.id: own for own in read_questions(path)}
    with serving(looks) as server:
        changes = (
            "stages.extend={painter: {model: edges}, share: [0.01, 0.03], growth: 1.4, directions: [both]}",
            "stages.propose={number: 3, size: [0.16, 0.24]}",
            "stages.right_when_clean=false",
            "stages.attempts=1",
            "stages.panel={temperature: 0}",
            f"judge.model='{server.url}#judge'",
            "judge.count_prompt='{name}s?'",
        )
        funnel = forge_quietly(forge_of(path, server.url, *changes), tmp_path / "out")
    assert funnel["records"]["read"] == len(asked) == 12
    assert funnel["records"]["refused"] == funnel["records"]["broken"] == 0
    files = [
        str(path)
        for part in ("data", "apart")
        for path in (tmp_path / "out" / "dataset" / part).glob("*.parquet")
    ]
    rows = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert sorted(row["id"] for row in rows) == sorted(asked)
    for row in rows:
        own, notes, larger = asked[row["id"]], json.loads(row["notes"]), np.asarray(row["image"])
        source = np.asarray(Image.open(own.image))
        x, y = int(notes["offset_x"]), int(notes["offset_y"])
        assert larger.shape[0] > 1.3 * source.shape[0]
        assert larger.shape[1] > 1.3 * source.shape[1]
        np.testing.assert_array_equal(larger[y : y + source.shape[0], x : x + source.shape[1]], source)
        boxes = [tuple(target["box"]) for target in row["targets"]]
        assert boxes == [
            (x0 + x, y0 + y, x1 + x, y1 + y) for x0, y0, x1, y1 in (target.box for target in own.targets)
        ]
        if larger.mean() < DARK:
            assert (row["outcome"], row["reason"]) == ("rejected", "composition check")
            assert row["message"].endswith("too dark to tell")
            assert row["adversarial_image"] is None
            continue
        assert row["outcome"] == ("useless" if own.answer == "A" else "kept")
        added, changed = (
            [tuple(item["box"]) for item in row["distractors"]],
            larger != np.asarray(row["adversarial_image"]),
        )
        assert added
        assert all(apart(a, b, 1) for a in added for b in boxes)
        assert all(apart(a, b, 1) for a, b in combinations(added, 2))
        for x0, y0, x1, y1 in added:
            assert changed[y0:y1, x0:x1].any()
            changed[y0:y1, x0:x1] = False
        assert not changed.any()
        told = " ".join([own.question, *(target.name for target in own.targets)]).lower()
        assert not any(item["object"] in told for item in row["distractors"])
        assert row["integrity"] > 0.9
    assert {row["outcome"] for row in rows} == {"kept", "useless", "rejected"}
