"""What attacks on pictures do to Defenders: attack success, robust accuracy, flips, transfer, from answers
that are already there.

Two readings stand side by side. *All* edits count as they are. *Valid* ones alone leave the right answer
right: every target intact by local SSIM, no queried object added or lost, no objection from an auditor, as
far as each of these was there to ask. What is not valid is no attack, and the answer to the clean picture
stands there (as in `measures.payoff`). A picture that came back as it was is no attack in either reading:
its item is in none of that attack's figures.

Controls are played like attacks and never enter robust accuracy: the unchanged picture asked again (the
noise floor), an editor's round trip, a benign edit, whatever else costs pixels and means no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.data.errors import DataError
from sparring.measures.statistics import holm, mcnemar_exact, paired_bootstrap, rate

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Played:
    """One attacker's edits as one Defender answered them. right_SN: samples S of every item N; valid_SN: the
    edit leaves the answer right.

    changed_SN: the edit changed its picture. shown_SN: the Defender was asked about it; where it was not,
    right_SN holds the clean answer, which stands for it. Both are true of all if left out.
    """

    name: str
    right_SN: Bools
    valid_SN: Bools
    control: bool = False
    changed_SN: Bools = field(default_factory=lambda: np.ones((0, 0), dtype=bool))
    shown_SN: Bools = field(default_factory=lambda: np.ones((0, 0), dtype=bool))

    def __post_init__(self) -> None:
        for name in ("changed_SN", "shown_SN"):
            if not getattr(self, name).size:
                object.__setattr__(self, name, np.ones_like(self.valid_SN))
        shapes = [own.shape for own in (self.right_SN, self.valid_SN, self.changed_SN, self.shown_SN)]
        if len(set(shapes)) > 1 or self.right_SN.ndim != 2 or not len(self.right_SN):
            raise DataError(
                f"attacker {self.name!r}: answers, validity, changes and what was shown are {shapes}; all of "
                f"them must be [samples, items]"
            )

    def only(self, items: Sequence[int]) -> Played:
        """The same of these items alone."""
        arrays = (self.right_SN, self.valid_SN, self.changed_SN, self.shown_SN)
        right_SN, valid_SN, changed_SN, shown_SN = (own[:, list(items)] for own in arrays)
        return Played(self.name, right_SN, valid_SN, self.control, changed_SN, shown_SN)


def attack_figures(
    clean_N: Bools, played: Played, clusters: Sequence[object], *, resamples: int, seed: int
) -> dict[str, Any]:
    """The figures of one attacker against one Defender, by the first sample of every item where nothing else
    is said.

    accuracy: right about the edits. asr: wrong about the edit, of the items right when clean;
    asr_unconditional: of all; an edit that was not shown fools nobody. valid: share of edits that leave the
    answer right; valid_asr: as asr, invalid edits counting as no attack; valid_accuracy: accuracy then. drop:
    clean accuracy less accuracy, valid_drop the same of valid edits, both paired and clustered. harmed,
    rescued, net_flips and McNemar's exact p are of all edits. unchanged: edits that left their picture as it
    was, which no other figure counts. asr_at_k: for k = 1, 2, ... the share of items right when clean that
    one of the first k edits turned wrong, of all and of valid edits.
    """
    right_N, valid_N = played.right_SN[0], played.valid_SN[0]
    if clean_N.shape != right_N.shape or len(clusters) != clean_N.size:
        raise DataError(
            f"attacker {played.name!r}: {right_N.size} answers, {clean_N.size} clean ones and "
            f"{len(clusters)} pictures do not belong together"
        )
    changed_N = played.changed_SN[0]
    owners = [cluster for cluster, changed in zip(clusters, changed_N, strict=True) if changed]
    before_N, after_N = clean_N[changed_N], right_N[changed_N]
    as_played_N = np.where(valid_N, right_N, clean_N)[changed_N]
    harmed, rescued = int((before_N & ~after_N).sum()), int((~before_N & after_N).sum())
    fooled_SN = ~played.right_SN & played.changed_SN
    tries = []
    for k in range(1, len(fooled_SN) + 1):
        any_N: Bools = np.logical_or.reduce(fooled_SN[:k])
        any_valid_N: Bools = np.logical_or.reduce(fooled_SN[:k] & played.valid_SN[:k])
        tried_N: Bools = clean_N & np.logical_or.reduce(played.changed_SN[:k])
        tries.append(
            {"k": k, "asr": rate(any_N[tried_N]).as_dict(), "valid_asr": rate(any_valid_N[tried_N]).as_dict()}
        )
    return {
        "control": played.control,
        "samples": len(fooled_SN),
        "unchanged": int((~played.changed_SN).sum()),
        "accuracy": rate(after_N).as_dict(),
        "valid_accuracy": rate(as_played_N).as_dict(),
        "asr": rate(~after_N[before_N]).as_dict(),
        "asr_unconditional": rate((~right_N & played.shown_SN[0])[changed_N]).as_dict(),
        "valid": rate(valid_N[changed_N]).as_dict(),
        "valid_asr": rate((~right_N & valid_N)[clean_N & changed_N]).as_dict(),
        "drop": paired_bootstrap(before_N, after_N, owners, resamples=resamples, seed=seed).as_dict(),
        "valid_drop": paired_bootstrap(
            before_N, as_played_N, owners, resamples=resamples, seed=seed
        ).as_dict(),
        "harmed": harmed,
        "rescued": rescued,
        "net_flips": harmed - rescued,
        "mcnemar": mcnemar_exact(before_N, after_N),
        "asr_at_k": tries,
    }


def robustness_report(
    clean: Sequence[bool], played: Sequence[Played], clusters: Sequence[object], *, resamples: int, seed: int
) -> dict[str, Any]:
    """One Defender against all its attackers: clean accuracy, robust accuracy, the figures of each,
    Holm-adjusted McNemar p-values over the attacks.

    robust_accuracy: right when clean and about every sample of every attack (controls left out);
    valid_robust_accuracy: about every valid edit.
    """
    clean_N = np.asarray(clean, dtype=bool)
    figures = {
        own.name: attack_figures(clean_N, own, clusters, resamples=resamples, seed=seed) for own in played
    }
    if len(figures) != len(played):
        raise DataError(f"two attackers have one name among {[own.name for own in played]}")
    attacks = [own for own in played if not own.control]
    adjusted = holm([figures[own.name]["mcnemar"] for own in attacks])
    for own, p in zip(attacks, adjusted, strict=True):
        figures[own.name]["mcnemar_holm"] = p
    all_N, valid_N = clean_N.copy(), clean_N.copy()
    for own in attacks:
        all_N &= (own.right_SN | ~own.changed_SN).all(0)
        valid_N &= (own.right_SN | ~own.valid_SN | ~own.changed_SN).all(0)
    return {
        "clean_accuracy": rate(clean_N).as_dict(),
        "attacks": len(attacks),
        "robust_accuracy": rate(all_N).as_dict() if attacks else None,
        "valid_robust_accuracy": rate(valid_N).as_dict() if attacks else None,
        "attackers": figures,
    }


def transfer_matrix(
    clean: Mapping[str, Sequence[bool]], made: Mapping[str, Mapping[str, Played]]
) -> dict[str, Any]:
    """Attacks made against one Defender, tried on others. clean: Defender -> right when clean. made: Defender
    S that the edits were made against -> Defender T that answered them -> what T made of them.

    Cells hold T's ASR and valid ASR over the items that T gets right when clean; None where S's edits were
    not put to T.
    """
    targets = list(clean)
    rows = []
    for own in made.values():
        row: list[dict[str, Any] | None] = []
        for target in targets:
            played = own.get(target)
            if played is None:
                row.append(None)
                continue
            clean_N = np.asarray(clean[target], dtype=bool) & played.changed_SN[0]
            wrong_N = ~played.right_SN[0]
            row.append(
                {
                    "asr": rate(wrong_N[clean_N]).as_dict(),
                    "valid_asr": rate((wrong_N & played.valid_SN[0])[clean_N]).as_dict(),
                }
            )
        rows.append(row)
    return {"made_against": list(made), "answered_by": targets, "asr": rows}
