"""An attack as a data set that `datasets.load_dataset` opens: one Parquet file with the pictures inside, and
a card that says what is in it.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sparring.config import AttackSettings
from sparring.data.images import load_image
from sparring.data.records import VisualQuestion
from sparring.engine.files import named_by_content
from sparring.engine.ledger import Ledger
from sparring.redteam.results import STAGE, attacked_answers, clean_answers, verdicts

FILE = "data/test-00000-of-00001.parquet"
ROWS_AT_ONCE = 64  # pictures in memory while the file is written

CARD = """---
pretty_name: {attacker} against {defender}
task_categories:
- visual-question-answering
tags:
- adversarial
- red-teaming
configs:
- config_name: default
  data_files:
  - split: test
    path: {file}
---

# {attacker} against {defender}

{questions} multiple-choice questions about {pictures} pictures, {edits} edits of the pictures by an image editor that was to make a vision-language
model answer wrongly without touching what the question is about. Made by `sparring attack`; the questions and the clean pictures are those of the
file that it was given, under that file's terms.

One row an edit. `image` is the clean picture, `edited_image` what the Attacker made of it by `instruction` from noise of `seed`; `targets` are the
objects that the question is about, with boxes `[x0, y0, x1, y1]` in pixels. An edit is `accepted` when every target kept at least a local SSIM of
{threshold} (`integrity`, `intact`) and no queried object was added or lost (`duplicate`; {judge}).
`label_valid` is an auditor's word on whether `answer` is still right ({audit}). `clean_reply`, `clean_choice`, `clean_right` are the
Defender's greedy answer to the clean picture, `reply`, `choice`, `right` its answer to the edited one, null where the edit was not accepted and so
not shown. `fooled`: right when clean, and wrong on an accepted edit.

| | |
|---|---|
| right when clean | {clean} |
| attack success, {samples} edit(s) of each question | {asr} |
| edits accepted | {accepted} |
"""


def write_dataset(
    out: Path,
    settings: AttackSettings,
    questions: Sequence[VisualQuestion],
    ledger: Ledger,
    summary: dict[str, Any],
) -> Path:
    """Write `out/dataset`, whole or not at all, from the ledger and the pictures beside it; gives
    its path.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial, final = out / "dataset.partial", out / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / FILE).parent.mkdir(parents=True)
    schema = _features().arrow_schema
    with pq.ParquetWriter(partial / FILE, schema) as writer:
        rows = _rows(settings, questions, ledger)
        while some := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
    file = named_by_content(partial / FILE).relative_to(partial)
    (partial / "README.md").write_text(_card(settings, summary, file.as_posix()), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    return final


def _features() -> Any:
    import datasets

    text, truth = datasets.Value("string"), datasets.Value("bool")
    return datasets.Features(
        {
            "id": text,
            "sample": datasets.Value("int32"),
            "image": datasets.Image(),
            "edited_image": datasets.Image(),
            "question": text,
            "options": datasets.List(text),
            "answer": text,
            "category": text,
            "targets": datasets.List({"name": text, "box": datasets.List(datasets.Value("int32"))}),
            "attacker": text,
            "instruction": text,
            "seed": datasets.Value("int64"),
            "defender": text,
            "clean_reply": text,
            "clean_choice": text,
            "clean_right": truth,
            "reply": text,
            "choice": text,
            "right": truth,
            "integrity": datasets.Value("float64"),
            "intact": truth,
            "duplicate": truth,
            "accepted": truth,
            "label_valid": truth,
            "fooled": truth,
        }
    )


def _rows(
    settings: AttackSettings, questions: Sequence[VisualQuestion], ledger: Ledger
) -> Iterator[dict[str, Any]]:
    """One row an edit, a question's edits after one another, in the order of the questions."""
    clean, found, answers = clean_answers(ledger), verdicts(ledger), attacked_answers(ledger)
    made = {(row["question_id"], row["sample"]): row for row in ledger.edits(STAGE)}
    for question in questions:
        stream = io.BytesIO()
        load_image(question.image).save(stream, "PNG")  # upright, as the boxes want it
        for sample in range(settings.samples):
            key, before = (question.id, sample), clean[question.id]
            verdict, edit, after = found[key], made[key], answers.get(key)
            yield {
                "id": question.id,
                "sample": sample,
                "image": {"bytes": stream.getvalue(), "path": f"{question.image.stem}.png"},
                "edited_image": {"bytes": edit["picture"].read_bytes(), "path": edit["picture"].name},
                "question": question.question,
                "options": list(question.options),
                "answer": question.answer,
                "category": question.category,
                "targets": [{"name": target.name, "box": list(target.box)} for target in question.targets],
                "attacker": edit["attacker"],
                "instruction": edit["instruction"],
                "seed": edit["seed"],
                "defender": _title(settings.defender.model),
                "clean_reply": before.text,
                "clean_choice": before.choice,
                "clean_right": before.right,
                "reply": after.text if after else None,
                "choice": after.choice if after else None,
                "right": after.right if after else None,
                "integrity": verdict.integrity,
                "intact": verdict.intact,
                "duplicate": verdict.duplicate,
                "accepted": verdict.accepted,
                "label_valid": verdict.label_valid,
                "fooled": before.right and after is not None and not after.right,
            }


def _card(settings: AttackSettings, summary: dict[str, Any], file: str) -> str:
    def share(rate: dict[str, Any]) -> str:
        if rate["value"] is None:
            return "nothing to count"
        low, high = rate["ci95"]
        return f"{rate['value']:.1%} of {rate['n']} (95 % interval {low:.1%} to {high:.1%})"

    return CARD.format(
        attacker=_title(settings.attacker.model),
        defender=_title(settings.defender.model),
        file=file,
        questions=summary["questions"],
        pictures=summary["pictures"],
        edits=summary["edits"],
        threshold=settings.judge.integrity_threshold,
        judge=f"counted by {_title(settings.judge.model)}" if settings.judge.model else "not checked here",
        audit=f"here {settings.audit.call}" if settings.audit else "nobody audited these",
        clean=share(summary["clean_accuracy"]),
        samples=summary["samples"],
        asr=share(summary["asr_at_k"][-1]["asr"]),
        accepted=share(summary["accepted_rate"]),
    )


def _title(model: str) -> str:
    """A model's name without the folders that it lies in: those of a person's disk are nobody else's
    affair.
    """
    if "://" in model:
        return model.partition("#")[2]
    return "+".join("/".join(Path(part).parts[-2:]) for part in model.split("+"))
