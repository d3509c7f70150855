"""A probe's edits as a data set that `datasets.load_dataset` opens: one Parquet file with the pictures
inside, and a card that says what is in it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sparring.asking.conditions import PLAIN
from sparring.config import ProbeSettings
from sparring.data.images import load_image
from sparring.engine.files import named_by_content
from sparring.forge.publish import places
from sparring.probe.asking import Asker
from sparring.probe.attacks import Workshop
from sparring.probe.compare import Found

FILE = "data/test-00000-of-00001.parquet"
ROWS_AT_ONCE = 64  # pictures in memory while the file is written

CARD = """---
pretty_name: {name}
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

# {title}

{questions} multiple-choice questions about {pictures} pictures, and edits of these pictures that were to make a vision-language model answer
wrongly without touching what the question is about. Made by `sparring attack` or `sparring probe`; the questions and the clean pictures are those of
the file that it was given, under that file's terms.

One row an edit and Defender. `image` is the clean picture, `edited_image` what the Attacker made of it by `instruction` from noise of `seed`;
`targets` are the objects that the question is about, with boxes `[x0, y0, x1, y1]` in pixels. An edit is `accepted` when every target kept at least
a local SSIM of {threshold} (`integrity`, `intact`) and no queried object was added or lost (`duplicate`; {judge}).
`label_valid` is an auditor's word on whether `answer` is still right ({audit}). `clean_reply`, `clean_choice`, `clean_right` are the
Defender's greedy answer to the clean picture, `reply`, `choice`, `right` its answer to the edited one, null where it was not shown that.
`fooled`: right when clean, and wrong on an accepted edit.

| Defender | Attacker | right when clean | wrong on an edit that it was shown, {samples} of each question | edits accepted |
|---|---|---|---|---|
{rows}
"""


def write_dataset(
    out: Path, workshop: Workshop, askers: Sequence[Asker], found: Found, results: Mapping[str, Any]
) -> Path:
    """Write `out/dataset`, whole or not at all; gives its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial, final = out / "dataset.partial", out / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / FILE).parent.mkdir(parents=True)
    schema = _features().arrow_schema
    with pq.ParquetWriter(partial / FILE, schema) as writer:
        rows = _rows(workshop, askers, found)
        while some := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
    file = named_by_content(partial / FILE).relative_to(partial)
    (partial / "README.md").write_text(_card(workshop.settings, results, file.as_posix()), encoding="utf-8")
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


def _rows(workshop: Workshop, askers: Sequence[Asker], found: Found) -> Iterator[dict[str, Any]]:
    """One row an edit and Defender, a question's edits after one another, in the order of the questions;
    controls are left out.
    """
    attackers = [attacker for attacker in found.attackers if not attacker.control]
    made = {attacker: workshop.edits(attacker) for attacker in attackers}
    judged = {attacker: workshop.verdicts(attacker) for attacker in attackers}
    for place, question in enumerate(found.questions):
        stream = io.BytesIO()
        load_image(question.image).save(stream, "PNG")  # upright, as the boxes want it
        for attacker in attackers:
            for sample in range(workshop.settings.samples):
                edit, verdict = made[attacker][question.id, sample], judged[attacker][question.id, sample]
                common = {
                    "id": question.id,
                    "sample": sample,
                    "image": {"bytes": stream.getvalue(), "path": f"{question.image.stem}.png"},
                    "edited_image": {"bytes": edit["picture"].read_bytes(), "path": edit["picture"].name},
                    "question": question.question,
                    "options": list(question.options),
                    "answer": question.answer,
                    "category": question.category,
                    "targets": [{"name": box.name, "box": list(box.box)} for box in question.targets],
                    "attacker": edit["attacker"],
                    "instruction": edit["instruction"],
                    "seed": edit["seed"],
                    "integrity": verdict.integrity,
                    "intact": verdict.intact,
                    "duplicate": verdict.duplicate,
                    "accepted": verdict.accepted,
                    "label_valid": verdict.label_valid,
                }
                for asker in askers:
                    before = found.said[asker.name][PLAIN][place].answer
                    after = workshop.answers[attacker.stage, asker.name].get((question.id, sample))
                    wrong = verdict.accepted and after is not None and not after.right
                    yield common | {
                        "defender": _title(asker.spec),
                        "clean_reply": before.text,
                        "clean_choice": before.choice,
                        "clean_right": before.right,
                        "reply": after.text if after else None,
                        "choice": after.choice if after else None,
                        "right": after.right if after else None,
                        "fooled": before.right and wrong,
                    }


def _card(settings: ProbeSettings, results: Mapping[str, Any], file: str) -> str:
    def share(rate: Mapping[str, Any]) -> str:
        if rate["value"] is None:
            return "nothing to count"
        low, high = rate["ci95"]
        return f"{rate['value']:.1%} of {rate['n']} (95 % interval {low:.1%} to {high:.1%})"

    rows = [
        f"| {_title(own['model'])} | {_title(settings.attackers.get(name, name))} | "
        f"{share(own['clean_accuracy'])} | {share(attack['asr_at_k'][-1]['asr'])} | "
        f"{share(attack['edits']['accepted'])} |"
        for own in results["defenders"].values()
        for name, attack in own["robustness"]["attackers"].items()
        if not attack["control"]
    ]
    attackers = ", ".join(_title(spec) for spec in settings.attackers.values()) or "Attackers"
    title = f"{attackers} against {', '.join(_title(spec) for spec in settings.defenders.values())}"
    return CARD.format(
        name=json.dumps(title, ensure_ascii=False),  # a name may look like YAML
        title=title,
        file=file,
        questions=results["questions"],
        pictures=results["pictures"],
        threshold=settings.judge.integrity_threshold,
        judge=f"counted by {_title(settings.judge.model)}" if settings.judge.model else "not checked here",
        audit=f"here {settings.audit.call}" if settings.audit else "nobody audited these",
        samples=settings.samples,
        rows="\n".join(rows),
    )


def _title(model: str) -> str:
    """A model's name without the folders that it lies in: those of a person's disk are nobody else's
    affair.
    """
    if "://" in model:
        return model.partition("#")[2]
    return "".join("/".join(Path(part).parts[-2:]) for part in places(model))
