"""No picture is lost in any layout, files of other systems are read, and what cannot be read is named in
one line."""

import base64
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from small_benchmarks import PICTURES, hallusion_record, vstar_folder, write_tsv
from small_eval import in_base64
from sparring.benchmarks.items import Item
from sparring.benchmarks.layouts import find_benchmark, read_benchmark
from sparring.data.convert import convert
from sparring.data.errors import DataError
from sparring.data.images import load_image
from sparring.data.layouts import data_digest, find_layout, looks_like
from sparring.data.questions import open_records, read_questions

SIDES = ["left", "right"]


def png(place: int) -> bytes:
    return base64.b64decode(in_base64(PICTURES[place]))


def rows(**changes: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"r{k}", "question": f"Which {k}?", "options": SIDES, "answer": "AB"[k]} | changes
        for k in range(2)
    ]


def items_of(path: Path, suite: str = "custom", images: Path | None = None) -> list[Item]:
    return read_benchmark(find_benchmark(suite), path, images)


def shows(found: list[Item] | Any, count: int = 2, per_item: int = 1) -> None:
    """Every item has its own pictures, and a game sees the same ones."""
    assert len(found) == count
    for place, item in enumerate(found):
        assert len(item.pictures) == per_item
        for offset, picture in enumerate(item.pictures):
            assert np.array_equal(np.asarray(picture.load()), np.asarray(PICTURES[place + offset])), item.id


def check(path: Path, folder: Path) -> None:
    shows(items_of(path))
    found = read_questions(path, folder=folder)
    assert len(found) == 2
    for place, question in enumerate(found):
        assert np.array_equal(np.asarray(load_image(question.image)), np.asarray(PICTURES[place]))


STRUCT = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
LARGE = arrow.struct([("bytes", arrow.large_binary()), ("path", arrow.large_string())])


def held(place: int) -> dict[str, Any]:
    return {"bytes": png(place), "path": "x.png"}


COLUMNS: dict[str, tuple[str, Any, Callable[[int], Any]]] = {
    "struct": ("image", STRUCT, held),
    "large struct": ("image", LARGE, held),
    "struct of path": ("image", STRUCT, lambda k: {"bytes": None, "path": f"p/{k}.png"}),
    "struct of path, empty bytes": ("image", STRUCT, lambda k: {"bytes": b"", "path": f"p/{k}.png"}),
    "list of structs": ("images", arrow.list_(STRUCT), lambda k: [held(k)]),
    "large list": ("images", arrow.large_list(LARGE), lambda k: [held(k)]),
    "fixed list": ("image", arrow.list_(STRUCT, 1), lambda k: [held(k)]),
    "list with nulls": (
        "images",
        arrow.list_(STRUCT),
        lambda k: [None, held(k), {"bytes": None, "path": None}],
    ),
    "list of paths": ("images", arrow.list_(arrow.string()), lambda k: [f"p/{k}.png"]),
    "list of binaries": ("image", arrow.list_(arrow.binary()), lambda k: [png(k)]),
    "binary": ("image", arrow.binary(), png),
    "large binary": ("image", arrow.large_binary(), png),
    "binary of a number": ("image_1", arrow.binary(), png),
    "binary of another name": ("image_bytes", arrow.large_binary(), png),
    "base64": ("image", arrow.string(), lambda k: base64.b64encode(png(k)).decode()),
    "large base64": ("image", arrow.large_string(), lambda k: base64.b64encode(png(k)).decode()),
    "base64 in lines": ("image", arrow.string(), lambda k: base64.encodebytes(png(k)).decode()),
    "base64 as bytes": ("image", arrow.binary(), lambda k: base64.b64encode(png(k))),
    "data URI": (
        "image",
        arrow.string(),
        lambda k: "data:image/png;base64," + base64.b64encode(png(k)).decode(),
    ),
    "path": ("image", arrow.string(), lambda k: f"p/{k}.png"),
    "image_path": ("image_path", arrow.string(), lambda k: f"p/{k}.png"),
    "another name": ("screenshot", STRUCT, held),
    "decoded_image": ("decoded_image", STRUCT, held),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_pictures_in_parquet(tmp_path: Path, kind: str) -> None:
    (tmp_path / "p").mkdir()
    for place in range(2):
        PICTURES[place].save(tmp_path / f"p/{place}.png")
    name, column, make = COLUMNS[kind]
    table = arrow.Table.from_pylist(rows()).append_column(name, arrow.array([make(0), make(1)], type=column))
    parquet.write_table(table, tmp_path / "q.parquet", row_group_size=1)
    check(tmp_path / "q.parquet", tmp_path / "kept")


def test_dictionary_encoded_paths_and_a_path_beside_the_picture_itself(tmp_path: Path) -> None:
    """A hub's columns `image_path` (a name of where it was made) and `image` (the picture)."""
    table = arrow.Table.from_pylist(rows())
    table = table.append_column(
        "image_path", arrow.array(["elsewhere/0.webp", "elsewhere/1.webp"]).dictionary_encode()
    )
    with_picture = table.append_column("image", arrow.array([held(0), held(1)], type=STRUCT))
    parquet.write_table(with_picture, tmp_path / "q.parquet")
    check(tmp_path / "q.parquet", tmp_path / "kept")
    parquet.write_table(table, tmp_path / "q.parquet")
    with pytest.raises(DataError, match=r'"elsewhere/0.webp" is not there'):
        items_of(tmp_path / "q.parquet")


@pytest.mark.parametrize("shape", ["one", "list", "splits", "shards", "no decoding"])
def test_pictures_in_saved_data_sets(tmp_path: Path, shape: str) -> None:
    data = [own | {"image": Image.open(io.BytesIO(png(k)))} for k, own in enumerate(rows())]
    if shape == "list":
        data = [{"images": [own.pop("image")], **own} for own in data]
    table = datasets.Dataset.from_list(data)
    if shape == "no decoding":
        table = table.cast_column("image", datasets.Image(decode=False))
    if shape == "splits":
        parts = {"train": table.select([0]), "test": table.select([1])}
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    else:
        table.save_to_disk(tmp_path / "set", num_shards=2 if shape == "shards" else 1)
    check(tmp_path / "set", tmp_path / "kept")


def test_class_labels_are_names_and_ids_are_unique_in_a_split(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list(
        [own | {"image": PICTURES[k], "answer": 1 - k} for k, own in enumerate(rows())]
    )
    named = table.cast_column("answer", datasets.ClassLabel(names=["left", "right"]))
    datasets.DatasetDict({"train": named, "test": named}).save_to_disk(tmp_path / "set")
    found = read_questions(tmp_path / "set").records
    assert [question.id for question in found] == ["r0", "r1", "test/r0", "test/r1"]
    assert [question.answer_text for question in found] == ["right", "left"] * 2


def test_a_folder_of_shards_with_a_macs_litter(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for place, own in enumerate(rows()):
        table = arrow.Table.from_pylist([own | {"image": held(place)}])
        parquet.write_table(table, tmp_path / f"data/test-0000{place}-of-00002.parquet")
    (tmp_path / "data/._test-00000-of-00002.parquet").write_bytes(b"\0\5\26\7")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/x.parquet").write_bytes(b"\0\5\26\7")
    (tmp_path / "README.md").write_text("a card")
    for path in (tmp_path, tmp_path / "data"):
        check(path, tmp_path / "kept")
    # Several splits in a folder: their rows follow one another.
    parquet.write_table(
        arrow.Table.from_pylist([rows()[0] | {"image": held(2)}]), tmp_path / "data/train-0.parquet"
    )
    assert [item.id for item in items_of(tmp_path)] == ["r0", "r1", "train/r0"]


def test_an_id_twice_in_one_split_is_refused(tmp_path: Path) -> None:
    for k in (0, 1):
        PICTURES[k].save(tmp_path / f"{k}.png")
    lines = [
        own | {"id": "a", "split": split, "image": f"{k}.png"}
        for k, own in enumerate(rows())
        for split in "xy"
    ]
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(map(json.dumps, lines[:2])))
    assert [question.id for question in read_questions(file)] == ["a", "y/a"]
    for twice in (lines[0], lines[1]):
        file.write_text("\n".join(map(json.dumps, [*lines[:2], twice])))
        with pytest.raises(DataError, match="id was already given"):
            read_questions(file)


def test_numbered_shards_are_no_splits_and_folders_are(tmp_path: Path) -> None:
    for name in ("one/0000.parquet", "one/0001.parquet", "two/train/0000.parquet", "two/test/0000.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.Table.from_pylist([rows()[0] | {"image": held(0)}]), tmp_path / name)
    with pytest.raises(DataError, match="id was already given"):
        items_of(tmp_path / "one")
    assert [item.id for item in items_of(tmp_path / "two")] == ["r0", "train/r0"]
    for year in ("2023", "2024"):
        (tmp_path / "years").mkdir(exist_ok=True)
        shutil.copyfile(tmp_path / "one/0000.parquet", tmp_path / f"years/{year}.parquet")
    assert [item.id for item in items_of(tmp_path / "years")] == ["r0", "2024/r0"]


JSON_PICTURES: dict[str, Callable[[int], Any]] = {
    "path": lambda k: {"image": f"p/{k}.png"},
    "list": lambda k: {"images": [f"p/{k}.png"]},
    "object": lambda k: {"image": {"bytes": None, "path": f"p/{k}.png"}},
    "object of base64": lambda k: {"image": {"bytes": base64.b64encode(png(k)).decode(), "path": "x.png"}},
    "base64": lambda k: {"image": base64.b64encode(png(k)).decode()},
    "URL-safe base64 without padding": lambda k: {
        "image": base64.urlsafe_b64encode(png(k)).decode().rstrip("=")
    },
    "data URI": lambda k: {"image": "data:image/png;base64," + base64.b64encode(png(k)).decode()},
    "list of data URIs": lambda k: {"images": ["data:image/png;base64," + base64.b64encode(png(k)).decode()]},
    "object of a URI": lambda k: {
        "image": {"url": "data:image/png;base64," + base64.b64encode(png(k)).decode()}
    },
    "backslashes": lambda k: {"image": f"p\\{k}.png"},
    "ending in another case": lambda k: {"image": f"p/{k}.PNG"},
    "ending in mixed case": lambda k: {"image": f"p/{k}.Png"},
    "dots inside": lambda k: {"image": f"./p/../p/{k}.png"},
    "image_1": lambda k: {"image_1": f"p/{k}.png", "image_2": None},
    "image_path": lambda k: {"image_path": f"p/{k}.png", "image": ""},
}


@pytest.mark.parametrize("kind", JSON_PICTURES)
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_pictures_in_json(tmp_path: Path, kind: str, suffix: str) -> None:
    (tmp_path / "p").mkdir()
    for place in range(2):
        PICTURES[place].save(tmp_path / f"p/{place}.png")
    data = [own | JSON_PICTURES[kind](place) for place, own in enumerate(rows())]
    text = "\n".join(map(json.dumps, data)) if suffix == "jsonl" else json.dumps(data, indent=1)
    (tmp_path / f"q.{suffix}").write_text(text)
    check(tmp_path / f"q.{suffix}", tmp_path / "kept")


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("column", ["image", "image_path"])
def test_pictures_in_separated_text(tmp_path: Path, separator: str, column: str) -> None:
    for place in range(2):
        PICTURES[place].save(tmp_path / f"{place}.png")
    path = write_tsv(
        tmp_path / "q.tsv",
        [{**own, "options": json.dumps(SIDES), column: f"{k}.png"} for k, own in enumerate(rows())],
    )
    if separator == ",":
        import csv

        with path.open() as file, (tmp_path / "q.csv").open("w", newline="") as out:
            csv.writer(out).writerows(csv.reader(file, delimiter="\t"))
        path = tmp_path / "q.csv"
    check(path, tmp_path / "kept")


def test_several_pictures_in_every_layout(tmp_path: Path) -> None:
    pair = [in_base64(PICTURES[k]) for k in range(2)]
    base = {"index": 1, "question": "Which?", "A": "x", "B": "y", "answer": "A"}
    tsv = write_tsv(tmp_path / "q.tsv", [base | {"image": json.dumps(pair)}])
    tsv_python = write_tsv(tmp_path / "p.tsv", [base | {"image": str(pair)}])
    (tmp_path / "q.jsonl").write_text(json.dumps(base | {"images": pair}) + "\n")
    (tmp_path / "n.jsonl").write_text(json.dumps(base | {"image_1": pair[0], "image_2": pair[1]}) + "\n")
    parquet.write_table(
        arrow.Table.from_pylist([base | {"images": [held(0), held(1)]}]), tmp_path / "q.parquet"
    )
    parquet.write_table(
        arrow.Table.from_pylist([base | {"image_1": held(0), "image_2": held(1), "image_3": None}]),
        tmp_path / "n.parquet",
    )
    for path in (
        tsv,
        tsv_python,
        *(tmp_path / name for name in ("q.jsonl", "n.jsonl", "q.parquet", "n.parquet")),
    ):
        shows(items_of(path), count=1, per_item=2)
        with pytest.raises(DataError, match="about 2 pictures; one is needed"):
            read_questions(path)


@pytest.mark.parametrize(
    "names", [("image_0", "image_1"), ("image0", "image1"), ("image1", "image2"), ("image", "image_2")]
)
def test_numbered_pictures_are_all_shown_however_they_are_counted(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    base = {"index": 1, "question": "Which?", "A": "x", "B": "y", "answer": "A"}
    texts = base | {name: in_base64(PICTURES[k]) for k, name in enumerate(names)}
    write_tsv(tmp_path / "q.tsv", [texts])
    (tmp_path / "q.jsonl").write_text(json.dumps(texts) + "\n")
    cells = {name: held(k) for k, name in enumerate(names)}
    parquet.write_table(arrow.Table.from_pylist([base | cells]), tmp_path / "q.parquet")
    for suffix in ("tsv", "jsonl", "parquet"):
        shows(items_of(tmp_path / f"q.{suffix}"), count=1, per_item=2)


def test_a_row_that_names_another_rows_picture_keeps_its_further_ones(tmp_path: Path) -> None:
    PICTURES[1].save(tmp_path / "b.png")
    base = {"question": "Which?", "A": "x", "B": "y", "answer": "A", "image_2": "b.png"}
    rows = [base | {"index": 5, "image": in_base64(PICTURES[0])}, base | {"index": 6, "image": "5"}]
    for item in items_of(write_tsv(tmp_path / "q.tsv", rows)):
        shows([item], count=1, per_item=2)
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r'"b\.png" is not there'):
        items_of(tmp_path / "q.tsv")


def test_pictures_under_any_name_beside_further_fields_of_theirs(tmp_path: Path) -> None:
    base = {"question": "Which?", "options": SIDES, "answer": "A"}
    cells = {"left_view": held(0) | {"width": 8}, "right_view": held(1) | {"width": 8}}
    parquet.write_table(arrow.Table.from_pylist([base | cells]), tmp_path / "q.parquet")
    shows(items_of(tmp_path / "q.parquet"), count=1, per_item=2)


@pytest.mark.parametrize(
    "start",
    [
        "DATA:image/png;base64,",
        "data:image/png;charset=utf-8;base64,",
        "data:;base64,",
        " data:image/png;base64,",
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_data_uris_as_pages_write_them(tmp_path: Path, start: str, quoted: bool) -> None:
    coded = [
        in_base64(PICTURES[k]).replace("+", "%2B").replace("=", "%3D") if quoted else in_base64(PICTURES[k])
        for k in range(2)
    ]
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps(own | {"image": start + coded[k]}) + "\n" for k, own in enumerate(rows()))
    )
    check(tmp_path / "q.jsonl", tmp_path / "kept")


NO_PICTURE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "null": lambda folder: {"image": None},
    "empty": lambda folder: {"image": ""},
    "empty list": lambda folder: {"image": []},
    "object of nulls": lambda folder: {"image": {"bytes": None, "path": None}},
    "not there": lambda folder: {"image": "none.png"},
    "outside": lambda folder: {"image": str(folder.parent / "secret.png")},
    "dots": lambda folder: {"image": "../secret.png"},
    "object that leads out": lambda folder: {"image": {"bytes": None, "path": "../secret.png"}},
    "address": lambda folder: {"image": "https://example.org/a.png"},
    "number": lambda folder: {"image": 7},
    "other object": lambda folder: {"image": {"id": 7}},
    "long name": lambda folder: {"image": "x" * 3000 + ".png"},
    "null character": lambda folder: {"image": "a\0.png"},
}


@pytest.mark.parametrize("kind", NO_PICTURE)
@pytest.mark.parametrize("suite", ["custom", "mmmu", "ai2d", "realworldqa"])
def test_a_row_without_its_picture_is_refused_by_name(tmp_path: Path, kind: str, suite: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    PICTURES[0].save(folder / "a.png")
    PICTURES[0].save(tmp_path / "secret.png")
    good, bad = rows()
    (folder / "q.jsonl").write_text(
        json.dumps(good | {"image": "a.png"}) + "\n" + json.dumps(bad | NO_PICTURE[kind](folder)) + "\n"
    )
    for read in (lambda: items_of(folder / "q.jsonl", suite), lambda: read_questions(folder / "q.jsonl")):
        with pytest.raises(DataError, match=r'line 2 \(id "r1"\): ') as error:
            read()
        assert len(str(error.value)) < 600
    assert [question.id for question in read_questions(folder / "q.jsonl", skip_bad=True)] == ["r0"]


def test_only_hallusionbench_asks_without_a_picture(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "a.png")
    records = [
        hallusion_record(filename="./a.PNG"),
        hallusion_record(category="VS", visual_input="0", figure_id="0", filename=None),
        hallusion_record(set_id="9", filename=None),
    ]
    (tmp_path / "HallusionBench.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(records[:2]).encode())
    found = items_of(tmp_path, "hallusionbench")
    assert [len(item.pictures) for item in found] == [1, 0]
    (tmp_path / "HallusionBench.json").write_text(json.dumps(records))
    with pytest.raises(DataError, match="record 3: image"):
        items_of(tmp_path, "hallusionbench")
    for value, answer in (("1", "yes"), (0, "no"), (1.0, "yes"), ("Yes", "yes"), (True, "yes")):
        (tmp_path / "HallusionBench.json").write_text(
            json.dumps([hallusion_record(filename="a.png", gt_answer=value)])
        )
        assert items_of(tmp_path, "hallusionbench")[0].answer == answer
    (tmp_path / "HallusionBench.json").write_text(
        json.dumps([hallusion_record(filename="a.png", gt_answer="2")])
    )
    with pytest.raises(DataError, match='gt_answer is "2"; it must be yes or no'):
        items_of(tmp_path, "hallusionbench")
    base = {"question": "Same?", "answer": "Yes", "l2-category": "ocr"}
    table = [
        base | {"index": "hb_VS_ocr_0_0_0", "category": "VS", "image": ""},
        base | {"index": "hb_VD_ocr_0_1_0", "category": "VD", "image": ""},
    ]
    with pytest.raises(DataError, match=r"row 2 .*no picture"):
        items_of(write_tsv(tmp_path / "h.tsv", table), "hallusionbench")


# ---- the hub's files, as distributed


def test_ai2d_realworldqa_and_mmstar_as_on_the_hub(tmp_path: Path) -> None:
    ai2d = [
        {"question": "How many?", "options": ["2", "3", "4", "1"], "answer": "3", "image": held(0)},
        {
            "question": "Which?",
            "options": ["eggs", "larva", "pupa", "adult"],
            "answer": "0",
            "image": held(1),
        },
    ]
    parquet.write_table(arrow.Table.from_pylist(ai2d), tmp_path / "ai2d.parquet")
    found = items_of(tmp_path / "ai2d.parquet", "ai2d")
    shows(found)
    assert [(item.id, item.options["ABCD".index(item.answer)]) for item in found] == [
        ("1", "1"),
        ("2", "eggs"),
    ]
    world = [
        {"question": "Which way?\n\nA. Left\nB. Right\nPlease answer directly with only the letter.", "answer": "B", "image_path": "0.webp", "image": held(0)},
        {"question": "How many lanes?\nPlease answer directly with a single word or number.", "answer": "3", "image_path": "1.webp", "image": held(1)},
    ]  # fmt: skip
    parquet.write_table(arrow.Table.from_pylist(world), tmp_path / "test-00000-of-00001.parquet")
    found = items_of(tmp_path / "test-00000-of-00001.parquet", "realworldqa")
    shows(found)
    assert [(item.kind, item.answer) for item in found] == [("choice", "B"), ("open", "3")]
    star = [
        {"index": k, "question": "Which?\nOptions: A: The cup is red., B: It is 3, or 4, C: None, D: blue", "answer": "ABCD"[k],
         "category": "coarse perception", "l2_category": "image scene", "meta_info": {"source": "x", "split": "y"}, "image": png(k)}
        for k in range(2)
    ]  # fmt: skip
    parquet.write_table(arrow.Table.from_pylist(star), tmp_path / "mmstar.parquet")
    found = items_of(tmp_path / "mmstar.parquet", "mmstar")
    shows(found)
    assert found[1].options == ("The cup is red.", "It is 3, or 4", "None", "blue")
    assert (found[1].question, found[1].answer, found[1].meta["l2_category"]) == (
        "Which?",
        "B",
        "image scene",
    )


def test_ids_may_be_missing_or_numbers(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "a.png")
    base = {"question": "?", "options": SIDES, "answer": "A", "image": "a.png"}
    for ids, names in (
        ([{}, {}], ["1", "2"]),
        ([{"id": 7}, {"id": "8"}], ["7", "8"]),
        ([{"question_id": 0}, {"idx": 3}], ["0", "3"]),
    ):
        (tmp_path / "q.jsonl").write_text("\n".join(json.dumps(base | own) for own in ids))
        assert [item.id for item in items_of(tmp_path / "q.jsonl")] == names
        assert [question.id for question in read_questions(tmp_path / "q.jsonl")] == names


# ---- as other systems write them


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-16-be with mark"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "tsv", "csv"])
def test_byte_order_marks(tmp_path: Path, mark: str, suffix: str) -> None:
    data = [own | {"image": in_base64(PICTURES[k]), "question": "Où\u2028?"} for k, own in enumerate(rows())]
    if suffix in ("tsv", "csv"):
        separator = "\t" if suffix == "tsv" else ","
        cells = [[own["id"], own["question"], "left", "right", own["answer"], own["image"]] for own in data]
        text = "\r\n".join(
            separator.join(row) for row in [["id", "question", "A", "B", "answer", "image"], *cells]
        )
    else:
        text = "\r\n".join(map(json.dumps, data)) if suffix == "jsonl" else json.dumps(data)
    coded = "\ufeff".encode("utf-16-be") + text.encode("utf-16-be") if "mark" in mark else text.encode(mark)
    (tmp_path / f"q.{suffix}").write_bytes(coded)
    check(tmp_path / f"q.{suffix}", tmp_path / "kept")
    assert items_of(tmp_path / f"q.{suffix}")[0].question == "Où\u2028?"


def test_files_with_marks_that_were_joined(tmp_path: Path) -> None:
    lines = [json.dumps(own | {"image": in_base64(PICTURES[k])}) + "\n" for k, own in enumerate(rows())]
    (tmp_path / "q.jsonl").write_bytes(b"".join(line.encode("utf-8-sig") for line in lines))
    check(tmp_path / "q.jsonl", tmp_path / "kept")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"question": "?"},\n{"question": "?"},\n', "line 1: no valid JSON at column 18: Extra data"),
        ('{"question": "é"}\n'.encode("latin-1"), "line 1: byte 15 of the line is not UTF-8"),
        (b'{"question": "?"}\r{"question": "?"}\r', "line 1: no valid JSON"),
    ],
)
def test_a_file_of_which_no_record_can_be_read_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=f"no record of it can be read. The first: q.jsonl {words}"):
        items_of(tmp_path / "q.jsonl")


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
@pytest.mark.parametrize("escaped", [True, False])
def test_unusual_line_ends_are_characters(tmp_path: Path, char: str, escaped: bool) -> None:
    PICTURES[0].save(tmp_path / "a.png")
    PICTURES[1].save(tmp_path / "b.png")
    data = [own | {"image": f"{'ab'[k]}.png", "question": f"one{char}two"} for k, own in enumerate(rows())]
    lines = [json.dumps(own, ensure_ascii=escaped or char < " ") for own in data]
    (tmp_path / "q.jsonl").write_bytes("\n".join(lines).encode())
    check(tmp_path / "q.jsonl", tmp_path / "kept")
    assert {item.question for item in items_of(tmp_path / "q.jsonl")} == {f"one{char}two"}
    assert len(items_of(tmp_path / "q.jsonl", "mmmu")) == 2


@pytest.mark.parametrize(
    "suffix",
    [".jpg", ".JPG", ".jpeg", ".JPEG", ".Jpg", ".png", ".PNG", ".webp", ".bmp", ".TIF", ".tiff", ".gif"],
)
def test_every_ending_in_every_case(tmp_path: Path, suffix: str) -> None:
    folder = vstar_folder(tmp_path / "v")
    for file in folder.glob("*/*.png"):
        Image.open(file).convert("RGB").save(
            file.with_suffix(".tmp"),
            {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}.get(suffix.lower(), suffix[1:].upper()),
        )
        file.unlink()
        file.with_suffix(".tmp").rename(file.with_suffix(suffix))
        (file.parent / f"._{file.stem}.json").write_bytes(b"\0\5\26\7")
        (file.parent / f"._{file.stem}{suffix}").write_bytes(b"\0\5\26\7")
    (folder / "__MACOSX/direct_attributes").mkdir(parents=True)
    (folder / "__MACOSX/direct_attributes/x.json").write_text("{}")
    assert [item.id for item in items_of(folder, "vstar")] == [
        "direct_attributes/sa_0",
        "relative_position/sa_1",
    ]
    assert [question.id for question in read_questions(folder)] == [
        "direct_attributes/sa_0",
        "relative_position/sa_1",
    ]


def test_vqav2_finds_pictures_whatever_their_ending(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "COCO_val2014_000000000042.JPG", "PNG")
    asked = [{"question_id": 420, "image_id": 42, "question": "How many?"}]
    (tmp_path / "v2_questions.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"questions": asked}).encode())
    answers = [{"question_id": "420", "answers": [{"answer": "2"}] * 10}]
    (tmp_path / "v2_annotations.json").write_text(json.dumps({"annotations": answers}))
    (tmp_path / "._v2_questions.json").write_bytes(b"\0\5\26\7")
    shows(items_of(tmp_path, "vqav2"), count=1)


def hub_cache(root: Path) -> Path:
    """A hub cache: a snapshot whose files are links into blobs/."""
    snapshot = root / "models--a--b/snapshots/abc"
    (snapshot / "p").mkdir(parents=True)
    (root / "models--a--b/blobs").mkdir()
    for place, own in enumerate(rows()):
        (root / f"models--a--b/blobs/h{place}").write_bytes(png(place))
        os.symlink(f"../../../blobs/h{place}", snapshot / f"p/{place}.png")
        own["image"] = f"p/{place}.png"
    text = "".join(json.dumps(own | {"image": f"p/{k}.png"}) + "\n" for k, own in enumerate(rows()))
    (root / "models--a--b/blobs/hq").write_text(text)
    os.symlink("../../blobs/hq", snapshot / "q.jsonl")
    return snapshot


def test_links_of_a_hub_cache_are_inside_and_others_are_not(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path)
    check(snapshot / "q.jsonl", tmp_path / "kept")
    check(snapshot, tmp_path / "kept")
    PICTURES[0].save(tmp_path / "secret.png")
    for target in (tmp_path / "secret.png", tmp_path / "models--c--d/blobs/h0"):
        target.parent.mkdir(parents=True, exist_ok=True)
        PICTURES[0].save(target, "PNG")
        (snapshot / "p/0.png").unlink()
        (snapshot / "p/0.png").symlink_to(target)
        with pytest.raises(DataError, match="leaves the folder"):
            read_questions(snapshot / "q.jsonl")
        with pytest.raises(DataError, match="leaves the folder"):
            items_of(snapshot / "q.jsonl")
    # A folder called blobs beside any other folder is no cache.
    (tmp_path / "x/data").mkdir(parents=True)
    (tmp_path / "x/blobs").mkdir()
    PICTURES[0].save(tmp_path / "x/blobs/a.png")
    (tmp_path / "x/data/q.jsonl").write_text(json.dumps(rows()[0] | {"image": "../blobs/a.png"}))
    with pytest.raises(DataError, match="leaves the folder"):
        read_questions(tmp_path / "x/data/q.jsonl")


def test_names_in_the_other_form_of_unicode(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "cafe\u0301.png")  # as macOS writes é
    PICTURES[1].save(tmp_path / "b.png")
    data = [own | {"image": ("caf\xe9.png", "b.png")[k]} for k, own in enumerate(rows())]
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps(own) for own in data))
    check(tmp_path / "q.jsonl", tmp_path / "kept")


# ---- which layout it is


def pope_file(folder: Path) -> Path:
    PICTURES[0].save(folder / "a.jpg")
    record = {"question_id": 1, "image": "a.jpg", "text": "Is there a cup?", "label": "no"}
    (folder / "coco_pope_random.json").write_text(
        json.dumps(record) + "\n" + json.dumps(record | {"question_id": 2, "text": "Is it red?"})
    )
    return folder / "coco_pope_random.json"


def test_a_game_takes_yes_no_questions_of_any_layout(tmp_path: Path) -> None:
    path = pope_file(tmp_path)
    for named in (path, tmp_path):
        found = read_questions(named).records
        assert [(question.options, question.answer) for question in found] == [(("yes", "no"), "B")] * 2
    assert [item.kind for item in items_of(path)] == ["yes_no"] * 2


def test_a_csv_of_another_country_and_a_folder_of_several_files(tmp_path: Path) -> None:
    for place in range(2):
        PICTURES[place].save(tmp_path / f"{place}.png")
    lines = [
        "id;question;A;B;answer;image",
        *(f"r{k};Which, {k}?;left;right;{'AB'[k]};{k}.png" for k in range(2)),
    ]
    (tmp_path / "a.csv").write_text("\r\n".join(lines))
    check(tmp_path / "a.csv", tmp_path / "kept")
    check(tmp_path, tmp_path / "kept")
    (tmp_path / "b.jsonl").write_text(json.dumps(rows()[0] | {"image": "0.png"}))
    with pytest.raises(
        DataError, match=r"a folder of several files, of which one must be named \(a.csv, b.jsonl\)"
    ):
        read_questions(tmp_path)


def test_misnamed_files_are_read_by_their_content(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "a.png")
    PICTURES[1].save(tmp_path / "b.png")
    data = [own | {"image": f"{'ab'[k]}.png"} for k, own in enumerate(rows())]
    (tmp_path / "list.jsonl").write_text(json.dumps(data, indent=2))
    (tmp_path / "short.jsonl").write_text(json.dumps(data))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, data)))
    (tmp_path / "wrapped.json").write_text(json.dumps({"version": 1, "data": data}))
    (tmp_path / "by_id.json").write_text(
        json.dumps({own["id"]: {k: v for k, v in own.items() if k != "id"} for own in data})
    )
    write_tsv(tmp_path / "x.tsv", [own | {"options": json.dumps(SIDES)} for own in data]).rename(
        tmp_path / "tsv.jsonl"
    )
    parquet.write_table(arrow.Table.from_pylist(data), tmp_path / "x.dat")
    (tmp_path / "lines.tsv").write_text("\n".join(map(json.dumps, data)))
    lines = [
        "id,question,A,B,answer,image",
        *(f"r{k},Which {k}?,left,right,{'AB'[k]},{'ab'[k]}.png" for k in range(2)),
    ]
    (tmp_path / "csv.jsonl").write_text("\n".join(lines))
    for name in (
        "list.jsonl",
        "short.jsonl",
        "lines.json",
        "wrapped.json",
        "by_id.json",
        "tsv.jsonl",
        "x.dat",
        "lines.tsv",
        "csv.jsonl",
    ):
        check(tmp_path / name, tmp_path / "kept")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "a picture"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("a.xlsx", b"PK\3\4", "an Excel file"),
        ("a.json.gz", b"\x1f\x8b\x08", "gzip"),
        ("a.html", b"<!DOCTYPE html>", "a web page"),
        ("a.txt", b"hello there\n", "a text file that begins"),
        ("b.jsonl", b"hello there\n" * 13, "a text file that begins"),
        ("c.jsonl", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + bytes(range(256)), "a picture"),
        ("a.json", b'{"a": 1}', "a JSON object without"),
        ("a.bin", b"\0\1\2", "binary"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in looks_like(tmp_path / name)
    for read in (read_questions, items_of):
        with pytest.raises(DataError) as error:
            read(tmp_path / name)
        assert str(error.value).count("\n") == 0
        assert words in str(error.value)


def test_another_layout_than_the_suites_is_named(tmp_path: Path) -> None:
    vstar_folder(tmp_path / "v")
    with pytest.raises(DataError, match=r"What lies there is POPE's JSON lines"):
        items_of(pope_file(tmp_path), "ai2d")
    with pytest.raises(DataError, match=r"a folder like V\*Bench"):
        items_of(tmp_path / "v", "pope")
    with pytest.raises(DataError, match=r"this is POPE's JSON lines, not a COCO detection file"):
        find_layout(pope_file(tmp_path), "coco")
    (tmp_path / "pictures").mkdir()
    PICTURES[0].save(tmp_path / "pictures/a.png")
    with pytest.raises(DataError, match="a folder of pictures, without questions"):
        read_questions(tmp_path / "pictures")


def test_data_are_told_apart_by_what_decides_their_records(tmp_path: Path) -> None:
    folder = vstar_folder(tmp_path / "v")
    before = data_digest(folder)
    PICTURES[3].save(folder / "other.png")
    assert data_digest(folder) == before
    file = next(folder.glob("*/*.json"))
    file.write_text(file.read_text().replace("red", "pink"))
    assert data_digest(folder) != before


# ---- conversion


@pytest.mark.parametrize(
    "make", [vstar_folder, lambda folder: (folder.mkdir(), pope_file(folder))[1], hub_cache]
)
def test_what_is_converted_asks_the_same(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    data = make(tmp_path / "in")
    done = convert(data, open_records(data), tmp_path / "out")
    before, after = read_questions(data).records, read_questions(done.path).records
    assert done.written == len(after) == len(before)
    for a, b in zip(before, after, strict=True):
        assert (a.id, a.question, a.options, a.answer, a.targets, a.category) == (
            b.id,
            b.question,
            b.options,
            b.answer,
            b.targets,
            b.category,
        )
        assert a.image.read_bytes() == b.image.read_bytes()
        assert b.image.is_relative_to((tmp_path / "out/pictures").resolve())


def test_open_questions_and_several_pictures_are_converted_for_evaluations(tmp_path: Path) -> None:
    data = [
        {
            "id": "a",
            "question": "Which?\nA. x\nB. y",
            "answer": ["1", "one"],
            "question_type": "open",
            "image": in_base64(PICTURES[0]),
        },
        {
            "id": "b",
            "question": "?",
            "options": SIDES,
            "answer": "B",
            "images": [in_base64(PICTURES[k]) for k in (1, 2)],
            "hint": "Look.",
        },
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, data)))
    done = convert(tmp_path / "q.jsonl", open_records(tmp_path / "q.jsonl"), tmp_path / "out")
    before, after = items_of(tmp_path / "q.jsonl"), items_of(done.path)
    for a, b in zip(before, after, strict=True):
        assert (a.id, a.kind, a.question, a.options, a.answer, a.hint, a.meta) == (
            b.id,
            b.kind,
            b.question,
            b.options,
            b.answer,
            b.hint,
            b.meta,
        )
        assert [picture.data() for picture in a.pictures] == [picture.data() for picture in b.pictures]


def test_bad_records_stop_a_conversion_or_are_skipped(tmp_path: Path) -> None:
    data = [
        rows()[0] | {"image": in_base64(PICTURES[0])},
        rows()[1] | {"image": "A" * 100},
        rows(id="c")[0] | {"image": "x.png"},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, data)))
    with pytest.raises(DataError, match="--skip-bad-records"):
        convert(tmp_path / "q.jsonl", open_records(tmp_path / "q.jsonl"), tmp_path / "out")
    assert not (tmp_path / "out/questions.jsonl").exists()
    done = convert(tmp_path / "q.jsonl", open_records(tmp_path / "q.jsonl"), tmp_path / "out", skip_bad=True)
    assert (done.written, len(done.problems)) == (1, 2)
