"""The kept pairs for other tools: VLMEvalKit's TSV (is a model fooled?), and supervised fine-tuning of a VLM on adversarial pictures with LLaMA-Factory or TRL."""

from __future__ import annotations

import base64
import csv
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sparring.config import ForgeSettings
from sparring.data.records import LETTERS, VisualQuestion
from sparring.defenders.prompts import render_prompt
from sparring.forge.ledger import Ledger, Row

ROWS_AT_ONCE = 64


def write_exports(folder: Path, settings: ForgeSettings, ledger: Ledger, split_of: Callable[[Row], str]) -> None:
    """Write all of them; the fine-tuning ones hold the training split, the TSV all splits, named in a column."""
    folder.mkdir(parents=True)
    write_tsv(folder / "vlmevalkit.tsv", ledger, split_of)
    write_llamafactory(folder / "llamafactory", settings, ledger, _training(ledger, split_of))
    write_trl(folder / "trl" / "train.parquet", settings, ledger, _training(ledger, split_of))


def _training(ledger: Ledger, split_of: Callable[[Row], str]) -> Iterator[Row]:
    return (row for row in ledger.rows("kept") if split_of(row) == "train")


def write_tsv(path: Path, ledger: Ledger, split_of: Callable[[Row], str]) -> None:
    """VLMEvalKit's multiple-choice TSV, the adversarial pictures in base64. `targets`, `id` and `split` are columns that it does not read."""
    rows = ledger.rows("kept")
    most = max((len(row.content["question"]["options"]) for row in ledger.rows("kept")), default=2)
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "image", "question", *LETTERS[:most], "answer", "category", "split", "id", "targets"])
        for index, row in enumerate(rows, start=1):
            question = row.content["question"]
            options = question["options"] + [""] * (most - len(question["options"]))
            encoded = base64.b64encode(ledger.path(row.picture or "").read_bytes()).decode()
            told = [question["answer"], question["category"] or "", split_of(row), row.id, json.dumps(question["targets"])]
            table.writerow([index, encoded, question["question"], *options, *told])


def write_llamafactory(folder: Path, settings: ForgeSettings, ledger: Ledger, rows: Iterator[Row]) -> None:
    """`dataset_info.json` and a file in the format that it calls sharegpt, with OpenAI's roles, and the pictures beside it."""
    (folder / "images").mkdir(parents=True)
    with open(folder / "sparring_forge.json", "w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(rows):
            name = f"images/{row.picture}.png"
            shutil.copyfile(ledger.path(row.picture or ""), folder / name)
            asked, reply = _turns(row, settings)
            messages = [{"role": "user", "content": f"<image>{asked}"}, {"role": "assistant", "content": reply}]
            file.write(("," if number else "") + "\n" + json.dumps({"messages": messages, "images": [name]}, ensure_ascii=False))
        file.write("\n]\n")
    info = {
        "sparring_forge": {
            "file_name": "sparring_forge.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
        }
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def write_trl(path: Path, settings: ForgeSettings, ledger: Ledger, rows: Iterator[Row]) -> None:
    """A conversational prompt-completion data set with `images`, as TRL's SFTTrainer takes it."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")})
    schema = datasets.Features({"images": datasets.List(datasets.Image()), "prompt": turn, "completion": turn}).arrow_schema
    path.parent.mkdir(parents=True)

    def records() -> Iterator[dict[str, Any]]:
        for row in rows:
            asked, reply = _turns(row, settings)
            data = {"bytes": ledger.path(row.picture or "").read_bytes(), "path": None}
            yield {
                "images": [data],
                "prompt": [{"role": "user", "content": asked}],
                "completion": [{"role": "assistant", "content": reply}],
            }

    with pq.ParquetWriter(path, schema) as writer:
        made = records()
        while some := list(islice(made, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def _turns(row: Row, settings: ForgeSettings) -> tuple[str, str]:
    """What a Defender is asked, in the recipe's words, and the right reply."""
    question = row.content["question"]
    asked = VisualQuestion(row.id, Path(), question["question"], tuple(question["options"]), question["answer"])
    return render_prompt(asked, settings.defender.prompt), f"\\boxed{{{asked.answer}}}"
