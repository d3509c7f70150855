"""Benchmarks from files of their official layouts, small and synthetic; files that do not fit are refused
with what is missing.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from datasets import Dataset
from PIL import Image

from small_benchmarks import PICTURES, hallusion_record, hr_rows, vstar_folder, write_tsv
from small_eval import in_base64
from sparring.benchmarks.items import Item, PictureFile, shuffled_options
from sparring.benchmarks.layouts import find_benchmark, read_benchmark, read_benchmark_records
from sparring.data.errors import DataError, RecipeError


def read(suite: str, path: Path, images: Path | None = None) -> list[Item]:
    return read_benchmark(find_benchmark(suite), path, images)


def same(item: Item, *images: Image.Image) -> bool:
    shown = [picture.load() for picture in item.pictures]
    return len(shown) == len(images) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(shown, images, strict=True)
    )


def test_vlmevalkit_tsv_with_rows_that_share_a_picture(tmp_path: Path) -> None:
    items = read("hrbench-4k", write_tsv(tmp_path / "hr.tsv", hr_rows()))
    assert [item.meta["cycle"] for item in items] == [*"01230123"]
    assert all(same(item, PICTURES[place // 4]) for place, item in enumerate(items))
    assert items[0].question == 'Says "this\nor that"?'
    assert {item.options[ord(item.answer) - 65] for item in items} == {"one"}
    assert not find_benchmark("hrbench-4k").shuffle


@pytest.mark.parametrize("column", ["cycle_category", "category", "C", "answer", "image", "question"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    rows = [{name: value for name, value in row.items() if name != column} for row in hr_rows()]
    with pytest.raises(DataError, match=f'hrbench needs the column .*"{column}"'):
        read("hrbench-4k", write_tsv(tmp_path / "hr.tsv", rows))


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    good = {"index": 1, "question": "?", "A": "x", "B": "y", "answer": "A", "image": in_base64(PICTURES[0])}
    for change, message in (
        (
            {"answer": "C"},
            r'row 1 .*answer must be the letter of an option, A to B, its text or its number; it is "C"',
        ),
        ({"answer": ""}, r"row 1 .*answer is empty"),
        ({"image": "77"}, r'row 1 .*image "77" is no picture and no index'),
    ):
        with pytest.raises(DataError, match=message):
            read("ai2d", write_tsv(tmp_path / "a.tsv", [good | change]))
    with pytest.raises(DataError, match=r'row 2 \(id "1"\): id was already given on row 1'):
        read("ai2d", write_tsv(tmp_path / "a.tsv", [good, good]))
    (broken,) = read("ai2d", write_tsv(tmp_path / "a.tsv", [good | {"image": "A" * 100}]))
    with pytest.raises(DataError, match="row 1 image"):
        broken.pictures[0].load()
    with pytest.raises(DataError, match="no such file"):
        read("ai2d", tmp_path / "nothing.tsv")
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"ends in none of .tsv"):
        read("ai2d", tmp_path / "a.xlsx")
    with pytest.raises(RecipeError, match=r"no such suite. There are vstar"):
        find_benchmark("mmbench")


def test_vstar_folder_and_lines(tmp_path: Path) -> None:
    items = read("vstar", vstar_folder(tmp_path / "v"))
    assert [(item.id, item.category, item.answer) for item in items] == [
        ("direct_attributes/sa_0", "direct_attributes", "A"),
        ("relative_position/sa_1", "relative_position", "A"),
    ]
    assert items[0].targets[0].box == (5, 6, 15, 26)
    assert same(items[1], PICTURES[1])
    # The first option is always right: shown in an order of our own, it is not.
    shown = [shuffled_options(item, seed) for item in items for seed in range(40)]
    assert {item.answer for item in shown} == {"A", "B"}
    assert all(item.options[ord(item.answer) - 65] == "The glove is red." for item in shown)
    assert shuffled_options(items[0], 3) == shuffled_options(items[0], 3)
    lines = {
        "image": "direct_attributes/sa_0.png",
        "text": "What colour?\n(A) red\n(B) blue\nAnswer with the option's letter.",
        "label": "B",
    }
    path = tmp_path / "v" / "test_questions.jsonl"
    path.write_text(json.dumps(lines | {"category": "direct_attributes", "question_id": 7}) + "\n")
    (item,) = read("vstar", path)
    assert (item.id, item.question, item.options, item.answer) == ("7", "What colour?", ("red", "blue"), "B")
    (tmp_path / "v" / "direct_attributes" / "sa_0.json").write_text(
        '{"question": "?", "options": [], "bbox": []}'
    )
    with pytest.raises(DataError, match='vstar needs the field "target_object"'):
        read("vstar", tmp_path / "v")


def test_pope_files_and_tsv_hold_each_question_once(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "a.jpg", quality=95)
    for split, labels in (("random", ["yes", "no"]), ("popular", ["yes", "no"]), ("adversarial", ["yes"])):
        rows = [
            {
                "question_id": k,
                "image": "a.jpg",
                "text": f"Is there a {'cup' if not k else split}?",
                "label": label,
            }
            for k, label in enumerate(labels)
        ]
        (tmp_path / f"coco_pope_{split}.json").write_text("\n".join(json.dumps(row) for row in rows))
    items = read("pope", tmp_path)
    assert len(items) == 3
    assert items[0].meta["splits"] == ["adversarial", "popular", "random"]
    assert items[0].answer == "yes"
    rows = [
        {
            "index": 0,
            "question": "Is there a cup?",
            "answer": "Yes",
            "category": "random,popular",
            "image": in_base64(PICTURES[0]),
        }
    ]
    (item,) = read("pope", write_tsv(tmp_path / "p.tsv", rows))
    assert (item.answer, item.meta["splits"]) == ("yes", ["random", "popular"])
    with pytest.raises(DataError, match='answer is "maybe"; it must be yes or no'):
        read("pope", write_tsv(tmp_path / "p.tsv", [rows[0] | {"answer": "maybe"}]))
    (tmp_path / "coco_pope_popular.json").write_text(
        json.dumps({"question_id": 1, "image": "../b.jpg", "text": "?", "label": "no"})
    )
    with pytest.raises(DataError, match="leaves the folder"):
        read("pope", tmp_path)


def test_hallusionbench_with_and_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "VD" / "ocr").mkdir(parents=True)
    PICTURES[0].save(tmp_path / "VD" / "ocr" / "0_1.png")
    records = [
        hallusion_record(),
        hallusion_record(category="VS", visual_input="0", figure_id="0", filename=None, gt_answer="0"),
    ]
    (tmp_path / "HallusionBench.json").write_text(json.dumps(records))
    shown, unseen = read("hallusionbench", tmp_path)
    assert (shown.id, shown.answer, len(shown.pictures)) == ("VD_ocr_0_1_0", "yes", 1)
    assert (unseen.answer, unseen.pictures, unseen.meta["shown"]) == ("no", (), False)
    del records[0]["set_id"]
    (tmp_path / "HallusionBench.json").write_text(json.dumps(records))
    with pytest.raises(DataError, match='record 1: hallusionbench needs the field "set_id"'):
        read("hallusionbench", tmp_path)
    row = {
        "index": "hb_VD_ocr_3_1_2",
        "question": "Same?",
        "answer": "No",
        "category": "VD",
        "l2-category": "ocr",
        "image": in_base64(PICTURES[0]),
    }
    (item,) = read("hallusionbench", write_tsv(tmp_path / "h.tsv", [row]))
    assert {"set": "3", "figure": "1", "pair": "2"}.items() <= item.meta.items()


def test_mmmu_parquet_with_several_pictures_and_open_questions(tmp_path: Path) -> None:
    def cell(place: int | None) -> dict[str, Any] | None:
        if place is None:
            return None
        PICTURES[place].save(tmp_path / "x.png")
        return {"bytes": (tmp_path / "x.png").read_bytes(), "path": "x.png"}

    rows = [
        {
            "id": "validation_Art_1",
            "question": "<image 1> or <image 2>?",
            "options": "['one', 'two']",
            "answer": "B",
            "image_1": cell(0),
            "image_2": cell(1),
        },
        {
            "id": "validation_Math_7",
            "question": "How many?",
            "options": "[]",
            "answer": "12",
            "image_1": cell(2),
            "image_2": cell(None),
        },
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "mmmu.parquet", row_group_size=1)
    several, free = read("mmmu", tmp_path / "mmmu.parquet")
    assert (several.category, several.answer, several.options) == ("Art", "B", ("one", "two"))
    assert same(several, PICTURES[0], PICTURES[1])
    assert (free.kind, free.answer) == ("open", "12")
    assert same(free, PICTURES[2])


def test_a_data_set_on_disk_and_a_table_with_lists(tmp_path: Path) -> None:
    from datasets import Features, Sequence, Value
    from datasets import Image as ImageFeature

    features = Features(
        {
            "index": Value("int64"),
            "question": Value("string"),
            "options": Sequence(Value("string")),
            "answer": Value("string"),
            "image": ImageFeature(),
        }
    )
    rows = [
        {"index": k, "question": "?", "options": ["x", "y", "z"], "answer": str(k), "image": PICTURES[k]}
        for k in range(3)
    ]
    Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    items = read("ai2d", tmp_path / "saved")
    assert [item.answer for item in items] == ["A", "B", "C"]
    assert all(same(item, PICTURES[k]) for k, item in enumerate(items))


def test_mmstar_blink_realworldqa(tmp_path: Path) -> None:
    base = {
        "index": 1,
        "question": "?",
        "A": "x",
        "B": "y",
        "answer": "(B)",
        "category": "math",
        "image": in_base64(PICTURES[0]),
    }
    with pytest.raises(DataError, match='mmstar needs the column "l2_category" or "l2-category"'):
        read("mmstar", write_tsv(tmp_path / "m.tsv", [base]))
    (item,) = read("mmstar", write_tsv(tmp_path / "m.tsv", [base | {"l2_category": "geometry"}]))
    assert (item.answer, item.meta["l2_category"]) == ("B", "geometry")
    pair = json.dumps([in_base64(PICTURES[0]), in_base64(PICTURES[1])])
    (item,) = read("blink", write_tsv(tmp_path / "b.tsv", [base | {"category": "Jigsaw", "image": pair}]))
    assert same(item, PICTURES[0], PICTURES[1])
    PICTURES[0].save(tmp_path / "r.png")
    lines = [
        {
            "id": 1,
            "image": "r.png",
            "question": "Which way?\nA. Left\nB. Right\nPlease answer directly with only the letter.",
            "answer": "B",
        },
        {"id": 2, "image": "r.png", "question": "How many lanes?", "answer": "3"},
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    choice, free = read("realworldqa", tmp_path / "r.jsonl")
    assert (choice.question, choice.options) == ("Which way?", ("Left", "Right"))
    assert (free.kind, free.answer) == ("open", "3")


def test_vqav2_amber_chair(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "COCO_val2014_000000000042.jpg")
    (tmp_path / "v2_OpenEnded_questions.json").write_text(
        json.dumps({"questions": [{"question_id": 420, "image_id": 42, "question": "How many?"}]})
    )
    with pytest.raises(DataError, match="nnotations"):
        read("vqav2", tmp_path)
    answers = [{"answer": "2" if k else "two", "answer_id": k} for k in range(10)]
    (tmp_path / "v2_annotations.json").write_text(
        json.dumps({"annotations": [{"question_id": 420, "answers": answers, "answer_type": "number"}]})
    )
    (item,) = read("vqav2", tmp_path)
    assert (item.answer, item.category, len(item.meta["references"])) == ("2", "number", 10)

    amber = tmp_path / "amber"
    amber.mkdir()
    PICTURES[0].save(amber / "AMBER_1.jpg")
    truths = [
        {"id": 1, "type": "generative", "truth": []},
        {"id": 2, "type": "discriminative-relation", "truth": "no"},
    ]
    (amber / "annotations.json").write_text(json.dumps(truths))
    with pytest.raises(DataError, match=r"amber needs query_discriminative\.json"):
        read("amber", amber)
    (amber / "query_all.json").write_text(
        json.dumps([{"id": k, "image": "AMBER_1.jpg", "query": "Is it?"} for k in (1, 2)])
    )
    (item,) = read("amber", amber)
    assert (item.id, item.answer, item.category) == ("2", "no", "discriminative-relation")

    coco = {
        "images": [{"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}],
        "annotations": [{"image_id": 42, "category_id": 1}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    (tmp_path / "instances_val.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match=r"synonyms.txt is missing"):
        read("chair", tmp_path)
    (tmp_path / "synonyms.txt").write_text("person, man\ndog, puppy\ntable\n")
    (tmp_path / "captions_val.json").write_text(
        json.dumps({"annotations": [{"image_id": 42, "caption": "Two men at a table"}]})
    )
    (item,) = read("chair", tmp_path)
    assert item.meta["objects"] == ["dog", "person", "table"]
    assert isinstance(item.pictures[0], PictureFile)
    # Of two official files one alone would be read.
    (tmp_path / "instances_train.json").write_text(json.dumps(coco))
    (tmp_path / "train_questions.json").write_text(json.dumps({"questions": []}))
    for suite in ("chair", "vqav2"):
        with pytest.raises(
            DataError, match=r"2 files are called .*_train\.json|2 files are called .*train_q"
        ):
            read(suite, tmp_path)


def test_one_odd_record_of_vqav2_costs_itself(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "COCO_val2014_000000000042.jpg")
    good = {"question_id": 1, "image_id": 42, "question": "How many?"}
    asked = [
        good,
        good | {"question_id": 2, "image_id": "COCO_val2014_000000000042"},
        good | {"question_id": 3, "image_id": None},
        {"question_id": 4, "image_id": 42},
        good | {"question_id": 5},
        good | {"question_id": 6},
        "no record",
        good | {"question_id": "0007", "image_id": "000042"},
    ]
    answers = [{"answer": "2"}] * 10
    noted = [{"question_id": float(k), "answers": answers} for k in (1, 2, 3, 4, 7)]
    noted += [{"question_id": 5}, {"answers": answers}, None]  # type: ignore[list-item]
    (tmp_path / "questions.json").write_text(json.dumps({"questions": asked}))
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": noted}))
    records = read_benchmark_records(find_benchmark("vqav2"), tmp_path, skip_bad=True)
    assert [record.item.id for record in records if record.item] == ["1", "0007"]
    said = [record.problems[0].message for record in records if record.problems]
    for place, words in enumerate(
        (
            "question 2: image_id must be the number of one of COCO's pictures; it is 'COCO_val2014_0",
            "question 3: image_id must be the number of one of COCO's pictures; it is 'None'",
            'question 4: vqav2 needs the field "question"',
            "question 5: annotations.json has no answers to question 5",
            "question 6: annotations.json has no answers to question 6",
            "question 7: must be an object",
        )
    ):
        assert words in said[place]
    with pytest.raises(DataError, match=r"(?s)question 2: image_id.*Fix these 6 records, or pass --skip"):
        read("vqav2", tmp_path)


def test_one_odd_caption_of_chair_costs_itself_and_ids_are_compared_as_coco_does(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "a.jpg")
    coco = {
        "images": [{"id": number, "file_name": "a.jpg"} for number in (7, 8)],
        "annotations": [{"image_id": 7, "category_id": 1}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    notes = [
        {"image_id": 7.0, "caption": "a man"},
        {"image_id": "000007", "caption": "a table"},
        {"image_id": 8, "caption": None},
        {"caption": "a dog"},
        {"image_id": 8},
        7,
    ]
    (tmp_path / "instances_val.json").write_text(json.dumps(coco))
    (tmp_path / "synonyms.txt").write_text("person, man\ndog, puppy\ntable\n")
    (tmp_path / "captions_val.json").write_text(json.dumps({"annotations": notes}))
    records = read_benchmark_records(find_benchmark("chair"), tmp_path, skip_bad=True)
    objects = {record.item.id: record.item.meta["objects"] for record in records if record.item}
    assert objects == {"7": ["dog", "person", "table"], "8": []}
    assert [record.number for record in records if record.problems] == [3, 4, 5, 6]
    with pytest.raises(
        DataError, match=r"captions_val\.json annotation 3: must be an object with an image_id"
    ):
        read("chair", tmp_path)
