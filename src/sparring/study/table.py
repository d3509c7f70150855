"""A study's figures as tables, of Markdown or of a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sparring.data.words import plural
from sparring.engine.environment import in_words
from sparring.engine.files import write_whole
from sparring.probe.table import Table, markdown, shown
from sparring.study.figures import CLEAN, COUNTED, PRIMARY, WORST

Figures = Mapping[str, Any]


def write_study_table(path: Path, results: Figures) -> None:
    """Write the tables, and what has failed, beside each other."""
    notes = [f"Failed: {cell}: {why}" for cell, why in results["failed"].items()]
    notes += [f"Warning: {text}" for text in results["warnings"]]
    notes += [f"Probe {cell}: {'; '.join(own)}" for cell, own in results["warnings_of_probes"].items()]
    notes += computed_with(results)
    write_whole(path, markdown(tables(results), notes))


def computed_with(results: Figures) -> list[str]:
    """How many cells were computed with what, in words."""
    return [
        f"{plural(one['cells'], 'cell')} computed with "
        f"{in_words(one['environment']) if one['environment'] else 'what was not noted'}"
        for one in results.get("environments", ())
    ]


def main_measures(results: Figures) -> dict[str, str]:
    """Measure -> the head of its column in the tables of arms."""
    primary = {PRIMARY: PRIMARY} if results["primary"] else {}
    opponents = {label: name for name, label in results["opponents"].items()}
    return primary | {CLEAN: "clean"} | opponents | ({WORST: "worst case"} if opponents else {})


def tables(results: Figures) -> list[Table]:
    """Accuracy of every arm under every opponent, the same less the baseline's, then all that is known."""
    columns, arms = main_measures(results), results["arms"]
    less, differences = results["differences"]["less"], results["differences"]["of"]
    names = dict.fromkeys(name for own in arms.values() for name in own["measures"])
    seeds = plural(len(results["seeds"]), "seed")
    checked = dict.fromkeys(name for own in arms.values() for name in own["passed"])
    return [
        Table(
            f"{results['name']}: accuracy, mean over {seeds}. Each cell: value (95 % interval) n; intervals "
            f"from the bootstrap over seeds, then pictures.{_primary(results)}",
            ["arm", *columns.values()],
            [[arm, *(_cell(own["measures"].get(name)) for name in columns)] for arm, own in arms.items()],
        ),
        Table(
            f"The same less that of {less}, paired by question; p: Student's t of the seeds' means, none "
            f"where all seeds say the same (1 where that is 0); but for the primary one adjusted by Holm "
            f"over all of them: with so many, few seeds can hardly tell a single one from chance.",
            ["arm", *columns.values()],
            [[arm, *(_tested(own.get(name)) for name in columns)] for arm, own in differences.items()],
        ),
        Table(
            "Every measure; n: questions of all seeds; or seeds, where the interval is Student's t of their "
            "figures, none of one seed or where all are the same.",
            ["measure", *arms],
            [[name, *(_cell(own["measures"].get(name)) for own in arms.values())] for name in names],
        ),
        Table(
            f"Every measure less that of {less}, of the questions that count for both: that of an ASR is of "
            f"those which both get right when clean.",
            ["measure", *differences],
            [[name, *(_tested(own.get(name)) for own in differences.values())] for name in names],
        ),
        Table(
            "Share of the edits that passed the checks and the audit, of each seed; of the others the clean "
            "answer stands.",
            ["arm", *checked],
            [
                [arm, *(_each(own["passed"].get(name, ()), "{:.3f}".format) for name in checked)]
                for arm, own in arms.items()
            ],
        ),
        Table(
            "Training of each arm's Defender, of each seed. Answers are sampled until enough groups have a "
            "signal (some right, some wrong), or max_refills is reached; groups without one teach nothing.",
            ["arm", *COUNTED.values()],
            [
                [arm, *(_each([one and one[name] for one in own["training"]], str) for name in COUNTED)]
                for arm, own in arms.items()
            ],
        ),
    ]


def _each(values: Iterable[Any], words: Callable[[Any], str]) -> str:
    """What is known of every seed, in their order."""
    return ", ".join("-" if value is None else words(value) for value in values) or "-"


def _primary(results: Figures) -> str:
    primary = results["primary"]
    if primary is None:
        return ""
    return (
        f" Primary outcome: the mean over {', '.join(primary['opponents'])}, of {primary['arm']} less "
        f"{results['differences']['less']}."
    )


def _cell(figure: Figures | None) -> str:
    return shown(figure) if figure and figure["value"] is not None else "-"


def _tested(figure: Figures | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    return "".join([shown(figure), *_p(figure)])


def _p(figure: Figures) -> Iterator[str]:
    if (p := figure.get("holm", figure["p"])) is not None:
        yield f", p {p:.2g}"
