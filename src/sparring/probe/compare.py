"""What models did in a probe, and Defenders beside each other: attacks made against one and put to all,
paired differences.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.asking.conditions import PLAIN, Name
from sparring.data.records import VisualQuestion
from sparring.measures.robustness import Played, transfer_matrix
from sparring.measures.statistics import holm, mcnemar_exact, paired_bootstrap
from sparring.probe.asking import Said
from sparring.probe.attackers import Attacker

Bools = NDArray[np.bool_]


@dataclass
class Found:
    """What models did: Defender -> its answers under every condition, to unchanged pictures asked again, and
    to every attacker's edits, all in the order of the questions. trained: what adaptive training came to.
    """

    questions: list[VisualQuestion]
    attackers: list[Attacker]
    warnings: list[str]
    said: dict[str, dict[Name, list[Said]]] = field(default_factory=dict)
    played: dict[str, list[tuple[Attacker, Played]]] = field(default_factory=dict)
    again: dict[str, Played] = field(default_factory=dict)
    trained: dict[str, dict[str, Any]] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)
    """Question id -> why no figure counts it."""

    def of_what_is_kept(self) -> Found:
        """The same of the questions that are not set aside."""
        kept = [place for place, question in enumerate(self.questions) if question.id not in self.set_aside]
        return Found(
            [self.questions[i] for i in kept],
            self.attackers,
            self.warnings,
            {
                name: {condition: [own[i] for i in kept] for condition, own in said.items()}
                for name, said in self.said.items()
            },
            {
                name: [(attacker, one.only(kept)) for attacker, one in own]
                for name, own in self.played.items()
            },
            {name: one.only(kept) for name, one in self.again.items()},
            self.trained,
            self.set_aside,
        )

    @property
    def clusters(self) -> list[str]:
        """[N]: the hash of the picture that each question is about."""
        return [one.picture for one in next(iter(self.said.values()))[PLAIN]]

    def clean(self, defender: str) -> list[bool]:
        """[N]: right about the clean picture."""
        return [one.answer.right for one in self.said[defender][PLAIN]]

    def against(self, defender: str) -> list[tuple[Attacker, Played]]:
        """The attacks that count for this Defender: those that are made against it, or against nobody."""
        return [(a, one) for a, one in self.played[defender] if a.against in (None, defender)]


def outcomes(found: Found, clusters: Sequence[str]) -> dict[str, Any]:
    """What came of every question, for whoever puts probes together: ids, pictures, and texts of a 0 or 1 for
    each question, in their order, of the first sample.

    Of every Defender: "conditions", right under each; "attackers": right about the edit as it was shown,
    valid, changed, as `Played` has them. Attacks that were made against another Defender are left out.
    """

    def marks(values_N: Sequence[bool] | Bools) -> str:
        return "".join("01"[int(value)] for value in values_N)

    return {
        "schema": 1,
        "ids": [question.id for question in found.questions],
        "pictures": list(clusters),
        "defenders": {
            name: {
                "conditions": {
                    str(condition): marks([one.answer.right for one in own])
                    for condition, own in found.said[name].items()
                },
                "attackers": {
                    attacker.name: {
                        "control": attacker.control,
                        "right": marks(one.right_SN[0]),
                        "valid": marks(one.valid_SN[0]),
                        "changed": marks(one.changed_SN[0]),
                    }
                    for attacker, one in found.against(name)
                },
            }
            for name in found.said
        },
    }


def transfer(found: Found) -> dict[str, Any]:
    """For every attacker that is made against a Defender: rows are whom its edits were made against, columns
    who answered.
    """
    clean = {name: found.clean(name) for name in found.said}
    made: dict[str, dict[str, dict[str, Played]]] = {}
    for target, own in found.played.items():
        for attacker, one in own:
            if attacker.against is not None:
                made.setdefault(attacker.name, {}).setdefault(attacker.against, {})[target] = one
    return {name: transfer_matrix(clean, against) for name, against in made.items()}


def differences(found: Found, clusters: Sequence[str], *, resamples: int, seed: int) -> dict[str, Any]:
    """Each further Defender less the first: accuracy clean, under every condition, under every attack, and
    under all attacks at once that both face (an endpoint faces none that takes gradients), paired by
    question.

    Attacks that are made against one Defender are each one's own (white box against white box). p-values are
    McNemar's exact ones, adjusted by Holm over all measures of one Defender.
    """
    first, *others = found.said
    faced = {name: {attacker.name for attacker, _ in found.against(name)} for name in found.said}
    less: dict[str, Any] = {}
    for other in others:
        both = faced[other] & faced[first]
        own, base = (_rights(name, found, both) for name in (other, first))
        pairs = {name: _pair(own[name], base[name]) for name in own if name in base}
        adjusted = holm([mcnemar_exact(after, before) for after, before, _ in pairs.values()])
        less[other] = {
            name: paired_bootstrap(
                after, before, [clusters[i] for i in places], resamples=resamples, seed=seed
            ).as_dict()
            | {"mcnemar_holm": p}
            for (name, (after, before, places)), p in zip(pairs.items(), adjusted, strict=True)
        }
    return {"less": first, "of": less}


def _rights(name: str, found: Found, attackers: Collection[str]) -> dict[str, tuple[Bools, Bools]]:
    """Measure -> [N] was each question answered right, [N] does the measure count it. attackers: the names
    of those that are told.
    """
    plain = {
        str(condition): np.array([one.answer.right for one in own], dtype=bool)
        for condition, own in found.said[name].items()
    }
    robust = plain[PLAIN].copy()
    everywhere = np.ones_like(robust)
    rights = {condition: (right_N, everywhere) for condition, right_N in plain.items()}
    attacked = False
    for attacker, one in found.against(name):
        if attacker.name in attackers:
            rights[attacker.name] = one.right_SN[0], one.changed_SN[0]
            if not attacker.control:
                attacked = True
                robust &= (one.right_SN | ~one.changed_SN).all(0)
    return rights | ({"robust": (robust, everywhere)} if attacked else {})


def _pair(after: tuple[Bools, Bools], before: tuple[Bools, Bools]) -> tuple[Bools, Bools, list[int]]:
    """Both Defenders' answers to the questions that the measure counts for both, and their places."""
    counted_N = after[1] & before[1]
    return after[0][counted_N], before[0][counted_N], np.flatnonzero(counted_N).tolist()
