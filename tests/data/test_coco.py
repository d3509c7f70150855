"""Annotations: questions of relative position from COCO's and V*'s files; one bad annotation costs itself,
not its picture."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparring.data.errors import DataError
from sparring.data.presence import read_annotations
from sparring.data.questions import Questions, read_questions
from sparring.data.records import Target
from sparring.data.vstar import Thing, relation_question, side_of, whole_box

CUP, DOG = Target("cup", (5, 20, 25, 40)), Target("dog", (60, 22, 80, 42))
TOLD = {
    "Where is the cup relative to the dog?": ("left", (CUP, DOG)),
    "Where is the dog relative to the cup?": ("right", (DOG, CUP)),
}


def coco(folder: Path, **changes: Any) -> Path:
    """A file of one picture with a cup left of a dog, and what is changed in it."""
    Image.new("RGB", (96, 80)).save(folder / "1.jpg")
    data = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bird"}],
        "annotations": [note(1, [5, 20, 20, 20]), note(2, [60, 22, 20, 20])],
    } | changes
    path = folder / "instances.json"
    path.write_text(json.dumps(data))
    return path


def note(kind: Any, box: Any, **changes: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": kind, "bbox": box, "iscrowd": 0} | changes


def check(questions: Questions) -> None:
    (question,) = questions
    assert (question.answer_text, question.targets) == TOLD[question.question]
    assert set(question.options) == {"left", "right", "above", "below"}


BAD_NOTES: dict[str, dict[str, Any]] = {
    "no box": {"category_id": 3, "image_id": 1},
    "empty box": note(3, []),
    "null box": note(3, None),
    "box of text": note(3, ["a", 1, 2, 3]),
    "box of three": note(3, [1, 2, 3]),
    "flat box": note(3, [5, 5, 0, 10]),
    "negative width": note(3, [50, 5, -9, 10]),
    "outside": note(3, [200, 5, 9, 9]),
    "beyond the border": note(3, [90, 5, 30, 9]),
    "infinite": note(3, [1, 2, 1e400, 3]),
    "category without a name": note(4, [5, 60, 9, 9]),
    "category that is not listed": note(77, [5, 60, 9, 9]),
    "no category": {"image_id": 1, "bbox": [5, 60, 9, 9]},
    "other picture": note(3, [5, 60, 9, 9], image_id=99),
}


@pytest.mark.parametrize("kind", BAD_NOTES)
def test_one_bad_annotation_costs_itself(tmp_path: Path, kind: str) -> None:
    good = [note(1, [5, 20, 20, 20]), note(2, [60, 22, 20, 20])]
    categories = [
        {"id": 1, "name": "cup"},
        {"id": 2, "name": "dog"},
        {"id": 3, "name": "bird"},
        {"id": 4, "name": None},
    ]
    check(read_questions(coco(tmp_path, annotations=[BAD_NOTES[kind], *good], categories=categories)))


def test_of_a_kind_with_a_bad_box_nothing_is_asked(tmp_path: Path) -> None:
    notes = [note(1, [5, 20, 20, 20]), note(1, []), note(2, [60, 22, 20, 20])]
    with pytest.raises(DataError, match="no two objects"):
        read_questions(coco(tmp_path, annotations=notes))


def test_a_category_without_a_name_is_never_in_a_question(tmp_path: Path) -> None:
    notes = [note(1, [5, 20, 20, 20]), note(2, [60, 22, 20, 20])]
    for name in (None, "", " ", 7, ...):
        other = {"id": 2, "name": name} if name is not ... else {"id": 2}
        with pytest.raises(DataError, match="no two objects"):
            read_questions(coco(tmp_path, annotations=notes, categories=[{"id": 1, "name": "cup"}, other]))


def test_a_broken_category_costs_itself(tmp_path: Path) -> None:
    notes = [note(1, [5, 20, 20, 20]), note(2, [60, 22, 20, 20])]
    kinds = [None, 7, {"name": "no id"}, {"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}]
    assert len(read_questions(coco(tmp_path, annotations=notes, categories=kinds)).records) == 1


@pytest.mark.parametrize(
    ("image", "other"), [(1, "1"), ("1", 1), (1.0, "1"), ("0001", 1), ("a", "a"), (1, 1.0), (" 1", 1)]
)
def test_ids_are_the_same_as_texts_and_as_numbers(tmp_path: Path, image: Any, other: Any) -> None:
    notes = [note(1, [5, 20, 20, 20], image_id=other), note("2", [60, 22, 20, 20], image_id=other)]
    check(read_questions(coco(tmp_path, images=[{"id": image, "file_name": "1.jpg"}], annotations=notes)))


def test_numbers_may_be_texts(tmp_path: Path) -> None:
    notes = [
        note("1", ["5", "20.0", "20", "20"], iscrowd="0"),
        note("2", [60.0, "22", 20, "2e1"], iscrowd=False),
    ]
    check(read_questions(coco(tmp_path, annotations=notes)))
    crowd = [note(1, [5, 20, 20, 20], iscrowd="1"), note(2, [60, 22, 20, 20])]
    with pytest.raises(DataError, match="no two objects"):
        read_questions(coco(tmp_path, annotations=crowd))


def test_what_costs_a_picture_its_question(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2, 3)] + [{"id": 4}]
    Image.new("RGB", (96, 80)).save(tmp_path / "2.jpg")
    birds = [note(3, [5, 60, 9, 9]), note(3, [40, 60, 9, 9])]
    beside = [note(1, [5, 20, 40, 40], image_id=2), note(2, [20, 22, 40, 40], image_id=2)]
    path = coco(
        tmp_path,
        images=images,
        annotations=[note(1, [5, 20, 20, 20]), note(2, [60, 22, 20, 20]), *birds, *beside],
    )
    found = read_questions(path, skip_bad=True)
    check(found)
    assert found.dropped_by_reason() == {"no clear pair": 1, "image missing": 1, "missing key": 1}
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match="no COCO detection file"):
        read_questions(path)


def test_annotations_for_probes_of_presence(tmp_path: Path) -> None:
    notes = [note(1, [5, 20, 20, 20]), note(2, []), note(9, [1, 1, 5, 5])]
    (found,) = read_annotations(coco(tmp_path, annotations=notes))
    assert (found.objects, found.targets) == (("cup", "dog"), (CUP,))
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"image": "1.JPG", "objects": ["a\xe2\x80\xa8b"]}\n')
    (found,) = read_annotations(tmp_path / "a.jsonl")
    assert found.objects == ("a\u2028b",)


def test_the_spatial_relation_file_of_vstar(tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    for folder in ("coco", "gqa"):
        (images / folder).mkdir(parents=True)
        Image.new("RGB", (96, 80)).save(images / folder / "1.jpg")

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
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(items).encode())
    found = read_questions(path, images=images, skip_bad=True)
    assert [(q.answer_text, set(q.options)) for q in found] == [
        ("left side", {"left side", "right side"}),
        ("above", {"above", "below"}),
        ("below", {"above", "below"}),
    ]
    assert found.records[0].question == "What is the location of the cup compared with the sink?"
    assert found.records[1].image == (images / "gqa/1.jpg").resolve()
    assert found.records[0].targets[1] == Target("sink", (50, 5, 95, 25))
    reasons = [problem.reason for problem in found.problems]
    assert reasons == ["answer names no side"] * 2 + ["image outside the folder"] + ["broken annotation"] * 2


def test_a_side_is_told_only_where_it_is_plain() -> None:
    assert side_of((0, 0, 10, 10), (20, 0, 30, 10)) == "left"
    assert side_of((20, 4, 30, 14), (0, 0, 10, 10)) == "right"
    assert side_of((0, 0, 10, 10), (0, 10, 10, 20)) == "above"
    assert side_of((0, 30, 10, 40), (0, 10, 10, 20)) == "below"
    assert side_of((0, 0, 10, 10), (5, 0, 15, 10)) is None  # they overlap
    assert side_of((0, 0, 10, 10), (20, 20, 30, 30)) is None  # left, and above as well
    assert (
        relation_question([Thing("a", [0, 0, 9, 9]), Thing("b", [20, 0, 29, 9], crowd=True)], (96, 80), "x")
        is None
    )


def test_boxes_are_rounded_outwards_and_only_rounding_is_cut_off() -> None:
    assert whole_box(1.2, 2.0, 3.3, 4.0, (96, 80)) == [1, 2, 5, 6]
    assert whole_box(90.5, 70.5, 5.9, 9.9, (96, 80)) == [90, 70, 96, 80]
    assert whole_box(-0.4, 0, 5, 5, (96, 80)) == [0, 0, 5, 5]
    assert whole_box(90, 0, 20, 5, (96, 80)) == [90, 0, 110, 5]
