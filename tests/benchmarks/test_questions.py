"""Items of benchmarks as questions of a probe: the same question, answer, boxes and pixels; what is none is
refused or left out with its reason.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from small_benchmarks import PICTURES, hallusion_record, hr_rows, vstar_folder, write_tsv
from small_eval import in_base64
from sparring.benchmarks.items import Item, PictureInMemory, shuffled_options
from sparring.benchmarks.layouts import find_benchmark, read_benchmark
from sparring.benchmarks.questions import drawn, questions_of
from sparring.data.errors import DataError
from sparring.data.images import load_image
from sparring.data.records import Target
from sparring.seeds import derive_seed


def read(suite: str, path: Path) -> list[Item]:
    return read_benchmark(find_benchmark(suite), path)


def test_vstar_keeps_boxes_and_the_order_that_is_shown(tmp_path: Path) -> None:
    items = [shuffled_options(item, 3) for item in read("vstar", vstar_folder(tmp_path / "v"))]
    found = questions_of(items, tmp_path / "v", tmp_path / "pictures")
    assert found.left_out == {}
    for question, item in zip(found.questions, items, strict=True):
        assert (question.id, question.question, question.options, question.answer) == (
            item.id,
            item.question,
            item.options,
            item.answer,
        )
        assert question.answer_text == "The glove is red."
        assert question.targets == (Target("glove", (5, 6, 15, 26)),)
        assert question.category == item.category
    assert found.questions.records[0].image == tmp_path / "v" / "direct_attributes" / "sa_0.png"
    assert not (tmp_path / "pictures").exists()


def test_pictures_in_base64_are_written_once_byte_for_byte(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "hr.tsv", hr_rows())
    questions = questions_of(read("hrbench-4k", path), path, tmp_path / "pictures").questions.records
    assert [question.answer_text for question in questions] == ["one"] * 8
    assert all(not question.targets for question in questions)
    files = sorted((tmp_path / "pictures").iterdir())
    assert len(files) == 2
    assert {in_base64(PICTURES[0]), in_base64(PICTURES[1])} == {in_base64(load_image(file)) for file in files}
    assert all(
        np.array_equal(np.asarray(load_image(q.image)), np.asarray(PICTURES[k // 4]))
        for k, q in enumerate(questions)
    )
    times = [file.stat().st_mtime_ns for file in files]
    questions_of(read("hrbench-4k", path), path, tmp_path / "pictures")
    assert [file.stat().st_mtime_ns for file in files] == times


def test_yes_and_no_are_options_and_questions_without_a_picture_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "VD" / "ocr").mkdir(parents=True)
    PICTURES[0].save(tmp_path / "VD" / "ocr" / "0_1.png")
    seen = hallusion_record(targets=[{"name": "word", "box": [1, 2, 9, 9]}])
    records = [
        seen,
        seen | {"question_id": "1", "gt_answer": "0"},
        hallusion_record(category="VS", visual_input="0", figure_id="0", filename=None),
    ]
    (tmp_path / "HallusionBench.json").write_text(json.dumps(records))
    found = questions_of(read("hallusionbench", tmp_path), tmp_path, tmp_path / "pictures")
    assert [(q.options, q.answer) for q in found.questions] == [(("yes", "no"), "A"), (("yes", "no"), "B")]
    assert found.questions.records[0].targets == (Target("word", (1, 2, 9, 9)),)
    assert found.left_out == {"no picture": 1}


def test_a_table_of_ones_own_with_hint_boxes_and_free_answers(tmp_path: Path) -> None:
    pair = json.dumps([in_base64(PICTURES[0]), in_base64(PICTURES[1])])
    base = {
        "index": 1,
        "question": "What?",
        "A": "x",
        "B": "y",
        "answer": "y",
        "hint": "Look.",
        "image": in_base64(PICTURES[2]),
        "targets": "",
    }
    rows = [
        base | {"targets": '[{"name": "cup", "box": [0, 0, 8, 8]}]'},
        base | {"index": 2, "A": "", "B": "", "answer": "12"},
        base | {"index": 3, "image": pair},
    ]
    path = write_tsv(tmp_path / "my.tsv", rows)
    found = questions_of(read("custom", path), path, tmp_path / "pictures")
    (question,) = found.questions
    assert (question.question, question.answer, question.targets) == (
        "Look.\nWhat?",
        "B",
        (Target("cup", (0, 0, 8, 8)),),
    )
    assert found.left_out == {"the answer is free, without options": 1, "several pictures": 1}


def test_what_cannot_be_probed_is_refused_with_the_reason(tmp_path: Path) -> None:
    shown = (PictureInMemory(PICTURES[0]),)
    free = [Item(str(k), "open", "How many?", "2", pictures=shown) for k in range(3)]
    with pytest.raises(
        DataError,
        match=r"none of its 3 items can be probed \(the answer is free, without options: 3\).*sparring eval",
    ):
        questions_of(free, Path("vqa"), tmp_path)
    with pytest.raises(DataError, match="a caption, not an answer, is asked for: 1"):
        questions_of([Item("c", "caption", "Describe.", "", pictures=shown)], Path("chair"), tmp_path)


def test_damaged_items_stop_or_are_skipped(tmp_path: Path) -> None:
    good = {"index": 1, "question": "?", "A": "x", "B": "y", "answer": "A", "image": in_base64(PICTURES[0])}
    rows = [
        good,
        good | {"index": 2, "image": "A" * 100},
        good | {"index": 3, "image": "A" * 101},
        good | {"index": 4, "B": "X"},
        good | {"index": 5, "targets": '[{"name": "cup", "box": [0, 0, 800, 8]}]'},
    ]
    path = write_tsv(tmp_path / "a.tsv", [{"targets": ""} | row for row in rows])
    items = read("ai2d", path)
    with pytest.raises(
        DataError, match=r'item 2 \(id "2"\).*\n.*item 3.*\n.*holds "x" twice.*\n.*lies outside the image'
    ) as error:
        questions_of(items, path, tmp_path / "pictures")
    assert "--skip-bad-records" in str(error.value)
    found = questions_of(items, path, tmp_path / "pictures", skip_bad=True)
    assert [question.id for question in found.questions] == ["1"]
    assert found.questions.dropped == 4


def test_a_limit_draws_hallusionbench_set_by_set_and_others_item_by_item() -> None:
    def item(number: int, name: str) -> Item:
        meta = {"subcategory": "ocr", "set": name, "figure": str(number % 2), "pair": "0", "shown": True}
        return Item(f"{name}-{number}", "yes_no", "?", "yes", category="VD", meta=meta)

    sets = [item(number, name) for name in "abcde" for number in range(4)]
    for limit, count in ((1, 4), (4, 4), (10, 8), (20, 20)):
        kept = drawn(sets, limit=limit, seed=3, shuffle=False)
        assert len(kept) == count
        assert set(Counter(own.meta["set"] for own in kept).values()) == {4}
        assert kept == [own for own in sets if own in kept]
    assert {drawn(sets, limit=4, seed=seed, shuffle=False)[0].id for seed in range(20)} > {"a-0", "e-0"}
    single = [Item(f"q{number}", "yes_no", "?", "yes") for number in range(20)]
    first = sorted(single, key=lambda own: derive_seed(3, "limit", own.id))[:7]
    assert drawn(single, limit=7, seed=3, shuffle=False) == [own for own in single if own in first]
