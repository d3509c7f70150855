"""`report.html` of a probe, and so of `sparring attack`: its figures and a gallery of its edits."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from sparring.data.errors import RunError
from sparring.probe.settings import slug
from sparring.probe.table import baselines_in_words, tables
from sparring.report.axes import Whisker
from sparring.report.charts import progress_chart
from sparring.report.gallery import choose, gallery_filters, hang
from sparring.report.numbers import percent
from sparring.report.render import write_page
from sparring.report.run import Exhibit, open_ledger, read_exhibits

Figures = Mapping[str, Any]


def write_probe_report(out: Path) -> Path:
    """Write `out/report.html` of a finished probe. Errors: RunError if the folder holds none or its files
    cannot be read.
    """
    out = Path(out).resolve()
    results_path, ledger, settings = out / "results.json", out / "ledger.sqlite", out / "probe.yaml"
    missing = [path.name for path in (results_path, ledger, settings) if not path.is_file()]
    if missing:
        raise RunError(
            f"{out} holds no finished probe: {missing[0]} is not there. Begin or go on with `sparring "
            f"probe ... --out {out}`, or `attack`."
        )
    try:
        results = json.loads(results_path.read_text(encoding="utf-8"))
        settings_text = settings.read_text(encoding="utf-8")
        judge = (yaml.safe_load(settings_text).get("judge") or {}).get("model")
        if not isinstance(results, dict) or results.get("kind") != "probe":
            raise ValueError("results.json is not that of a probe")
        if any("by_category" not in own for own in results["defenders"].values()):
            raise ValueError("an earlier version wrote results.json; begin another probe with --out")
        with closing(open_ledger(ledger)) as db:
            exhibits = _exhibits(db, out, results)
    except (ValueError, KeyError, AttributeError, sqlite3.Error, yaml.YAMLError) as error:
        raise RunError(f"{out} cannot be read as a probe: {error}") from error
    hung, notes = hang(choose(exhibits))
    names = list(results["defenders"])
    return write_page(
        out,
        "probe.html.j2",
        {
            "results": results,
            "headline": _headline(results),
            "settings_text": settings_text,
            "defenders": {name: _cards(own) for name, own in results["defenders"].items()},
            "tables": tables(results),
            "baselines": baselines_in_words(results),
            "hung": hung,
            "gallery_notes": notes,
            "gallery_words": {"questions": "Questions", "defender": f"Defender {names[0]}"},
            "counts_judged": judge is not None,
            "last_defender": names[-1] if len(names) > 1 else None,
            "filters": gallery_filters(hung),
        },
    )


def _exhibits(db: sqlite3.Connection, out: Path, results: Figures) -> list[Exhibit]:
    """The edits of attacks, controls left out, with the answers of the first Defender and of the last."""
    names = list(results["defenders"])
    attackers = results["defenders"][names[0]]["robustness"]["attackers"]
    controls = [f"attack/{slug(name)}" for name, own in attackers.items() if own["control"]]
    return list(
        read_exhibits(db, out, names[-1], base=names[0], clean="clean", stages="attack/%", but=controls)
    )


def _headline(results: Figures) -> str:
    """The outcome in a sentence."""
    attacks = [
        (name, attacker, own)
        for name, figures in results["defenders"].items()
        for attacker, own in figures["robustness"]["attackers"].items()
        if not own["control"]
    ]
    if not attacks:
        return f"{_number(results['defenders'], 'Defender')} on {_number(results['questions'], 'question')}"
    counted = [own for own in attacks if _success(own[2])["value"] is not None]
    if not counted:
        return "Nothing to attack: no question is answered right on the clean picture"
    name, attacker, own = max(counted, key=lambda one: _success(one[2])["value"])
    edits = "one edit" if own["samples"] == 1 else f"up to {own['samples']} edits"
    who = ("the Attacker", "the Defender") if len(attacks) == 1 else (attacker, name)
    return (
        f"With {edits} a question, {who[0]} fools {who[1]} on {percent(_success(own)['value'])} of what it "
        f"gets right"
    )


def _success(own: Figures) -> Figures:
    """The success of all samples together: the valid one, which without an audit is the checks' word."""
    success: Figures = own["asr_at_k"][-1]["valid_asr"]
    return success


def _cards(own: Figures) -> list[dict[str, Any]]:
    """What is shown of the attacks on a Defender, with ASR@k where there are several samples."""
    return [
        {
            "name": name,
            "own": attack,
            "audited": attack.get("label_valid_rate", {"n": 0})["n"] > 0,
            "tries": _tries(attack["asr_at_k"]) if attack["samples"] > 1 and attack["asr"]["n"] else None,
        }
        for name, attack in own["robustness"]["attackers"].items()
        if not attack["control"]
    ]


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


def _number(what: Any, word: str) -> str:
    count = what if isinstance(what, int) else len(what)
    return f"{count} {word}{'' if count == 1 else 's'}"
