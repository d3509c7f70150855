"""Every kind of source gives the same questions as the file it was made from, and refuses what it cannot make a question of."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sparring.data.errors import DataError
from sparring.data.records import Target, VisualQuestion
from sparring.forge.records import Sample
from sparring.forge.relations import Thing, relation_question, side_of
from sparring.forge.sources import FORMATS, Source, open_source
from sparring.forge.sources.base import whole_box


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (80, 96, 3), dtype=np.uint8))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def read(source: Source) -> tuple[list[VisualQuestion], list[str]]:
    """(questions, reasons of what was refused)."""
    found = source.read(list(source.units()))
    return [f.question for f in found if isinstance(f, Sample)], [f[0].reason for f in found if isinstance(f, list)]


def kind_of(source: Source) -> str:
    return next(name for name, own in FORMATS.items() if type(source) is own)


TARGETS = [{"name": "cup", "box": [10, 20, 40, 60]}]


def test_a_tsv_of_vlmevalkit(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    encoded = base64.b64encode(png(picture(1))).decode()
    table = [
        {"index": "7", "image": encoded, "question": "Which?", "A": "left", "B": "right", "C": "", "answer": "B", "category": "position", "targets": json.dumps(TARGETS)},
        {"index": "8", "image": "", "image_path": "a.png", "question": 'A "quoted"\tone?', "A": "1", "B": "2", "C": "3", "answer": "C"},
        {"index": "9", "image": "not base64!", "question": "?", "A": "1", "B": "2", "answer": "A"},
        {"index": "10", "image": "7", "question": "?", "A": "1", "B": "2", "answer": "A"},
        {"index": "11", "image": "", "image_path": "../a.png", "question": "?", "A": "1", "B": "2", "answer": "A"},
        {"index": "12", "image": encoded[:400], "question": "?", "A": "1", "B": "2", "answer": "A"},
        {"index": "13", "image": encoded, "question": "?", "A": "1", "B": "2", "answer": "A", "targets": "{"},
    ]  # fmt: skip
    path = tmp_path / "bench.tsv"
    with open(path, "w", newline="") as file:
        rows = csv.DictWriter(
            file, ["index", "image", "image_path", "question", "A", "B", "C", "answer", "category", "targets"], delimiter="\t"
        )
        rows.writeheader()
        rows.writerows(table)
    source = open_source(path)
    assert kind_of(source) == "vlmevalkit"
    (first, second), reasons = read(source)
    assert (first.id, first.options, first.answer, first.category) == ("7", ("left", "right"), "B", "position")
    assert first.targets == (Target("cup", (10, 20, 40, 60)),)
    assert second.options == ("1", "2", "3")
    assert second.question == 'A "quoted"\tone?'
    assert reasons == ["broken base64", "picture of another row", "image outside the folder", "image broken", "broken JSON"]
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match="no column"):
        list(open_source(path).units())


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
    assert kind_of(source) == "huggingface"
    assert sum(1 for _ in source.payloads()) == 3
    questions, reasons = read(source)
    assert [(q.id, q.answer, q.options, q.targets) for q in questions] == [
        (name, "B", ("left", "right"), (Target("cup", (10, 20, 40, 60)),)) for name in ("r0", "r1")
    ]
    assert reasons == ["answer is no option"]
    (sample, *_) = source.read([next(source.units())])
    assert isinstance(sample, Sample)
    assert sample.image.tobytes() == picture(0).tobytes()


def test_numbers_as_answers_and_a_picture_outside(tmp_path: Path) -> None:
    picture().save(tmp_path / "outside.png")
    folder = tmp_path / "set"
    folder.mkdir()
    picture().save(folder / "in.png")
    rows = [
        {"image": {"bytes": None, "path": path}, "question": "?", "options": ["a", "b"], "answer": 1}
        for path in ("in.png", str(tmp_path / "outside.png"), "../outside.png")
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    (question,), reasons = read(open_source(folder))
    assert (question.id, question.answer, question.targets) == ("1", "B", ())
    assert reasons == ["image outside the folder"] * 2


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
    assert kind_of(source) == "vstar"
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


def test_the_spatial_relation_file_of_vstar(tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    for folder in ("coco", "gqa"):
        (images / folder).mkdir(parents=True)
        picture().save(images / folder / "1.jpg")

    def item(answer: str, **changes: Any) -> dict[str, Any]:
        turns = [
            {"from": "human", "value": "<image>\nWhat is the location of the cup compared with the sink?"},
            {"from": "gpt", "value": answer},
        ]
        instances = [{"name": "cup", "bbox": [10, 20, 30, 40]}, {"name": "sink", "bbox": [50, 5, 45, 20]}]
        return {"image": "coco/1.jpg", "conversations": turns, "target_instances": instances} | changes

    items = [
        item("left side"),
        item("The cup is above the sink.", image="gqa/1.jpg"),
        item("It is underneath."),
        item("left of it and above"),
        item("a cup"),
        item("left", image="../secret.jpg"),
        {"image": "coco/1.jpg"},
        7,
    ]
    path = tmp_path / "spatial_relation_data.json"
    path.write_text(json.dumps(items))
    source = open_source(path, images=images)
    assert kind_of(source) == "vstar-relations"
    questions, reasons = read(source)
    assert [(q.answer_text, set(q.options)) for q in questions] == [
        ("left side", {"left side", "right side"}),
        ("above", {"above", "below"}),
        ("below", {"above", "below"}),
    ]
    assert questions[0].question == "What is the location of the cup compared with the sink?"
    assert questions[1].image == (images / "gqa/1.jpg").resolve()
    assert questions[0].targets[1] == Target("sink", (50, 5, 95, 25))
    assert reasons == ["answer names no side"] * 2 + ["image outside the folder"] + ["broken annotation"] * 2


def test_coco_annotations_become_questions(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    for number in (1, 2, 3):
        picture().save(tmp_path / "val" / f"{number}.jpg")
    notes = [
        (1, 1, [5, 20, 20, 20], 0),  # a cup left of a dog
        (1, 2, [60, 22, 20, 20], 0),
        (1, 3, [5, 60, 9, 9], 0),  # two birds: neither is asked about
        (1, 3, [40, 60, 9, 9], 0),
        (2, 1, [5, 20, 40, 40], 0),  # one on the other
        (2, 2, [20, 22, 40, 40], 0),
    ]
    annotations = [{"image_id": image, "category_id": kind, "bbox": box, "iscrowd": crowd} for image, kind, box, crowd in notes]
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2, 3, 4)]
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bird"}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    source = open_source(path, images=tmp_path / "val")
    assert kind_of(source) == "coco"
    (question,), reasons = read(source)
    cup, dog = Target("cup", (5, 20, 25, 40)), Target("dog", (60, 22, 80, 42))
    told = {
        "Where is the cup relative to the dog?": ("left", (cup, dog)),
        "Where is the dog relative to the cup?": ("right", (dog, cup)),
    }
    assert (question.answer_text, question.targets) == told[question.question]
    assert set(question.options) == {"left", "right", "above", "below"}
    assert reasons == ["no clear pair", "no clear pair", "image missing"]
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match="no COCO detection file"):
        list(open_source(path).units())


def test_a_side_is_told_only_where_it_is_plain() -> None:
    assert side_of((0, 0, 10, 10), (20, 0, 30, 10)) == "left"
    assert side_of((20, 4, 30, 14), (0, 0, 10, 10)) == "right"
    assert side_of((0, 0, 10, 10), (0, 10, 10, 20)) == "above"
    assert side_of((0, 30, 10, 40), (0, 10, 10, 20)) == "below"
    assert side_of((0, 0, 10, 10), (5, 0, 15, 10)) is None  # they overlap
    assert side_of((0, 0, 10, 10), (20, 20, 30, 30)) is None  # left, and above as well
    assert relation_question([Thing("a", [0, 0, 9, 9]), Thing("b", [20, 0, 29, 9], crowd=True)], (96, 80), "x") is None


def test_boxes_are_rounded_outwards_and_only_rounding_is_cut_off() -> None:
    assert whole_box(1.2, 2.0, 3.3, 4.0, (96, 80)) == [1, 2, 5, 6]
    assert whole_box(90.5, 70.5, 5.9, 9.9, (96, 80)) == [90, 70, 96, 80]
    assert whole_box(-0.4, 0, 5, 5, (96, 80)) == [0, 0, 5, 5]
    assert whole_box(90, 0, 20, 5, (96, 80)) == [90, 0, 110, 5]


def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(DataError, match="Name it with --format"):
        open_source(tmp_path / "x.csv")
    with pytest.raises(DataError, match="no such file"):
        open_source(tmp_path / "none")
    with pytest.raises(DataError, match="is a folder"):
        open_source(tmp_path / "x.csv", "vstar")
    with pytest.raises(DataError, match="no such folder of pictures"):
        open_source(tmp_path / "x.csv", "jsonl", tmp_path / "none")
