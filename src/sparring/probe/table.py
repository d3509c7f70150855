"""A probe's figures as tables, of Markdown or of a page: rows are measures, columns Defenders; every figure
with its 95 % interval and n.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.data.words import plural
from sparring.engine.files import write_whole

Figures = Mapping[str, Any]
Where = tuple[str | int, ...]
"""Keys of mappings and places of lists, from one Defender's figures to one of them."""
CONDITION_NAMES = {
    "wrong_caption": "wrong caption",
    "wrong_caption_hedged": "wrong caption, hedged",
    "wrong_thought": "wrong thought",
    "wrong_thought_hedged": "wrong thought, hedged",
    "stop_think": "stop-think",
    "right_caption": "right caption (control)",
    "right_thought": "right thought (control)",
}


@dataclass(frozen=True, slots=True)
class Table:
    """What stands above a table, its header, and its rows, each with its label first."""

    words: str
    header: list[str]
    rows: list[list[str]]


def write_table(path: Path, results: Figures) -> None:
    """Write the table, and what a reader should know, beside it."""
    write_whole(path, table(results))


def table(results: Figures) -> str:
    """The Markdown text."""
    notes = [f"Note: {text}." for text in results["warnings"]]
    return markdown(tables(results), [baselines_in_words(results), *notes])


def markdown(tables: Iterable[Table], notes: Iterable[str]) -> str:
    """Tables, then lines of text."""
    lines = []
    for one in tables:
        lines += [one.words, "", _line(one.header), f"|{'---|' * len(one.header)}"]
        lines += [*map(_line, one.rows), ""]
    return "\n".join([*lines, *notes]) + "\n"


def tables(results: Figures) -> list[Table]:
    """The figures of every Defender, then by category, transfer and differences where there are any."""
    defenders: Mapping[str, Figures] = results["defenders"]
    header = ["measure", *defenders]
    found = [
        Table(
            f"{plural(results['questions'], 'question')} about {plural(results['pictures'], 'picture')}. "
            f"Each cell: value (95 % interval) n. Rates have Wilson intervals; means and differences have "
            f"intervals from the bootstrap clustered by picture.",
            header,
            _told(measures_of, defenders),
        ),
        Table("By category; ASR of any sample.", header, _told(_categories, defenders)),
        *_transfer(results["transfer"]),
        *_differences(results["differences"]),
    ]
    return [table for table in found if table.rows]


def baselines_in_words(results: Figures) -> str:
    """What a Defender gets that never looks."""
    first, majority = (results["baselines"][name]["value"] for name in ("first", "majority"))
    return (
        f"Baselines: always option A {_number(first)}, always the most frequent letter {_number(majority)}."
    )


def _told(
    measures: Callable[[Figures], Iterable[tuple[str, Where]]], defenders: Mapping[str, Figures]
) -> list[list[str]]:
    """The rows of which some Defender has a figure: not all of them face the same attackers."""
    named = dict.fromkeys(one for own in defenders.values() for one in measures(own))
    rows = [[label, *(shown(figure_at(own, *path)) for own in defenders.values())] for label, path in named]
    return [row for row in rows if any(cell != "-" for cell in row[1:])]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def measures_of(sample: Figures) -> Iterator[tuple[str, Where]]:
    """(label, the path of its figure among one Defender's) of every measure but those by category."""
    yield "clean accuracy", ("clean_accuracy",)
    yield "unparsed", ("unparsed",)
    where: Where
    for name, own in sample["robustness"]["attackers"].items():
        where = ("robustness", "attackers", name)
        yield f"accuracy under {name}{' (control)' if own['control'] else ''}", (*where, "accuracy")
        if not own["control"]:
            yield f"ASR of {name}", (*where, "asr")
            yield f"valid ASR of {name}", (*where, "valid_asr")
            yield f"right answer still right after {name}", (*where, "label_valid_rate")
            for tries in own["asr_at_k"][1:]:
                yield f"ASR@{tries['k']} of {name}", (*where, "asr_at_k", tries["k"] - 1, "asr")
                yield f"valid ASR@{tries['k']} of {name}", (*where, "asr_at_k", tries["k"] - 1, "valid_asr")
            yield f"targets intact after {name}", (*where, "edits", "intact")
            yield f"passed all checks: {name}", (*where, "edits", "accepted")
            yield f"unparsed under {name}", (*where, "edits", "unparsed")
        yield f"net flips of {name}", (*where, "net_flips")
    yield "robust accuracy, all edits", ("robustness", "robust_accuracy")
    yield "robust accuracy, valid edits", ("robustness", "valid_robust_accuracy")
    for name, label in CONDITION_NAMES.items():
        yield f"accuracy: {label}", ("conditions", name, "accuracy")
        yield f"flips to the hint: {label}", ("conditions", name, "toward_hint")
        yield f"flips less drift: {label}", ("conditions", name, "net_flips")
    for name, label in {"plain": "plain", **CONDITION_NAMES}.items():
        yield f"consistency: {label}", ("conditions", name, "consistency", "consistent")
    for quadrant in ("right_consistent", "right_inconsistent", "wrong_consistent", "wrong_inconsistent"):
        yield (
            f"replies {quadrant.replace('_', ', ')}",
            ("conditions", "plain", "consistency", "quadrants", quadrant),
        )
    for measure, words in (("entropy", "entropy of the letters, nats"), ("right_probability", "P(correct)")):
        for name, label in {"plain": "plain", **CONDITION_NAMES}.items():
            yield f"{words}: {label}", ("conditions", name, "certainty", measure)
    yield "ECE, 15 bins", ("calibration", "ece")
    yield "Brier score", ("calibration", "brier")
    for group in (sample["hallucination"] or {}).get("presence", {}):
        for measure in ("accuracy", "precision", "recall", "f1", "yes_rate"):
            yield (
                f"presence, {group}: {measure.replace('_', ' ')}",
                ("hallucination", "presence", group, measure),
            )
    for measure in ("true_understanding", "ignorance", "stubbornness"):
        yield (
            f"changed objects: {measure.replace('_', ' ')}",
            ("hallucination", "changes", "changed", measure),
        )
    yield "kept objects: indecision", ("hallucination", "changes", "kept", "indecision")


def _categories(sample: Figures) -> Iterator[tuple[str, Where]]:
    for name, own in sample.get("by_category", {}).items():
        where = ("by_category", name)
        yield f"{name}: clean accuracy", (*where, "clean_accuracy")
        yield f"{name}: robust accuracy", (*where, "robust_accuracy")
        for attacker in own["asr"]:
            yield f"{name}: ASR of {attacker}", (*where, "asr", attacker)


def figure_at(figures: Any, *path: str | int) -> Any:
    """What lies at a path; None where something on it is not there."""
    for key in path:
        if not isinstance(figures, Mapping | Sequence) or key not in _keys(figures):
            return None
        figures = figures[key]  # type: ignore[index]  # a key of these
    return figures


def _keys(figures: Mapping[str, Any] | Sequence[Any]) -> Collection[Any]:
    return figures.keys() if isinstance(figures, Mapping) else range(len(figures))


def shown(figure: Any) -> str:
    """A rate or difference as "0.812 (0.76 to 0.85) 320", a plain number as itself, "-" for nothing."""
    if figure is None:
        return "-"
    if isinstance(figure, Mapping):
        if figure["value"] is None:
            return "nothing to count"
        low, high = figure["ci95"]
        interval = "no interval" if low is None else f"{_number(low)} to {_number(high)}"
        return f"{_number(figure['value'])} ({interval}) {figure['n']}"
    return str(figure) if isinstance(figure, int) else _number(figure)


def _number(value: float) -> str:
    text = f"{value:.3f}"
    return text.lstrip("-") if float(text) == 0 else text


def _cell(text: str) -> str:
    """Names and categories are anybody's: no column, picture, link or markup comes of them."""
    return re.sub(r"[\\|<\[`]", r"\\\g<0>", " ".join(text.split()))


def _transfer(transfer: Figures) -> Iterator[Table]:
    for name, matrix in transfer.items():
        yield Table(
            f"ASR of {name}: rows, whom the edits were made against; columns, who answered (of what each "
            f"gets right when clean).",
            ["made against", *matrix["answered_by"]],
            [
                [source, *(shown(figure_at(cell, "asr")) for cell in row)]
                for source, row in zip(matrix["made_against"], matrix["asr"], strict=True)
            ],
        )


def _differences(differences: Figures) -> Iterator[Table]:
    found: Mapping[str, Figures] = differences["of"]
    if found:
        yield Table(
            f"Accuracy less that of {differences['less']}, paired by question; p: McNemar's exact, adjusted "
            f"by Holm down each column.",
            ["measure", *found],
            [
                [
                    name,
                    *(
                        f"{shown(own[name])}, p {own[name]['mcnemar_holm']:.2g}" if name in own else "-"
                        for own in found.values()
                    ),
                ]
                for name in dict.fromkeys(name for own in found.values() for name in own)
            ],
        )
