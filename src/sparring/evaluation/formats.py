"""Official layouts that are no plain tables of questions: V*Bench folders, POPE, HallusionBench, VQAv2, AMBER, CHAIR."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.data.errors import DataError
from sparring.data.records import Target
from sparring.evaluation.chair import Vocabulary
from sparring.evaluation.choices import IDS, IMAGES, python_list, read_choices, targets_of
from sparring.evaluation.items import YES_NO, Item, PictureFile
from sparring.evaluation.tables import Row, Table, picture_file, read_table

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".JPG")
POPE_SPLITS = ("random", "popular", "adversarial")
CAPTION = "Describe this image in detail."


def read_vstar(path: Path, images: Path | None) -> list[Item]:
    """V*Bench: a folder of `direct_attributes/`, `relative_position/` with pairs of JSON and picture, its `test_questions.jsonl`, or VLMEvalKit's TSV."""
    if path.is_dir() and (path / "test_questions.jsonl").is_file() and not list(path.glob("*/*.json")):
        path = path / "test_questions.jsonl"
    if path.is_file():
        return read_choices(path, "vstar", images=images, needed=("category",))
    files = sorted(path.glob("*/*.json")) or sorted(path.glob("*.json"))
    if not files:
        raise DataError(
            f"{path}: V*Bench needs a folder of pairs of .json and picture, test_questions.jsonl or a TSV; there is none of them."
        )
    return [_vstar_pair(path, file) for file in files]


def _vstar_pair(folder: Path, file: Path) -> Item:
    record = _object(file)
    for name in ("question", "options", "target_object", "bbox"):
        if name not in record:
            raise DataError(f'{file}: vstar needs the field "{name}", which is missing. The file has {", ".join(record)}.')
    picture = next((file.with_suffix(suffix) for suffix in SUFFIXES if file.with_suffix(suffix).is_file()), None)
    if picture is None:
        raise DataError(f"{file}: there is no picture of that name beside it ({', '.join(SUFFIXES)}).")
    targets = tuple(
        Target(str(name), (int(x), int(y), int(x + w), int(y + h)))
        for name, (x, y, w, h) in zip(record["target_object"], record["bbox"], strict=True)
    )
    # The right option is always the first: without shuffling, a model that says A is always right.
    return Item(
        id=file.relative_to(folder).with_suffix("").as_posix(),
        kind="choice",
        question=str(record["question"]),
        answer="A",
        options=tuple(str(option) for option in record["options"]),
        pictures=(PictureFile(picture),),
        category=file.parent.name if file.parent != folder else None,
        targets=targets,
    )


def read_pope(path: Path, images: Path | None) -> list[Item]:
    """POPE: official JSON lines (one file, or a folder of three, named after their splits), or a TSV with comma-joined categories.

    The 3 x 3,000 rows hold 5,127 questions; each is one item, and `splits` says where it belongs.
    """
    files = sorted(path.glob("*pope*.json")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: POPE needs files named like coco_pope_random.json; there is none in this folder.")
    found: dict[tuple[str, str], Item] = {}
    for file in files:
        own = next((split for split in POPE_SPLITS if split in file.name), None)
        folder = images or file.parent
        table = read_table(file, folder)
        table.require("pope", IDS, ("text", "question"), ("label", "answer"), ("image", "image_path"), *(() if own else ("category",)))
        for row in table.rows:
            where, question = table.where(row), row.text("text", "question")
            splits = [own] if own else [part.strip() for part in row.text("category").split(",")]
            key = (row.text("image", "image_path") or row.text(*IDS), question)
            answer = _yes_no(row, where, "label", "answer")
            if key in found and found[key].answer != answer:
                raise DataError(f"{where}: the same question about the same picture was answered otherwise before.")
            before = found[key].meta["splits"] if key in found else []
            joined = [*before, *(split for split in splits if split not in before)]
            identity = found[key].id if key in found else f"{own}-{row.text(*IDS)}" if own else row.text(*IDS)
            found[key] = Item(
                identity,
                "yes_no",
                question,
                answer,
                pictures=row.held.get("image", ()),
                category=",".join(joined),
                targets=targets_of(row.values.get("targets"), where),
                meta={"splits": joined},
            )
    return list(found.values())


def _yes_no(row: Row, where: str, *names: str) -> str:
    value = row.text(*names).lower()
    if value not in YES_NO:
        raise DataError(f'{where}: {names[-1]} is "{value}"; it must be yes or no.')
    return value


def read_hallusionbench(path: Path, images: Path | None) -> list[Item]:
    """HallusionBench: the official list (1,129 questions, 178 of them without a picture), or VLMEvalKit's TSV, whose index holds the ids."""
    if path.is_dir():
        path = path / "HallusionBench.json"
    if path.suffix == ".json":
        return [_hallusion_record(record, place, path, images or path.parent) for place, record in enumerate(_list(path), start=1)]
    table = read_table(path, images)
    table.require("hallusionbench", "index", "question", "answer", "category", "l2-category", ("image", "image_path"))
    items = []
    for row in table.rows:
        parts = row.text("index").split("_")
        if len(parts) != 6:
            raise DataError(f"{table.where(row)}: index {row.text('index')!r} does not end in set, figure and question: _0_1_0.")
        meta = {"subcategory": row.text("l2-category"), "set": parts[3], "figure": parts[4], "pair": parts[5], "shown": bool(row.held)}
        items.append(
            Item(
                row.text("index"),
                "yes_no",
                row.text("question"),
                _yes_no(row, table.where(row), "answer"),
                pictures=row.held.get("image", ()),
                category=row.text("category"),
                meta=meta,
            )
        )
    return items


def _hallusion_record(record: Mapping[str, Any], place: int, path: Path, folder: Path) -> Item:
    where = f"{path.name} record {place}"
    needed = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "question", "gt_answer", "filename")
    missing = [name for name in needed if name not in record]
    if missing:
        raise DataError(f'{where}: hallusionbench needs the field "{missing[0]}", which is missing.')
    shown = str(record["visual_input"]) != "0"
    ids = {"subcategory": record["subcategory"], "set": record["set_id"], "figure": record["figure_id"], "pair": record["question_id"]}
    name = str(record["filename"] or "").removeprefix("./")
    return Item(
        "_".join(str(part) for part in (record["category"], *ids.values())),
        "yes_no",
        str(record["question"]),
        YES_NO[0] if str(record["gt_answer"]) == "1" else YES_NO[1],
        pictures=(picture_file(folder, name, where),) if shown else (),
        category=str(record["category"]),
        targets=targets_of(record.get("targets"), where),
        meta={name: str(value) for name, value in ids.items()} | {"shown": shown},
    )


def read_vqav2(path: Path, images: Path | None) -> list[Item]:
    """VQAv2: a folder with the official questions and annotations, or a TSV whose `answer` is a list of ten answers."""
    if path.is_file():
        table = read_table(path, images)
        table.require("vqav2", IDS, "question", ("answer", "answers"), IMAGES)
        return [_vqa_row(table, row) for row in table.rows]
    asked, answered = (_only(path, pattern) for pattern in ("*uestions*.json", "*nnotations*.json"))
    questions = _field(asked, "questions", "question_id", "image_id", "question")
    annotations = {record["question_id"]: record for record in _field(answered, "annotations", "question_id", "answers")}
    folder = images or path
    items = []
    for record in questions:
        identity = record["question_id"]
        if identity not in annotations:
            raise DataError(f"{answered}: has no answers to question {identity} of {asked.name}.")
        references = [str(answer["answer"]) for answer in annotations[identity]["answers"]]
        picture = picture_file(folder, _coco_name(folder, int(record["image_id"])), f"{asked.name} question {identity}")
        kind = annotations[identity].get("answer_type")
        items.append(_vqa_item(str(identity), record["question"], references, (picture,), kind))
    return items


def _vqa_row(table: Table, row: Row) -> Item:
    value = row.values.get("answers") or row.values.get("answer")
    listed = python_list(value, f"{table.where(row)} answer") if isinstance(value, str) and value.startswith("[") else value
    references = listed if isinstance(listed, list) else [listed]
    texts = [str(part["answer"] if isinstance(part, dict) else part) for part in references]
    return _vqa_item(row.text(*IDS), row.text("question"), texts, row.held.get("image", ()), row.text("category", "answer_type") or None)


def _vqa_item(identity: str, question: str, references: list[str], pictures: Any, category: str | None) -> Item:
    usual = max(sorted(set(references)), key=references.count)
    return Item(identity, "open", question, usual, pictures=pictures, category=category, meta={"references": references})


def _coco_name(folder: Path, number: int) -> str:
    names = [f"COCO_{split}_{number:012d}.jpg" for split in ("val2014", "train2014", "test2015")] + [f"{number:012d}.jpg"]
    return next((name for name in names if (folder / name).is_file()), names[0])


def read_amber(path: Path, images: Path | None) -> list[Item]:
    """AMBER, discriminative: a folder with `annotations.json` and `query_discriminative.json` or `query_all.json` (also below `data/`, `query/`), or a TSV."""
    if path.is_file() and path.suffix != ".json":
        table = read_table(path, images)
        table.require("amber", "index", "question", "answer", "category", ("image", "image_path"))
        return [
            Item(
                row.text("index"),
                "yes_no",
                row.text("question"),
                _yes_no(row, table.where(row), "answer"),
                pictures=row.held.get("image", ()),
                category=row.text("category"),
            )
            for row in table.rows
        ]
    folder = path.parent if path.is_file() else path
    truths = {record["id"]: record for record in _list(_only(folder, "**/annotations.json"))}
    queries = sorted(folder.glob("**/query_discriminative.json")) or sorted(folder.glob("**/query_all.json"))
    if not queries:
        raise DataError(f"{folder}: amber needs query_discriminative.json or query_all.json, which is missing.")
    items = []
    for record in _list(queries[0]):
        truth = truths.get(record["id"])
        if truth is None or "type" not in truth:
            raise DataError(f"annotations.json: has no record of the type and truth of query {record['id']}.")
        if truth["type"] == "generative":
            continue
        where = f"{queries[0].name} query {record['id']}"
        answer = str(truth["truth"])
        if answer not in YES_NO:
            raise DataError(f"{where}: its truth is {answer!r}; it must be yes or no.")
        picture = picture_file(images or folder, str(record["image"]), where)
        items.append(Item(str(record["id"]), "yes_no", str(record["query"]), answer, pictures=(picture,), category=str(truth["type"])))
    return items


def read_chair(path: Path, images: Path | None) -> list[Item]:
    """CHAIR: a folder with COCO's `instances*.json`, the official `synonyms.txt`, and, where it is there, `captions*.json`; one caption a picture.

    The objects of a picture are those that were annotated, and those that its reference captions name.
    """
    vocabulary = Vocabulary.read(_only(path, "synonyms.txt"))
    instances = _object(_only(path, "instances*.json"))
    for name in ("images", "annotations", "categories"):
        if name not in instances:
            raise DataError(f'{path}: instances.json lacks the field "{name}", which chair needs.')
    names = {category["id"]: str(category["name"]) for category in instances["categories"]}
    objects: dict[int, set[str]] = defaultdict(set)
    for annotation in instances["annotations"]:
        objects[annotation["image_id"]] |= set(vocabulary.objects(names[annotation["category_id"]]))
    for file in sorted(path.glob("captions*.json")):
        for annotation in _field(file, "annotations", "image_id", "caption"):
            objects[annotation["image_id"]] |= set(vocabulary.objects(annotation["caption"]))
    folder = images or path
    return [
        Item(
            str(record["id"]),
            "caption",
            CAPTION,
            "",
            pictures=(picture_file(folder, str(record["file_name"]), f"image {record['id']}"),),
            meta={"objects": sorted(objects[record["id"]])},
        )
        for record in instances["images"]
    ]


def chair_resources(path: Path) -> dict[str, Any]:
    """What CHAIR's scores need beside the items: the lines of synonyms."""
    return {"synonyms": Vocabulary.read(_only(path, "synonyms.txt")).lines}


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"{folder}: the file {pattern.removeprefix('**/')} is missing.")
    return found[0]


def _object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: no valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"{file}: must be an object, {{...}}.")
    return value


def _list(file: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: no readable JSON ({error}).") from error
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise DataError(f"{file}: must be a list of objects.")
    return value


def _field(file: Path, name: str, *needed: str) -> list[dict[str, Any]]:
    records = _object(file).get(name)
    if not isinstance(records, list):
        raise DataError(f'{file}: the field "{name}" is missing.')
    for place, record in enumerate(records, start=1):
        for key in needed:
            if key not in record:
                raise DataError(f'{file} {name} {place}: the field "{key}" is missing.')
    return records
