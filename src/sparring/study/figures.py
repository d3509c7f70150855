"""A study in figures: every arm over its seeds, and paired with the baseline.

A figure has the name and the meaning that it has in a probe; of one seed it is the probe's own. An arm is
told over the seeds whose probes are done, a difference over those that are of both arms.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.asking.conditions import PLAIN
from sparring.engine.environment import environments
from sparring.measures.statistics import Pooled, hierarchical_bootstrap, holm, student
from sparring.probe.settings import AGAIN
from sparring.probe.table import CONDITION_NAMES, figure_at, measures_of
from sparring.study.doubts import UNPARSED, doubts
from sparring.study.plan import DONE, Cell, Study

SCHEMA = 1
CLEAN, PRIMARY, WORST = "clean accuracy", "primary outcome", "worst case of all opponents and shifts"
WHOLE = (UNPARSED, "calibration", "hallucination", "consistency")
"""Figures of a probe that are no mean over all its questions, but one number a seed."""
ASKED_AGAIN = ("robustness", "attackers", AGAIN, "accuracy")
"""Another one, of a control that a probe notes for no single question."""
COUNTED = {"updates": "updates", "rollouts": "answers sampled", "kept_groups": "groups with a signal"}
"""What a game counts of a Defender's training, in words."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Probed:
    """What came of an arm with one seed. items: measure -> [N], nan where a question is not counted. whole:
    measure -> one value. passed: opponent -> share of the edits that changed their picture which passed the
    checks and the audit, None where none changed one. learned: whether the adaptive Attacker did; None where
    there is none. warnings: the probe's own.
    """

    ids: Sequence[str]
    pictures: Sequence[str]
    items: Mapping[str, Values]
    whole: Mapping[str, float]
    passed: Mapping[str, float | None] = field(default_factory=dict)
    learned: bool | None = None
    warnings: Sequence[str] = ()

    def has(self, name: str) -> bool:
        """Is there something to count of a measure?"""
        return name in self.whole or (name in self.items and bool(np.isfinite(self.items[name]).any()))

    def less(self, other: Probed) -> Probed:
        """The differences of all measures that both have, of the questions that both were asked."""
        places = {name: place for place, name in enumerate(other.ids)}
        mine = [place for place, name in enumerate(self.ids) if name in places]
        theirs = [places[self.ids[place]] for place in mine]
        return Probed(
            [self.ids[place] for place in mine],
            [self.pictures[place] for place in mine],
            {
                name: own_N[mine] - other.items[name][theirs]
                for name, own_N in self.items.items()
                if name in other.items
            },
            {name: own - other.whole[name] for name, own in self.whole.items() if name in other.whole},
        )


def results_of(study: Study, out: Path, failed: Mapping[Cell, str]) -> dict[str, Any]:
    """The content of `study.json`. A figure is {"value", "n", "ci95", "seeds"}, a difference has "p" too and,
    but for the primary one, "holm": adjusted over all exploratory ones. Of every arm also, seed for seed: the
    share of its opponents' edits that passed the checks, and what its Defender was trained with.
    """
    settings = study.settings
    probed = {
        (cell.arm, cell.seed): read_probe(study, cell, out)
        for cell in study.cells()
        if cell.kind == "probe" and cell.done(out)
    }
    arms, differences, paired = {}, {}, {}
    for arm in settings.arms:
        seeds = [seed for seed in settings.seeds if (arm, seed) in probed]
        own = [probed[arm, seed] for seed in seeds]
        arms[arm] = {
            "seeds": seeds,
            "measures": {name: one.as_dict() for name, one in pooled(own, settings.resamples).items()},
            "passed": {name: [one.passed[name] for one in own] for name in (own[0].passed if own else ())},
            "training": [training_of(study, arm, seed, out) for seed in seeds],
        }
        if arm != settings.baseline:
            paired[arm] = [seed for seed in seeds if (settings.baseline, seed) in probed]
            pairs = [probed[arm, seed].less(probed[settings.baseline, seed]) for seed in paired[arm]]
            differences[arm] = pooled(pairs, settings.resamples)
    primary = settings.primary
    return {
        "schema": SCHEMA,
        "kind": "study",
        "name": settings.name,
        "description": settings.description,
        "seeds": list(settings.seeds),
        "primary": primary.model_dump(mode="json") if primary else None,
        "opponents": {name: accuracy(study, name) for name in study.opponents()},
        "arms": arms,
        "differences": {
            "less": settings.baseline,
            "seeds": paired,
            "of": with_p(differences, (primary.arm, PRIMARY) if primary else None),
        },
        "failed": {str(cell): why for cell, why in failed.items()},
        "warnings": list(doubts(study, probed)),
        "warnings_of_probes": {
            f"{arm}-{seed}": list(one.warnings) for (arm, seed), one in probed.items() if one.warnings
        },
        "environments": environments_of(study, out),
    }


def environments_of(study: Study, out: Path) -> list[dict[str, Any]]:
    """Where how many of the finished games and probes were computed; one that was gone on with elsewhere
    counts for both. None: it was not noted.
    """
    cells = Counter[str]()
    for cell in study.cells():
        if cell.kind != "edits" and cell.done(out):
            noted: list[Any] = [*environments(cell.folder(out))] or [None]
            cells.update(list(dict.fromkeys(json.dumps(one, sort_keys=True) for one in noted)))
    return [{"environment": json.loads(one), "cells": count} for one, count in cells.items()]


def training_of(study: Study, arm: str, seed: int, out: Path) -> dict[str, int] | None:
    """What is `COUNTED` of all rounds that an arm's Defender was trained in; None where it was not. Raises
    RunError where the game's summary holds something else.
    """
    rounds, cell = study.rounds_of(arm), study.game(arm, seed)
    if rounds == 0:
        return None
    try:
        played = cell.read(out, DONE["game"])["rounds"][:rounds]
        return {name: int(sum(own["defender"][name] for own in played)) for name in COUNTED}
    except (LookupError, TypeError, ValueError) as error:
        raise cell.damaged(cell.folder(out) / DONE["game"], f"{type(error).__name__}: {error}") from error


def accuracy(study: Study, opponent: str) -> str:
    """What an arm's accuracy under an opponent is called."""
    return f"{'' if opponent in study.settings.shifts else 'valid '}accuracy under {opponent}"


def read_probe(study: Study, cell: Cell, out: Path) -> Probed:
    """What the finished probe of a cell found. Raises RunError where its files hold something else."""
    files = [cell.read(out, name) for name in ("outcomes.json", "results.json")]
    try:
        return _probed(study, cell, *files)
    except (LookupError, TypeError, ValueError) as error:
        file = cell.folder(out) / "outcomes.json, or results.json beside it,"
        raise cell.damaged(file, f"{type(error).__name__}: {error}") from error


def _probed(study: Study, cell: Cell, outcome: Any, results: Any) -> Probed:
    own = results["defenders"][cell.arm]
    whole = {}
    for label, path in measures_of(own):
        whole_one = path == ASKED_AGAIN or (path[0] != "robustness" and set(path) & set(WHOLE))
        figure = figure_at(own, *path) if whole_one else None
        value = figure["value"] if isinstance(figure, Mapping) else figure
        if value is not None:
            whole[label] = float(value)
    said = outcome["defenders"][cell.arm]
    items, passed = dict(measured(study, said)), {}
    for name in study.opponents():
        if name not in study.settings.shifts:
            valid_N, changed_N = (marks(said["attackers"][name][key]) for key in ("valid", "changed"))
            passed[name] = float(valid_N[changed_N == 1].mean()) if changed_N.any() else None
    learned = (own["adaptive_training"] or {}).get("learned")
    return Probed(outcome["ids"], outcome["pictures"], items, whole, passed, learned, results["warnings"])


def marks(text: str) -> Values:
    """[N], of a text of a 0 or 1 for each question."""
    return np.array([float(mark) for mark in text])


def measured(study: Study, own: Mapping[str, Any]) -> Iterator[tuple[str, Values]]:
    """Measure -> [N], from what a probe noted of every question."""
    clean_N = marks(own["conditions"][PLAIN])
    yield CLEAN, clean_N
    under, standing = dict[str, Values](), dict[str, Values]()
    for name in study.opponents():
        checked = name not in study.settings.shifts
        word, right, stands, fooled = "valid " if checked else "", [], [], []
        for part in study.parts(name):
            one = own["attackers"][part]
            right_N, valid_N = marks(one["right"]), marks(one["valid"]) if checked else 1.0
            played_N = np.where(valid_N, right_N, clean_N)
            changed_N = marks(one["changed"]) == 1
            right.append(np.where(changed_N, played_N, np.nan))
            stands.append(np.where(changed_N, played_N, clean_N))
            fooled.append(np.where(changed_N & (clean_N == 1), (1 - right_N) * valid_N, np.nan))
        under[name], standing[name] = mean_of(right), np.mean(stands, axis=0)
        yield accuracy(study, name), under[name]
        yield f"{word}drop under {name}", clean_N - under[name]
        yield f"{word}ASR of {name}", mean_of(fooled)
    for name, one in own["attackers"].items():
        if one["control"]:
            yield f"accuracy under {name} (control)", marks(one["right"])
    for name, label in CONDITION_NAMES.items():
        if name in own["conditions"]:
            yield f"accuracy: {label}", marks(own["conditions"][name])
    if under:
        yield WORST, np.fmin.reduce([clean_N, *(np.floor(own_N) for own_N in under.values())])
    # A picture that was left as it was is no attack: the clean answer stands, and all opponents count alike.
    means = {f"accuracy, mean of {name}": names for name, names in study.settings.means.items()}
    primary = {PRIMARY: study.settings.primary.opponents} if study.settings.primary else {}
    for measure, names in (means | primary).items():
        yield measure, np.mean([standing[name] for name in names], axis=0)


def mean_of(values: Sequence[Values]) -> Values:
    """[N]: the mean of those that are counted; nan where none is."""
    stacked = np.stack(values)
    counted_N = np.isfinite(stacked).sum(0)
    return np.where(counted_N > 0, np.nansum(stacked, 0) / np.maximum(counted_N, 1), np.nan)


def pooled(probed: Sequence[Probed], resamples: int) -> dict[str, Pooled]:
    """Every measure that all of these have."""
    if not probed:
        return {}
    clusters = [one.pictures for one in probed]
    found = {
        name: hierarchical_bootstrap(
            [one.items[name] for one in probed], clusters, resamples=resamples, seed=0
        )
        for name in probed[0].items
        if all(name in one.items for one in probed)
    }
    for name in probed[0].whole:
        if all(name in one.whole for one in probed):
            values = [one.whole[name] for one in probed]
            low, high = student(values) or (None, None)
            found[name] = Pooled(float(np.mean(values)), len(values), low, high, tuple(values))
    return found


def with_p(
    differences: Mapping[str, Mapping[str, Pooled]], primary: tuple[str, str] | None
) -> dict[str, dict[str, Any]]:
    """Differences with their p-values. primary: the arm and measure that stand outside Holm's family."""
    family = [
        (arm, name)
        for arm, own in differences.items()
        for name, one in own.items()
        if one.p is not None and (arm, name) != primary
    ]
    adjusted = dict(zip(family, holm([differences[arm][name].p or 0.0 for arm, name in family]), strict=True))
    return {
        arm: {
            name: one.as_dict()
            | {"p": one.p}
            | ({"holm": adjusted[arm, name]} if (arm, name) in adjusted else {})
            for name, one in own.items()
        }
        for arm, own in differences.items()
    }
