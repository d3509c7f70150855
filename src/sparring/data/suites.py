"""Official layouts of benchmarks that are no plain tables of questions: POPE, HallusionBench, VQAv2,
AMBER."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.data.answers import answer_in, references_of
from sparring.data.choices import check_text, python_list
from sparring.data.coco import id_key
from sparring.data.errors import DataError, Fault
from sparring.data.files import files_below, picture_beside, read_json
from sparring.data.items import YES_NO, Item, Record, Records
from sparring.data.pictures import PictureFile, is_empty, named_picture
from sparring.data.rows import targets_of
from sparring.data.tables import IDS, PICTURES, Row, Table
from sparring.data.text_tables import read_table
from sparring.data.vstar import records_of

POPE_SPLITS = ("random", "popular", "adversarial")
HALLUSION = (
    "category",
    "subcategory",
    "visual_input",
    "set_id",
    "figure_id",
    "question_id",
    "question",
    "gt_answer",
    "filename",
)


def pope_files(folder: Path) -> list[Path]:
    """POPE's official files in a folder."""
    return files_below(folder, "*pope*.json", "*pope*.jsonl")


def read_pope(path: Path, images: Path | None = None) -> Records:
    """POPE: official JSON lines (one file, or a folder of three, named after their splits), or a table with
    comma-joined categories.

    The 3 x 3,000 rows hold 5,127 questions; each is one item, and `splits` says where it belongs.
    """
    files = pope_files(path) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path}: POPE needs files named like coco_pope_random.json; there is none in this folder."
        )
    found: dict[tuple[str, str], Record] = {}
    bad = list[Record]()
    for file in files:
        split = next((split for split in POPE_SPLITS if split in file.name.lower()), None)
        table = read_table(file, images or file.parent)
        category = () if split else ("category",)
        table.require(
            "pope",
            IDS,
            ("text", "question"),
            ("label", "answer"),
            *(() if table.pictures else (PICTURES,)),
            *category,
        )
        for row in table.rows():
            try:
                _pope_row(row, split, found)
            except Fault as fault:
                bad.append(Record(row.number, None, (table.problem(row, fault),), table.unit))
    yield from found.values()
    yield from bad


def _pope_row(row: Row, split: str | None, found: dict[tuple[str, str], Record]) -> None:
    if row.fault is not None:
        raise row.fault
    if not row.pictures:
        raise Fault("no picture", "there is no picture in it. A question without one is not asked.")
    question = check_text("question", row.text("text", "question"))
    splits = [split] if split else [part.strip() for part in row.text("category").split(",")]
    key = (row.text("image", "image_path", "image_source") or row.text(*IDS), question)
    answer = yes_or_no(row.text("label", "answer"), "answer")
    before = found[key].item if key in found else None
    if before is not None and before.answer != answer:
        raise Fault(
            "answer differs", "the same question about the same picture was answered otherwise before."
        )
    joined = [*(before.meta["splits"] if before else ())]
    joined += [own for own in splits if own not in joined]
    identity = before.id if before else f"{split}-{row.text(*IDS)}" if split else row.text(*IDS)
    item = Item(
        check_text("id", identity),
        "yes_no",
        question,
        answer,
        pictures=row.pictures,
        category=",".join(joined),
        targets=targets_of(row.values.get("targets")),
        meta={"splits": joined},
    )
    found[key] = Record(found[key].number if key in found else row.number, item)


def yes_or_no(value: Any, name: str) -> str:
    """ "yes" or "no", of these words in any case and of true and false. Raises Fault."""
    word = str(value).strip().strip(".").lower()
    word = {"true": "yes", "false": "no"}.get(word, word)
    if word not in YES_NO:
        raise Fault("answer is no option", f'{name} is "{value}"; it must be yes or no.')
    return word


def _yes_no_row(row: Row, meta: Mapping[str, Any]) -> Item:
    return Item(
        row.text("index"),
        "yes_no",
        check_text("question", row.text("question")),
        yes_or_no(row.text("answer"), "answer"),
        pictures=row.pictures,
        category=row.text("category"),
        meta=meta,
    )


def table_records(table: Table, read: Any) -> Records:
    """Records of what `read` makes of each row of a table."""
    seen = dict[str, int]()
    for row in table.rows():
        try:
            if row.fault is not None:
                raise row.fault
            item = read(row)
            check_text("id", item.id)
            if item.id in seen:
                raise Fault(
                    "duplicate id",
                    f'id "{item.id}" was already given on {table.unit} {seen[item.id]}. Ids are unique.',
                )
            seen[item.id] = row.number
            yield Record(row.number, item, unit=table.unit)
        except Fault as fault:
            yield Record(row.number, None, (table.problem(row, fault),), table.unit)


def read_hallusionbench(path: Path, images: Path | None = None) -> Records:
    """HallusionBench: the official list (1,129 questions, 178 of them without a picture), or VLMEvalKit's
    table, whose index holds the ids."""
    if path.is_dir():
        path = next(iter(files_below(path, "HallusionBench.json")), path / "HallusionBench.json")
    if path.suffix.lower() == ".json":
        records = read_json(path)
        if not isinstance(records, list):
            raise DataError(f"{path}: HallusionBench is a list of objects.")
        folder = images or path.parent
        return records_of(path, "record", records, lambda number, record: _hallusion_record(record, folder))
    table = read_table(path, images)
    table.require(
        "hallusionbench",
        "index",
        "question",
        "answer",
        "category",
        "l2-category",
        *(() if table.pictures else (PICTURES,)),
    )
    return table_records(table, _hallusion_row)


def _hallusion_row(row: Row) -> Item:
    parts = row.text("index").split("_")
    if len(parts) != 6:
        raise Fault(
            "wrong id", f"index {row.text('index')!r} does not end in set, figure and question: _0_1_0."
        )
    if not row.pictures and row.text("category") != "VS":
        raise Fault("no picture", "there is no picture in it, and it is no question of the category VS.")
    meta = {
        "subcategory": row.text("l2-category"),
        "set": parts[3],
        "figure": parts[4],
        "pair": parts[5],
        "shown": bool(row.pictures),
    }
    return _yes_no_row(row, meta)


def _hallusion_record(record: Any, folder: Path) -> Item:
    _check_fields("hallusionbench", record, *HALLUSION)
    shown = str(record["visual_input"]).removesuffix(".0") != "0"
    answer = {"1": "yes", "0": "no"}.get(
        str(record["gt_answer"]).strip().removesuffix(".0"), record["gt_answer"]
    )
    ids = {
        "subcategory": record["subcategory"],
        "set": record["set_id"],
        "figure": record["figure_id"],
        "pair": record["question_id"],
    }
    name = str(record["filename"] or "").removeprefix("./")
    return Item(
        "_".join(str(part) for part in (record["category"], *ids.values())),
        "yes_no",
        check_text("question", str(record["question"])),
        yes_or_no(answer, "gt_answer"),
        pictures=(named_picture(folder, name),) if shown else (),
        category=str(record["category"]),
        targets=targets_of(record.get("targets")),
        meta={name: str(value) for name, value in ids.items()} | {"shown": shown},
    )


def read_vqav2(path: Path, images: Path | None = None) -> Records:
    """VQAv2: a folder with the official questions and annotations, or a table whose `answer` is a list of
    ten answers."""
    if path.is_file():
        table = read_table(path, images)
        columns = () if table.pictures else (PICTURES,)
        table.require("vqav2", IDS, "question", ("answer", "answers"), *columns)
        return table_records(table, _vqa_row)
    asked, answered = (only_file(path, pattern) for pattern in ("*uestions*.json", "*nnotations*.json"))
    annotations = {
        id_key(record.get("question_id")): record
        for record in field_of(answered, "annotations")
        if isinstance(record, Mapping)
    }
    folder = images or path

    def read(number: int, record: Any) -> Item:
        _check_fields("vqav2", record, "question_id", "image_id", "question")
        identity = str(record["question_id"])
        annotation = annotations.get(id_key(identity), {})
        if "answers" not in annotation:
            raise Fault("missing key", f"{answered.name} has no answers to question {identity}.")
        references = references_of(_told(annotation["answers"]))
        if not references:
            raise Fault("empty text", f"question {identity} has no answers.")
        kind = annotation.get("answer_type")
        return _vqa_item(
            identity,
            str(record["question"]),
            references,
            (_coco_picture(folder, record["image_id"]),),
            kind,
        )

    return records_of(asked, "question", field_of(asked, "questions"), read)


def _vqa_row(row: Row) -> Item:
    given = row.values.get("answers")
    texts = references_of(_told(answer_in(row.values) if is_empty(given) else given))
    if not texts:
        raise Fault("empty text", "the answer is empty. Splits without answers cannot be scored.")
    if not row.pictures:
        raise Fault("no picture", "there is no picture in it. A question without one is not asked.")
    return _vqa_item(
        row.text(*IDS), row.text("question"), texts, row.pictures, row.text("category", "answer_type") or None
    )


def _told(answer: Any) -> Any:
    """Answers without what stands beside each: the official {"answer": ..., "answer_id": ...} is its text."""
    if isinstance(answer, str) and answer.strip().startswith("["):
        answer = python_list(answer, "answer")
    if isinstance(answer, list):
        return [_told(part) for part in answer]
    if isinstance(answer, Mapping):
        if "answer" not in answer:
            raise Fault(
                "wrong type",
                f"an answer is an object with {', '.join(map(str, answer))[:80]}; it must have answer.",
            )
        return answer["answer"]
    return answer


def _vqa_item(
    identity: str, question: str, references: list[str], pictures: Any, category: str | None
) -> Item:
    usual = max(sorted(set(references)), key=references.count)
    return Item(
        identity,
        "open",
        check_text("question", question),
        usual,
        pictures=pictures,
        category=category,
        meta={"references": references},
    )


def _coco_picture(folder: Path, image_id: Any) -> PictureFile:
    """COCO's picture of that number, whichever of its years it is from and however its ending is written."""
    text = id_key(image_id)
    if not (text.isascii() and text.isdigit()):
        raise Fault(
            "wrong type",
            f"image_id must be the number of one of COCO's pictures; it is {str(image_id)[:80]!r}.",
        )
    number = int(text)
    names = [f"COCO_{split}_{number:012d}" for split in ("val2014", "train2014", "test2015")] + [
        f"{number:012d}"
    ]
    found = next((file for name in names if (file := picture_beside(folder / name)) is not None), None)
    return named_picture(folder, found.relative_to(folder).as_posix() if found else f"{names[0]}.jpg")


def read_amber(path: Path, images: Path | None = None) -> Records:
    """AMBER, discriminative: a folder with `annotations.json` and `query_discriminative.json` or
    `query_all.json` (also below `data/`, `query/`), or a table."""
    if path.is_file() and path.suffix.lower() != ".json":
        table = read_table(path, images)
        table.require(
            "amber", "index", "question", "answer", "category", *(() if table.pictures else (PICTURES,))
        )
        return table_records(table, _amber_row)
    folder = path.parent if path.is_file() else path
    truths = {str(record.get("id")): record for record in _list(only_file(folder, "**/annotations.json"))}
    queries = files_below(folder, "**/query_discriminative.json") or files_below(folder, "**/query_all.json")
    if not queries:
        raise DataError(
            f"{folder}: amber needs query_discriminative.json or query_all.json, which is missing."
        )
    known = {name: truth for name, truth in truths.items() if truth.get("type") != "generative"}
    asked = [
        record
        for record in _list(queries[0])
        if str(record.get("id")) in known or str(record.get("id")) not in truths
    ]
    return records_of(
        queries[0], "query", asked, lambda number, record: _amber_record(record, known, images or folder)
    )


def _amber_row(row: Row) -> Item:
    if not row.pictures:
        raise Fault("no picture", "there is no picture in it. A question without one is not asked.")
    return _yes_no_row(row, {})


def _amber_record(record: Mapping[str, Any], truths: Mapping[str, Any], folder: Path) -> Item:
    truth = truths.get(str(record.get("id")))
    if truth is None or "type" not in truth:
        raise Fault(
            "missing key",
            f"annotations.json has no record of the type and truth of query {record.get('id')}.",
        )
    answer = yes_or_no(truth.get("truth"), "its truth")
    question, image = check_text("query", str(record.get("query", ""))), str(record.get("image", ""))
    return Item(
        str(record["id"]),
        "yes_no",
        question,
        answer,
        pictures=(named_picture(folder, image),),
        category=str(truth["type"]),
    )


def only_file(folder: Path, pattern: str) -> Path:
    """The file of a folder that matches. Raises DataError where there is none, or more than one."""
    found, wanted = files_below(folder, pattern), pattern.removeprefix("**/")
    if not found:
        raise DataError(f"{folder}: the file {wanted} is missing.")
    if found[1:]:
        names = ", ".join(str(file.relative_to(folder)) for file in found[:5])
        raise DataError(
            f"{folder}: {len(found)} files are called {wanted} ({names}), and one is read. Put the files "
            f"that belong together in a folder of their own."
        )
    return found[0]


def _list(file: Path) -> list[dict[str, Any]]:
    value = read_json(file)
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise DataError(f"{file}: must be a list of objects.")
    return value


def _check_fields(suite: str, record: Any, *names: str) -> None:
    """Raises Fault where a record is no object, or lacks one of these fields."""
    if not isinstance(record, Mapping):
        raise Fault("broken JSON", "must be an object, {...}.")
    missing = [name for name in names if name not in record]
    if missing:
        raise Fault("missing key", f'{suite} needs the field "{missing[0]}", which is missing.')


def field_of(file: Path, name: str) -> list[Any]:
    """The records under a field of a JSON object. Raises DataError where it has no such list."""
    whole = read_json(file)
    records = whole.get(name) if isinstance(whole, dict) else None
    if not isinstance(records, list):
        raise DataError(f'{file}: the field "{name}" is missing.')
    return records
