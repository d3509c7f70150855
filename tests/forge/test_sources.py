"""A forge reads every layout by the readers of `sparring.data`, record by record: what cannot be read
costs itself alone."""

import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from small_benchmarks import PICTURES, write_tsv
from small_eval import in_base64
from sparring.data.errors import DataError
from sparring.data.records import Target, VisualQuestion
from sparring.forge.records import Sample
from sparring.forge.sources import Source, open_source

TARGETS = [{"name": "cup", "box": [10, 20, 40, 60]}]


def picture(seed: int = 0) -> Image.Image:
    return PICTURES[seed].resize((96, 80))


def read(source: Source) -> tuple[list[VisualQuestion], list[str]]:
    """(questions, reasons of what was refused)."""
    found = source.read(list(source.units()))
    return [f.question for f in found if isinstance(f, Sample)], [
        f[0].reason for f in found if isinstance(f, list)
    ]


def test_a_tsv_of_vlmevalkit(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    encoded = in_base64(picture(1))
    base = {"image_path": "", "C": "", "category": "", "targets": ""}
    table = [
        {"index": "7", "image": encoded, "question": "Which?", "A": "left", "B": "right", "answer": "B", "category": "position", "targets": json.dumps(TARGETS)},
        {"index": "8", "image": "", "image_path": "a.png", "question": 'A "quoted"\tone?', "A": "1", "B": "2", "C": "3", "answer": "C"},
        {"index": "9", "image": "not base64!", "question": "?", "A": "1", "B": "2", "answer": "A"},
        {"index": "10", "image": "7", "question": "?", "A": "1", "B": "2", "answer": "A"},
        {"index": "11", "image": "", "image_path": "../a.png", "question": "?", "A": "1", "B": "2", "answer": "A"},
        {"index": "12", "image": encoded[:400], "question": "?", "A": "1", "B": "2", "answer": "A"},
        {"index": "13", "image": encoded, "question": "?", "A": "1", "B": "2", "answer": "A", "targets": "{"},
        {"index": "14", "image": encoded, "question": "?", "A": "1", "B": "", "C": "3", "answer": "C"},
    ]  # fmt: skip
    names = ["index", "image", "image_path", "question", "A", "B", "C", "answer", "category", "targets"]
    source = open_source(
        write_tsv(tmp_path / "bench.tsv", [{name: (base | row)[name] for name in names} for row in table])
    )
    assert source.format == "vlmevalkit"
    (first, second, third), reasons = read(source)
    assert (first.id, first.options, first.answer, first.category) == (
        "7",
        ("left", "right"),
        "B",
        "position",
    )
    assert first.targets == (Target("cup", (10, 20, 40, 60)),)
    assert second.options == ("1", "2", "3")
    assert second.question == 'A "quoted"\tone?'
    assert third.id == "10"
    assert reasons == [
        "image missing",
        "image outside the folder",
        "image broken",
        "broken JSON",
        "empty text",
    ]


@pytest.mark.parametrize("form", ["arrow", "splits", "parquet"])
def test_a_hugging_face_data_set(form: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"r{number}", "image": picture(number), "question": "Which?", "choices": ["left", "right"], "answer": answer, "targets": TARGETS, "other": 1.5}
        for number, answer in enumerate(["B", "right", "C"])
    ]  # fmt: skip
    table = datasets.Dataset.from_list(rows)
    folder = tmp_path / "set"
    if form == "arrow":
        table.save_to_disk(folder)
    elif form == "splits":
        datasets.DatasetDict({"train": table.select([0]), "test": table.select([1, 2])}).save_to_disk(folder)
    else:
        (folder / "data").mkdir(parents=True)
        table.to_parquet(folder / "data" / "train-0.parquet", batch_size=2)
    source = open_source(folder)
    assert source.format == "huggingface"
    assert sum(1 for _ in source.units()) == 3
    questions, reasons = read(source)
    assert [(q.id, q.answer, q.options, q.targets) for q in questions] == [
        (name, "B", ("left", "right"), (Target("cup", (10, 20, 40, 60)),)) for name in ("r0", "r1")
    ]
    assert reasons == ["answer is no option"]
    # What is sent to another process is small and reads the same picture there.
    unit = next(source.units())
    sent = pickle.dumps(unit)
    assert len(sent) < 2000
    (sample,) = source.read([pickle.loads(sent)])  # noqa: S301
    assert isinstance(sample, Sample)
    assert sample.image.tobytes() == picture(0).tobytes()


def test_a_folder_like_vstar(tmp_path: Path) -> None:
    (tmp_path / "relative_position").mkdir()
    (tmp_path / "direct_attributes").mkdir()
    note = {
        "target_object": ["cup", "sink"],
        "bbox": [[10, 20, 30, 40], [50.2, 5, 45.9, 20]],
        "question": "Which side?",
        "options": ["left", "right"],
    }
    names = ("relative_position/a", "relative_position/b", "direct_attributes/c")
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"bbox": [[10, 20, 30, 40]]},
        {"options": [f"It is {c}." for c in "wxyz"], "target_object": [], "bbox": []},
    )
    for name, change in zip(names, changes, strict=True):
        picture().save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.json").write_text(json.dumps(note | change))
    (tmp_path / "relative_position/d.json").write_text(json.dumps(note))  # without a picture
    (tmp_path / "relative_position/e.json").write_text("{")
    source = open_source(tmp_path)
    assert source.format == "vstar"
    questions, reasons = read(source)
    by_id = {question.id: question for question in questions}
    first = by_id["relative_position/a"]
    assert (first.answer_text, first.category) == ("left", "relative_position")
    assert first.targets == (Target("cup", (10, 20, 40, 60)), Target("sink", (50, 5, 96, 25)))
    other = by_id["direct_attributes/c"]
    assert other.answer_text == "It is w."
    assert sorted(reasons) == ["broken annotation", "image missing", "names and boxes"]


def test_right_options_of_a_folder_are_spread_over_the_letters(tmp_path: Path) -> None:
    note = {"target_object": [], "bbox": [], "question": "?", "options": ["w", "x", "y", "z"]}
    for number in range(40):
        picture().save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.json").write_text(json.dumps(note))
    answers = [question.answer for question in read(open_source(tmp_path))[0]]
    assert min(answers.count(letter) for letter in "ABCD") >= 3
    for number in range(40):
        (tmp_path / f"{number}.json").write_text(
            json.dumps(note | {"options": ["w", "x", "y", "None of the above"]})
        )
    assert {question.answer for question in read(open_source(tmp_path))[0]} == {"A"}


def test_what_cannot_be_told_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.7")
    with pytest.raises(DataError, match="this is a PDF"):
        open_source(tmp_path / "x.pdf")
    with pytest.raises(DataError, match="no such file"):
        open_source(tmp_path / "none")
    (tmp_path / "x.csv").write_text("question,answer\nq,a\n")
    with pytest.raises(DataError, match=r"this is a TSV or CSV, .*, not a folder like V\*Bench"):
        open_source(tmp_path / "x.csv", "vstar")
    with pytest.raises(DataError, match="no such folder of pictures"):
        open_source(tmp_path / "x.csv", "auto", tmp_path / "none")
