"""`report.html` of an attack without training: its figures and a gallery of its edits."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sparring.data.errors import RunError
from sparring.report.axes import Whisker
from sparring.report.charts import progress_chart
from sparring.report.gallery import choose, gallery_filters, hang
from sparring.report.numbers import percent
from sparring.report.render import write_page
from sparring.report.run import open_ledger, read_exhibits


def write_attack_report(out: Path) -> Path:
    """Write `out/report.html` of a finished attack. Errors: RunError if the folder holds none or its files
    cannot be read.
    """
    out = Path(out).resolve()
    summary_path, ledger, settings = out / "summary.json", out / "ledger.sqlite", out / "attack.yaml"
    missing = [path.name for path in (summary_path, ledger, settings) if not path.is_file()]
    if missing:
        raise RunError(
            f"{out} holds no finished attack: {missing[0]} is not there. Begin or go on with `sparring "
            f"attack ... --out {out}`."
        )
    try:
        summary, settings_text = (
            json.loads(summary_path.read_text(encoding="utf-8")),
            settings.read_text(encoding="utf-8"),
        )
        if not isinstance(summary, dict) or summary.get("kind") != "attack":
            raise ValueError("summary.json is not that of an attack")
        with closing(open_ledger(ledger)) as db:
            exhibits = list(read_exhibits(db, out, "base"))
    except (ValueError, sqlite3.Error) as error:
        raise RunError(f"{out} cannot be read as an attack: {error}") from error
    hung, notes = hang(choose(exhibits))
    contents = {
        "summary": summary,
        "headline": _headline(summary),
        "settings_text": settings_text,
        "tries": _tries(summary["asr_at_k"])
        if summary["samples"] > 1 and summary["first_try"]["asr"]["n"]
        else None,
        "hung": hung,
        "gallery_notes": notes,
        "gallery_words": {"questions": "Questions", "defender": "Defender"},
        "counts_judged": summary["judge"] is not None,
        "last_defender": "base",
        "filters": gallery_filters(hung),
    }
    return write_page(out, "attack.html.j2", contents)


def _headline(summary: Mapping[str, Any]) -> str:
    """The outcome in a sentence."""
    last = summary["asr_at_k"][-1]["valid_asr" if summary["audited"] else "asr"]
    if last["value"] is None:
        return "Nothing to attack: the Defender gets no question right on the clean picture"
    edits = "one edit" if summary["samples"] == 1 else f"up to {summary['samples']} edits"
    return (
        f"With {edits} a question, the Attacker fools the Defender on {percent(last['value'])} of what "
        f"it gets right"
    )


def _tries(tries: list[dict[str, Any]]) -> Markup:
    """ASR@k against k."""

    def line(name: str) -> list[Whisker]:
        return [Whisker(place, each[name]["value"], *each[name]["ci95"]) for place, each in enumerate(tries)]

    return progress_chart(
        [str(each["k"]) for each in tries],
        {"ASR@k": line("asr"), "valid": line("valid_asr")},
        {"ASR@k": "soft", "valid": "accent"},
        label="Attack success against the number of edits that may be tried",
        x_label="edits tried, k",
        y_label="fooled, of the questions right when clean, %",
    )
