import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparring.data.convert import write_questions
from sparring.data.errors import DataError
from sparring.data.questions import read_questions
from sparring.data.records import Target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    Image.new("RGB", (96, 80), "teal").save(data / "images" / "kitchen.png")
    return data


def record(**changes: Any) -> dict[str, Any]:
    plain = {
        "id": "kitchen-4",
        "image": "images/kitchen.png",
        "question": "Where is the cup relative to the sink?",
        "options": ["left", "right"],
        "answer": "B",
        "targets": [{"name": "cup", "box": [10, 20, 40, 60]}],
        "category": "position",
    }
    return {key: value for key, value in {**plain, **changes}.items() if value is not ...}


def write(folder: Path, *records: dict[str, Any] | str | bytes) -> Path:
    lines = [
        line
        if isinstance(line, bytes)
        else line.encode()
        if isinstance(line, str)
        else json.dumps(line).encode()
        for line in records
    ]
    path = folder / "questions.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_a_good_file(folder: Path) -> None:
    path = write(
        folder,
        record(),
        "",
        record(id="2", targets=[], category=...),
        record(id="3", options=["yes", "no"], question="Is there a cup?"),
    )
    questions = read_questions(path)
    first, second, third = questions
    assert len(questions) == 3
    assert first.image == (folder / "images/kitchen.png").resolve()
    assert first.targets == (Target("cup", (10, 20, 40, 60)),)
    assert (first.answer, first.answer_text, first.category) == ("B", "right", "position")
    assert (second.targets, second.category, second.reasoning) == ((), None, None)
    assert third.options == ("yes", "no")
    assert questions.dropped == 0
    assert questions.by_category() == {"(none)": 1, "position": 2}


def test_boxes_may_reach_the_edges_and_not_beyond(folder: Path) -> None:
    assert read_questions(write(folder, record(targets=[{"name": "wall", "box": [0, 0, 96, 80]}])))
    for box in ([0, 0, 97, 80], [0, 0, 96, 81], [-1, 0, 5, 5], [0, -1, 5, 5], [80, 80, 200, 200]):
        with pytest.raises(DataError, match="outside the image, which is 96 x 80 pixels"):
            read_questions(write(folder, record(targets=[{"name": "wall", "box": box}])))


def test_the_message_names_record_and_remedy(folder: Path) -> None:
    path = write(folder, record(id="1"), record(targets=[{"name": "cup", "box": [80, 80, 200, 200]}]))
    with pytest.raises(DataError) as caught:
        read_questions(path)
    assert str(caught.value) == (
        'questions.jsonl line 2 (id "kitchen-4"): box [80, 80, 200, 200] of target "cup" (targets[0]) '
        "lies outside the image, which is 96 x 80 pixels.\n"
        "Fix the record, or pass --skip-bad-records to go on without it."
    )


BAD = {
    "image missing": (record(image="images/none.png"), r'image "images/none.png" is not there'),
    "image outside, absolute": (record(image="/etc/passwd"), "absolute path"),
    "image outside, dots": (record(image="../secret.png"), "leaves the folder"),
    "image is the folder": (record(image="images"), "is not there"),
    "answer no option": (
        record(answer="C"),
        'the letter of an option, A to B, its text or its number; it is "C"',
    ),
    "answer two letters": (record(answer="AB"), 'it is "AB"'),
    "answer beyond": (record(answer=3), "it is 3"),
    "answer object": (record(answer={"text": "left"}), "answer is an object"),
    "several answers": (record(answer=["A", "B"]), "answer names 2 options"),
    "unknown key": (record(targtes=[]), '"targtes" is no known key; did you mean "targets"?'),
    "unknown key for a missing one": (
        record(awnser="A", answer=...),
        '"awnser" is no known key; did you mean "answer"?',
    ),
    "missing key": (record(question=...), '"question" is missing'),
    "key twice": ('{"id": "a", "id": "b"}', 'key "id" is given twice'),
    "one option": (record(options=["left"], answer="A"), "options holds 1; a question has 2 to 26"),
    "27 options": (record(options=[str(i) for i in range(27)], answer="A"), "options holds 27"),
    "twin options": (record(options=["Left", "left "]), 'options holds "left" twice'),
    "options no list": (record(options="left"), "options is a text; it must be a list"),
    "option no text": (record(options=["a", ["b"]]), r"options\[1\] is a list"),
    "empty question": (record(question=" "), "question is empty"),
    "control characters": (record(id="a\0b"), "control characters"),
    "half a surrogate pair": ('{"id": "\\ud800"}', "surrogate"),
    "box empty": (record(targets=[{"name": "cup", "box": [40, 20, 40, 60]}]), "must have x0 < x1"),
    "box upside down": (record(targets=[{"name": "cup", "box": [10, 60, 40, 20]}]), "must have x0 < x1"),
    "box of three": (record(targets=[{"name": "cup", "box": [1, 2, 3]}]), "four numbers"),
    "box of truth": (record(targets=[{"name": "cup", "box": [True, 2, 3, 4]}]), "four numbers"),
    "box of fractions": (record(targets=[{"name": "cup", "box": [1.5, 2, 3, 4]}]), "whole pixels"),
    "box infinite": (record(targets=[{"name": "cup", "box": [1, 2, 3, float("inf")]}]), "whole pixels"),
    "box not a number": (record(targets=[{"name": "cup", "box": [1, 2, 3, float("nan")]}]), "four numbers"),
    "target key": (
        record(targets=[{"nam": "cup", "box": [1, 2, 3, 4]}]),
        r'targets\[0\]: "nam" is no known key; did you mean "name"',
    ),
    "target no object": (record(targets=["cup"]), r"targets\[0\] is a text"),
    "broken JSON": ('{"id": "a",', "no valid JSON at column"),
    "no object": ("[1, 2]", "the line is a list"),
    "deep JSON": ("[" * 100_000, "no usable JSON"),
    "not UTF-8": (b'{"id": "\xff"}', "not UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_refused_and_can_be_skipped(folder: Path, name: str) -> None:
    bad, message = BAD[name]
    good = record(id="good")
    path = write(folder, good, bad)
    with pytest.raises(DataError, match=message) as caught:
        read_questions(path)
    assert "questions.jsonl line 2" in str(caught.value)
    assert "--skip-bad-records" in str(caught.value)
    kept = read_questions(path, skip_bad=True)
    assert [question.id for question in kept] == ["good"]
    assert kept.dropped == 1
    assert sum(kept.dropped_by_reason().values()) == 1


def test_truncated_image(folder: Path) -> None:
    path = folder / "images/kitchen.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        DataError, match=r'line 1 \(id "kitchen-4"\): image kitchen.png is truncated or damaged'
    ):
        read_questions(write(folder, record()))


def test_not_an_image(folder: Path) -> None:
    (folder / "images/kitchen.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"image kitchen.png is no picture"):
        read_questions(write(folder, record()))


def test_link_out_of_the_folder(folder: Path) -> None:
    outside = folder.parent / "secret.png"
    Image.new("RGB", (96, 80)).save(outside)
    (folder / "images/link.png").symlink_to(outside)
    with pytest.raises(DataError, match="leaves the folder"):
        read_questions(write(folder, record(image="images/link.png")))
    (folder / "images/fine.png").symlink_to(folder / "images/kitchen.png")
    assert len(read_questions(write(folder, record(image="images/fine.png")))) == 1


def test_duplicate_id_names_the_first_line_and_keeps_its_record(folder: Path) -> None:
    path = write(folder, record(question="first?"), record(id="b"), record(question="second?"))
    with pytest.raises(DataError, match=r"line 3 .*id was already given on line 1"):
        read_questions(path)
    kept = read_questions(path, skip_bad=True)
    assert [(question.id, question.question) for question in kept] == [
        ("kitchen-4", "first?"),
        ("b", record()["question"]),
    ]
    assert kept.dropped_by_reason() == {"duplicate id": 1}


def test_boxes_are_in_pixels_of_the_upright_picture(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 80)).save(folder / "images/kitchen.png", exif=exif)
    assert read_questions(write(folder, record(targets=[{"name": "cup", "box": [0, 0, 80, 96]}])))
    with pytest.raises(DataError, match="which is 80 x 96 pixels"):
        read_questions(write(folder, record(targets=[{"name": "cup", "box": [0, 0, 96, 80]}])))


@pytest.mark.parametrize("content", [b"", b"\n \n"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_empty_file(folder: Path, content: bytes, skip_bad: bool) -> None:
    (folder / "questions.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="the file is empty"):
        read_questions(folder / "questions.jsonl", skip_bad=skip_bad)


def test_missing_file(folder: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: no such file"):
        read_questions(folder / "none.jsonl")


def test_nothing_usable_is_an_error_even_when_skipping(folder: Path) -> None:
    with pytest.raises(DataError, match="no usable record is left"):
        read_questions(write(folder, record(answer="Z")), skip_bad=True)


def test_all_problems_are_collected_and_twenty_shown(folder: Path) -> None:
    path = write(folder, *[record(id=f"q{i}", answer="Z", options=["a", "b"], catgory=1) for i in range(15)])
    with pytest.raises(DataError) as caught:
        read_questions(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[20] == "... and 10 more problems"
    assert lines[21] == "Fix these 15 records, or pass --skip-bad-records to go on without them."


def test_byte_order_mark_and_carriage_returns(folder: Path) -> None:
    path = write(folder, record())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_questions(path)) == 1


def test_what_is_written_is_read_back(folder: Path) -> None:
    questions = read_questions(
        write(
            folder,
            record(question="Où est la tasse\u2028?"),
            record(id="2", targets=[], category=..., reasoning="a\nthought"),
        )
    ).records
    assert questions[1].reasoning == "a\nthought"
    again = write_questions(folder / "again.jsonl", questions)
    assert read_questions(again).records == questions
    assert not list(folder.glob("*.partial"))


def test_pictures_outside_cannot_be_written(folder: Path) -> None:
    questions = read_questions(write(folder, record())).records
    (folder / "elsewhere").mkdir()
    with pytest.raises(DataError, match=r'question "kitchen-4": image .* lies outside'):
        write_questions(folder / "elsewhere" / "questions.jsonl", questions)
    assert not list((folder / "elsewhere").iterdir())
