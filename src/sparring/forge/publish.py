"""A finished forge as a data set that `datasets.load_dataset` opens: Parquet files with the pictures inside,
a card, and exports for other tools.

Of source pictures, by their pixels, each is in one split only. Candidates that are useless, and those that
were rejected, are configurations of their own.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import yaml
from PIL import Image

from sparring.asking.prompts import render_prompt
from sparring.config import ForgeSettings
from sparring.data.images import load_image
from sparring.data.records import LETTERS, VisualQuestion
from sparring.engine.files import named_by_content
from sparring.forge.ledger import Ledger, Row
from sparring.forge.records import Outcome
from sparring.seeds import derive_seed

SHOWN, SIDE = 6, 160


def write_card(
    folder: Path,
    settings: ForgeSettings,
    ledger: Ledger,
    funnel: dict[str, Any],
    splits: Mapping[str, str],
    apart: Mapping[str, str],
) -> None:
    """Write README.md, and samples.png where a pair was kept. splits, apart: name -> file of those that have
    rows. Of paths on this disk only the last two names are told."""
    kept = [(row.clean, row.picture or "") for row in islice(ledger.rows("kept"), SHOWN)]
    samples = write_samples(
        folder / "samples.png", [(ledger.path(clean), ledger.path(picture)) for clean, picture in kept]
    )
    template = files("sparring.forge").joinpath("templates/card.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    told = without_paths(settings.model_dump(mode="json"))
    funnel = funnel | {"models": without_paths(funnel["models"])}
    text = environment.from_string(template).render(
        title=f"Forged pairs from {Path(settings.data).stem}",
        source=short(settings.data),
        licence=settings.licence,
        splits=splits,
        apart=apart,
        funnel=funnel,
        samples=samples,
        settings=yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=140),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def short(name: str) -> str:
    """A model's or file's name without the folders or the server that it lies in: those are nobody else's
    affair. A text that only holds an address, such as a prompt, stays as it is.
    """
    if "\n" in name or (" " in name.partition("://")[0] and "://" in name):
        return name
    if "://" in name:
        return name.partition("#")[2] or "an endpoint"
    return "".join(_end(part) if part.startswith("/") else part for part in places(name))


def _end(path: str) -> str:
    """Its last two parts."""
    parts = Path(path).parts
    return "/".join(parts[-2:]) if len(parts) > 2 else path


def places(name: str) -> list[str]:
    """A name cut before every absolute path in it: what names an attacker may name an editor, the LoRA on it
    and a folder (`EDITOR+/loras/a`, `roundtrip@/editor`, `paste:folder=/cut-outs`, `paste:/cut-outs`).
    """
    return re.split(r"(?<=[+@=:])(?=/(?!/))", name)


def without_paths(value: Any) -> Any:
    """Nested settings or figures with `short` names in place of paths."""
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    return short(value) if isinstance(value, str) else value


def write_samples(path: Path, pairs: Sequence[tuple[Path, Path]]) -> str | None:
    """Draw the first pairs of picture files, clean above adversarial; gives the file's name, None where there
    are none.
    """
    if not pairs:
        return None
    pairs = pairs[:SHOWN]
    sheet = Image.new("RGB", (len(pairs) * (SIDE + 4) - 4, 2 * SIDE + 4), "white")
    for column, pair in enumerate(pairs):
        for line, file in enumerate(pair):
            picture = load_image(file)
            scale = min(SIDE / picture.width, SIDE / picture.height)
            small = picture.resize(
                (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
                Image.Resampling.LANCZOS,
            )
            sheet.paste(
                small,
                (
                    column * (SIDE + 4) + (SIDE - small.width) // 2,
                    line * (SIDE + 4) + (SIDE - small.height) // 2,
                ),
            )
    sheet.save(path)
    return path.name


ROWS_AT_ONCE = 64


def write_exports(
    folder: Path, settings: ForgeSettings, ledger: Ledger, split_of: Callable[[Row], str]
) -> None:
    """Write all of them; the fine-tuning ones hold the training split, the TSV all splits, named in a
    column.
    """
    folder.mkdir(parents=True)
    write_tsv(folder / "vlmevalkit.tsv", ledger, split_of)
    write_llamafactory(folder / "llamafactory", settings, ledger, _training(ledger, split_of))
    write_trl(folder / "trl" / "train.parquet", settings, ledger, _training(ledger, split_of))


def _training(ledger: Ledger, split_of: Callable[[Row], str]) -> Iterator[Row]:
    return (row for row in ledger.rows("kept") if split_of(row) == "train")


def write_tsv(path: Path, ledger: Ledger, split_of: Callable[[Row], str]) -> None:
    """VLMEvalKit's multiple-choice TSV, the adversarial pictures in base64. `targets`, `id` and `split` are
    columns that it does not read.
    """
    rows = ledger.rows("kept")
    most = max((len(row.content["question"]["options"]) for row in ledger.rows("kept")), default=2)
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(
            ["index", "image", "question", *LETTERS[:most], "answer", "category", "split", "id", "targets"]
        )
        for index, row in enumerate(rows, start=1):
            question = row.content["question"]
            options = question["options"] + [""] * (most - len(question["options"]))
            encoded = base64.b64encode(ledger.path(row.picture or "").read_bytes()).decode()
            told = [
                question["answer"],
                question["category"] or "",
                split_of(row),
                row.id,
                json.dumps(question["targets"]),
            ]
            table.writerow([index, encoded, question["question"], *options, *told])


def write_llamafactory(folder: Path, settings: ForgeSettings, ledger: Ledger, rows: Iterator[Row]) -> None:
    """`dataset_info.json` and a file in the format that it calls sharegpt, with OpenAI's roles, and the
    pictures beside it.
    """
    (folder / "images").mkdir(parents=True)
    with open(folder / "sparring_forge.json", "w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(rows):
            name = f"images/{row.picture}.png"
            shutil.copyfile(ledger.path(row.picture or ""), folder / name)
            asked, reply = _turns(row, settings)
            messages = [
                {"role": "user", "content": f"<image>{asked}"},
                {"role": "assistant", "content": reply},
            ]
            file.write(
                ("," if number else "")
                + "\n"
                + json.dumps({"messages": messages, "images": [name]}, ensure_ascii=False)
            )
        file.write("\n]\n")
    info = {
        "sparring_forge": {
            "file_name": "sparring_forge.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
            },
        }
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def write_trl(path: Path, settings: ForgeSettings, ledger: Ledger, rows: Iterator[Row]) -> None:
    """A conversational prompt-completion data set with `images`, as TRL's SFTTrainer takes it."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")})
    schema = datasets.Features(
        {"images": datasets.List(datasets.Image()), "prompt": turn, "completion": turn}
    ).arrow_schema
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
    asked = VisualQuestion(
        row.id, Path(), question["question"], tuple(question["options"]), question["answer"]
    )
    return render_prompt(asked, settings.defender.prompt), f"\\boxed{{{asked.answer}}}"


SPLITS = ("train", "validation", "test")
APART: tuple[Outcome, ...] = ("useless", "rejected")


def split_of(source: str, settings: ForgeSettings) -> str:
    """The split of everything that was made of a source picture: a function of the seed and of the picture's
    pixels.
    """
    place = derive_seed(settings.seed, "split", source) / 2**62
    validation, test = settings.stages.splits
    return "test" if place < test else "validation" if place < test + validation else "train"


def content_hash(ledger: Ledger, settings: ForgeSettings) -> str:
    """SHA-256 over the kept records, in the order of the source: all that is known of each, and the pixels of
    both pictures.
    """
    digest = hashlib.sha256()
    for row in ledger.rows("kept"):
        text = [row.id, split_of(row.source, settings), row.attempt, row.clean, row.picture, row.content]
        digest.update(json.dumps(text, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def publish(out: Path, settings: ForgeSettings, ledger: Ledger, funnel: dict[str, Any]) -> Path:
    """Write `out/dataset`, whole or not at all; gives its path."""
    partial, final = out / "dataset.partial", out / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "apart").mkdir(parents=True)
    splits, apart = dict[str, str](), dict[str, str]()
    for split in SPLITS:
        own = (row for row in ledger.rows("kept") if split_of(row.source, settings) == split)
        if (
            file := write_rows(partial / "data" / f"{split}-00000-of-00001.parquet", own, ledger)
        ) is not None:
            splits[split] = file.relative_to(partial).as_posix()
    for outcome in APART:
        if (
            file := write_rows(
                partial / "apart" / f"{outcome}-00000-of-00001.parquet", ledger.rows(outcome), ledger
            )
        ) is not None:
            apart[outcome] = file.relative_to(partial).as_posix()
    for outcome in ("refused", "broken"):
        with open(partial / "apart" / f"{outcome}.jsonl", "w", encoding="utf-8") as lines:
            lines.writelines(
                json.dumps(record, ensure_ascii=False) + "\n" for record in ledger.set_aside(outcome)
            )
    write_exports(partial / "exports", settings, ledger, lambda row: split_of(row.source, settings))
    write_card(partial, settings, ledger, funnel, splits, apart)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    return final


def write_rows(path: Path, rows: Iterable[Row], ledger: Ledger) -> Path | None:
    """Write one Parquet file and give its path, with a hash of the content in its name; None where there are
    no rows: `datasets` opens no empty split."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = _records(rows, ledger)
    some = list(islice(made, ROWS_AT_ONCE))
    if not some:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = features().arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        while some:
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            some = list(islice(made, ROWS_AT_ONCE))
    return named_by_content(path)


def features() -> Any:
    """The columns of every configuration."""
    import datasets

    text, number = datasets.Value("string"), datasets.Value("float64")
    box = datasets.List(datasets.Value("int32"))
    return datasets.Features(
        {
            "id": text,
            "attempt": datasets.Value("int32"),
            "image": datasets.Image(),
            "adversarial_image": datasets.Image(),
            "instruction": text,
            "question": text,
            "options": datasets.List(text),
            "answer": text,
            "category": text,
            "targets": datasets.List({"name": text, "box": box}),
            "distractors": datasets.List({"object": text, "box": box}),
            "outcome": text,
            "stage": text,
            "reason": text,
            "message": text,
            "integrity": number,
            "efficacy": number,
            "log_probability_drop": number,
            "clean_reply": text,
            "reply": text,
            "notes": text,
            "source_sha256": text,
        }
    )


def _records(rows: Iterable[Row], ledger: Ledger) -> Iterator[dict[str, Any]]:
    for row in rows:
        content, figures, words = row.content, dict(row.content["figures"]), dict(row.content["words"])
        question = content["question"]
        yield {
            "id": row.id,
            "attempt": row.attempt,
            "image": picture(ledger, row.clean),
            "adversarial_image": picture(ledger, row.picture) if row.picture else None,
            "instruction": content["instruction"],
            **{name: question[name] for name in ("question", "options", "answer", "category", "targets")},
            "distractors": content["proposals"],
            **{name: getattr(row, name) for name in ("outcome", "stage", "reason", "message")},
            **{name: figures.pop(name, None) for name in ("integrity", "efficacy", "log_probability_drop")},
            **{name: words.pop(name, None) for name in ("clean_reply", "reply")},
            "notes": json.dumps(figures | words, sort_keys=True, ensure_ascii=False),
            "source_sha256": row.source,
        }


def picture(ledger: Ledger, name: str) -> dict[str, Any]:
    """A picture as `datasets.Image` stores it."""
    return {"bytes": ledger.path(name).read_bytes(), "path": f"{name[:16]}.png"}
