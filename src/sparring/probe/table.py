"""A probe's figures as one Markdown table: rows are measures, columns Defenders; every figure with its 95 %
interval and n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparring.engine.files import write_whole

Figures = Mapping[str, Any]
CONDITION_NAMES = {
    "wrong_caption": "wrong caption",
    "wrong_caption_hedged": "wrong caption, hedged",
    "wrong_thought": "wrong thought",
    "wrong_thought_hedged": "wrong thought, hedged",
    "stop_think": "stop-think",
    "right_caption": "right caption (control)",
    "right_thought": "right thought (control)",
}


def write_table(path: Path, results: Figures) -> None:
    """Write the table, and what a reader should know, beside it."""
    write_whole(path, table(results))


def table(results: Figures) -> str:
    """The Markdown text."""
    defenders: Mapping[str, Figures] = results["defenders"]
    lines = [
        f"{results['questions']} questions about {results['pictures']} pictures. Each cell: value (95 "
        f"% interval) n. Rates have Wilson intervals; means and "
        "differences have intervals from the bootstrap clustered by picture.",
        "",
        f"| measure | {' | '.join(_cell(name) for name in defenders)} |",
        f"|---|{'---|' * len(defenders)}",
    ]
    for label, path in _rows(next(iter(defenders.values()))):
        cells = [_shown(_at(own, *path)) for own in defenders.values()]
        if any(cell != "-" for cell in cells):
            lines.append(f"| {_cell(label)} | {' | '.join(cells)} |")
    lines += _transfer_lines(results["transfer"]) + _difference_lines(results["differences"])
    first, majority = (results["baselines"][name]["value"] for name in ("first", "majority"))
    lines += [
        "",
        f"Baselines: always option A {_number(first)}, always the most frequent letter {_number(majority)}.",
    ]
    lines += [f"Note: {text}." for text in results["warnings"]]
    return "\n".join(lines) + "\n"


def _rows(sample: Figures) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(label, the path of its figure among one Defender's)."""
    yield "clean accuracy", ("clean_accuracy",)
    yield "unparsed", ("unparsed",)
    for name, own in sample["robustness"]["attackers"].items():
        where = ("robustness", "attackers", name)
        yield f"accuracy under {name}{' (control)' if own['control'] else ''}", (*where, "accuracy")
        if not own["control"]:
            yield f"ASR of {name}", (*where, "asr")
            yield f"valid ASR of {name}", (*where, "valid_asr")
            yield f"right answer still right after {name}", (*where, "label_valid_rate")
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


def _at(figures: Any, *path: str) -> Any:
    """What lies at a path of keys; None where something on it is not there."""
    for key in path:
        if not isinstance(figures, Mapping) or key not in figures:
            return None
        figures = figures[key]
    return figures


def _shown(figure: Any) -> str:
    """A rate or difference as "0.812 (0.76 to 0.85) 320", a plain number as itself, "-" for nothing."""
    if figure is None:
        return "-"
    if isinstance(figure, Mapping):
        if figure["value"] is None:
            return "nothing to count"
        low, high = figure["ci95"]
        return f"{_number(figure['value'])} ({_number(low)} to {_number(high)}) {figure['n']}"
    return str(figure) if isinstance(figure, int) else _number(figure)


def _number(value: float) -> str:
    return f"{value:.3f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _transfer_lines(transfer: Figures) -> list[str]:
    lines = []
    for name, matrix in transfer.items():
        names = [_cell(target) for target in matrix["answered_by"]]
        lines += [
            "",
            f"ASR of {_cell(name)}: rows, whom the edits were made against; columns, who answered (of what "
            f"each gets right when clean).",
            "",
        ]
        lines += [f"| made against | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        for source, row in zip(matrix["made_against"], matrix["asr"], strict=True):
            lines.append(f"| {_cell(source)} | {' | '.join(_shown(_at(cell, 'asr')) for cell in row)} |")
    return lines


def _difference_lines(differences: Figures) -> list[str]:
    found: Mapping[str, Figures] = differences["of"]
    if not found:
        return []
    measures = list(dict.fromkeys(name for own in found.values() for name in own))
    lines = [
        "",
        f"Accuracy less that of {_cell(differences['less'])}, paired by question; p: McNemar's exact, "
        f"adjusted by Holm down each column.",
        "",
    ]
    lines += [f"| measure | {' | '.join(_cell(name) for name in found)} |", f"|---|{'---|' * len(found)}"]
    for name in measures:
        cells = [
            f"{_shown(own[name])}, p {own[name]['mcnemar_holm']:.2g}" if name in own else "-"
            for own in found.values()
        ]
        lines.append(f"| {_cell(name)} | {' | '.join(cells)} |")
    return lines
