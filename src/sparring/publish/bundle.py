"""From a folder of results to what is to be published of it.

A bundle is one repository at the hub: a model (an Attacker or a Defender of a game, a Defender that was
fine-tuned) or a data set (forged pairs, a probe's edits, figures of benchmarks). Writing one twice gives
the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import DatasetCardData, metadata_load, metadata_save

from sparring.benchmarks.results import markdown, table_rows
from sparring.data.errors import RunError
from sparring.engine.files import write_json, write_whole
from sparring.engine.folder import a_kind, kind_of, read_settings
from sparring.probe.table import table, tables
from sparring.publish.card import portable, save_card, without_places
from sparring.publish.players import TUNED, Role, player_in, tuned_in, write_player, write_tuned
from sparring.report.run import read_run

Rows = list[dict[str, Any]]
MAY_NOT = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py")
"""Files that may run code when they are loaded."""


@dataclass(frozen=True)
class Bundle:
    """name: what it is, where a folder holds several. title: of its commit. write: puts it into an empty
    folder.
    """

    name: str
    kind: Literal["model", "dataset"]
    title: str
    write: Callable[[Path], None]


def bundles_of(folder: Path, licence: str | None) -> list[Bundle]:
    """What can be published of a folder. Raises RunError where that is nothing, or not there yet.

    Of a game these are the last Attacker and the last Defender; the folder of one player inside a game is
    that player.
    """
    folder = folder.resolve()
    if (found := player_in(folder)) is not None:
        return [_player(*found, licence)]
    if (tuning := tuned_in(folder)) is not None:
        return [_tuned(tuning, licence)]
    kind = kind_of(folder)
    if kind == "game":
        run = read_run(folder, played=False, exhibits=False)
        return [_player(folder, role, run.rounds, licence) for role in ("attacker", "defender")]
    if kind in ("forge", "probe", "attack") and (folder / "dataset/README.md").is_file():
        return [
            Bundle("pairs", "dataset", f"Data set of a {kind}", lambda out: _copy_set(folder, out, licence))
        ]
    if kind == "forge":
        raise RunError(f"{folder}: this forge has no dataset/ yet. Let `sparring forge` end first.")
    if kind in ("evaluation", "probe"):
        return [Bundle("results", "dataset", f"Figures of {a_kind(folder)}", _results(folder, kind, licence))]
    if kind is None and any(folder.glob("*.json")) and not (folder / "done.json").exists():
        return [Bundle("results", "dataset", "Figures of benchmarks", _measured(folder, licence))]
    raise RunError(
        f"{folder} holds {a_kind(folder)}, of which nothing is published. Name the folder of a game or of "
        "one of its players (round3/attacker/editor, round3/defender/model), of a fine-tuning, of a forge, "
        "of a probe, of an evaluation, or one of JSON files, such as benchmarks/results."
    )


def copied(source: Path, out: Path, names: Iterable[Path]) -> None:
    """Copy files to the same places below another folder. Raises RunError for one that could run code, and
    for a link to what lies elsewhere.
    """
    for file in names:
        if not (real := file.resolve()).is_relative_to(source.resolve()):
            raise RunError(f"{file} is a link to {real}, which is no part of it. Put the file itself there.")
        if {file.suffix.lower(), real.suffix.lower()} & set(MAY_NOT):
            raise RunError(f"{file} may run code when it is loaded; only safetensors are published.")
        target = out / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _player(run: Path, role: Role, number: int, licence: str | None) -> Bundle:
    source = run / f"round{number}" / role / ("editor" if role == "attacker" else "model")
    if not any(source.glob("**/*.safetensors")):
        raise RunError(f"{source} holds no weights: round {number} of this game has not come so far.")

    def write(out: Path) -> None:
        _copy_whole(source, out)
        write_player(out, run, role, number, licence)

    return Bundle(role, "model", f"{role.capitalize()} of round {number}", write)


def _tuned(folder: Path, licence: str | None) -> Bundle:
    if not (folder / "summary.json").is_file():
        raise RunError(f"{folder} has no summary.json: the fine-tuning has not ended. Let it end first.")
    if not any((folder / TUNED).glob("**/*.safetensors")):
        raise RunError(f"{folder / TUNED} holds no weights. Bring them there, or fine-tune again.")

    def write(out: Path) -> None:
        _copy_whole(folder / TUNED, out)
        write_tuned(out, folder, licence)

    return Bundle("defender", "model", "Fine-tuned Defender", write)


def _copy_whole(source: Path, out: Path) -> None:
    copied(source, out, (file for file in sorted(source.rglob("*")) if file.is_file()))


def _copy_set(folder: Path, out: Path, licence: str | None) -> None:
    """The data set with its card, which says that licence where one is named, without the lists of what was
    set aside, which name places on this disk; beside it a probe's figures.
    """
    source = folder / "dataset"
    found = (file for file in sorted(source.rglob("*")) if file.is_file())
    copied(source, out, (file for file in found if file.parent.name != "apart" or file.suffix != ".jsonl"))
    if licence is not None:
        card = out / "README.md"
        metadata_save(card, (metadata_load(card) or {}) | {"license": licence})
    if (folder / "results.json").is_file():
        write_json(out / "results.json", _figures(folder))


def _figures(folder: Path) -> dict[str, Any]:
    """`results.json` without what names places, and without what is told of single items."""
    results: dict[str, Any] = portable(_read(folder / "results.json"))
    for single in ("first_errors", "set_aside"):
        results.pop(single, None)
    if "warnings" in results:
        results["warnings"] = [without_places(text) for text in results["warnings"]]
    return results


def _results(folder: Path, kind: str, licence: str | None) -> Callable[[Path], None]:
    """Figures of a probe or an evaluation: as they are, as a table to be read, and as rows to be loaded."""
    results = _figures(folder)
    if kind == "probe":
        text = table(results)
        rows = [
            {"table": number, "measure": label, "of": head, "figure": cell}
            for number, one in enumerate(tables(results))
            for label, *cells in one.rows
            for head, cell in zip(one.header[1:], cells, strict=True)
        ]
    else:
        text = markdown(results).partition("\n\n")[2]
        head, *lines = table_rows(results["profiles"])
        rows = [dict(zip(head, line, strict=True)) for line in lines]

    def write(out: Path) -> None:
        write_json(out / "results.json", results)
        settings = portable(read_settings(folder / f"{'probe' if kind == 'probe' else 'eval'}.yaml"))
        _card(
            out,
            {"figures": rows},
            licence,
            title=f"{kind.capitalize()}: {results.get('title') or ', '.join(results['defenders'])}",
            text=text,
            settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        )

    return write


def _measured(folder: Path, licence: str | None) -> Callable[[Path], None]:
    """Files of benchmarks, one JSON record a line, each a configuration of its own."""
    parts: dict[str, Rows] = {}
    for file in sorted(folder.glob("*.json"), key=lambda file: file.stem):
        try:
            records = _records(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{file}: not JSON records, whole or one a line ({error}).") from error
        # A table has one kind in a column, and what benchmarks nest differs from record to record.
        parts[file.stem] = [
            {
                key: value if isinstance(value, int | float | str | bool) else json.dumps(value)
                for key, value in portable(record).items()
            }
            for record in records
        ]
    text = "One configuration a benchmark, one row a measurement. Which command wrote it, and on what\n"
    text += "machine, stands in the documentation beside the figure.\n"
    return lambda out: _card(out, parts, licence, title="Sparring's benchmarks", text=text, settings="")


def _records(text: str) -> Rows:
    """The records of a JSON file: one, a list of them, or one a line. Raises ValueError for anything else."""
    try:
        whole = json.loads(text)
        found = whole if isinstance(whole, list) else [whole]
    except json.JSONDecodeError:
        found = [json.loads(line) for line in text.splitlines() if line]
    if not all(isinstance(record, dict) for record in found):
        raise ValueError("a record is no mapping")
    return found


def _card(
    out: Path, parts: Mapping[str, Rows], licence: str | None, *, title: str, text: str, settings: str
) -> None:
    """Write the rows of every part as JSON lines, and README.md, which tells `datasets` where they are."""
    for name, rows in parts.items():
        lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
        write_whole(out / f"{name}.jsonl", lines)
    data = DatasetCardData(
        license=licence,
        pretty_name=title,
        tags=["adversarial", "robustness", "sparring"],
        configs=[{"config_name": name, "data_files": f"{name}.jsonl"} for name in parts],
    )
    save_card(out, data, "results.md.j2", title=title, text=text, settings=settings, licence=licence)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunError(f"{path} is not there: this folder's work has not ended. Let it end first.")
    value = json.loads(path.read_text(encoding="utf-8"))
    return dict(value)
