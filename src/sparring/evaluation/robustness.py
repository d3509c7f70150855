"""What attacks on pictures do to Defenders: attack success, robust accuracy, flips, transfer, from answers that are already there.

Two readings stand side by side. *All* edits count as they are. *Valid* ones alone leave the right answer right: every target intact by local SSIM,
no queried object added or lost, no objection from an auditor, as far as each of these was there to ask. What is not valid is no attack, and the
answer to the clean picture stands there (as in `evaluation.payoff`).

Controls are played like attacks and never enter robust accuracy: the unchanged picture asked again (the noise floor), an editor's round trip, a
benign edit, whatever else costs pixels and means no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from sparring.config import JudgeSettings
from sparring.data.errors import DataError
from sparring.data.records import Edit, VisualQuestion
from sparring.evaluation.statistics import holm, mcnemar_exact, paired_bootstrap, rate
from sparring.judging.judge import check_edits
from sparring.judging.rewards import Gate
from sparring.judging.validity import DuplicateCheck

Bools = NDArray[np.bool_]


def gate_edits(
    questions: Sequence[VisualQuestion],
    cleans: Sequence[Image],
    edits: Sequence[Edit],
    settings: JudgeSettings,
    duplicates: DuplicateCheck | None,
    device: torch.device,
) -> list[Gate]:
    """The checks of one edit a question. A picture on a canvas that was widened on the right or at the bottom is checked where it was.

    DataError, naming the question, for an edit that is smaller than its picture.
    """
    shown = [
        edit.image if edit.image.size == clean.size else _where_it_was(question, edit.image, clean)
        for question, edit, clean in zip(questions, edits, cleans, strict=True)
    ]
    # Integrity is of the targets where they were; a second instance may as well stand on the new strip.
    found = [own[0] for own in check_edits(questions, cleans, [[image] for image in shown], settings, None, device)]
    if duplicates is None:
        return found
    changed = duplicates.changed_batch(
        questions, cleans, [[edit.image] if gate.intact else [] for edit, gate in zip(edits, found, strict=True)]
    )
    return [replace(gate, duplicate=bool(own and own[0])) for gate, own in zip(found, changed, strict=True)]


def _where_it_was(question: VisualQuestion, edited: Image, clean: Image) -> Image:
    if edited.width < clean.width or edited.height < clean.height:
        raise DataError(
            f'question "{question.id}": the edit is {edited.width} x {edited.height} pixels, smaller than its clean picture of {clean.width} x {clean.height}'
        )
    return edited.crop((0, 0, clean.width, clean.height))


@dataclass(frozen=True, slots=True)
class Played:
    """One attacker's edits as one Defender answered them. right_SN: samples S of every item N; valid_SN: the edit leaves the answer right."""

    name: str
    right_SN: Bools
    valid_SN: Bools
    control: bool = False

    def __post_init__(self) -> None:
        if self.right_SN.shape != self.valid_SN.shape or self.right_SN.ndim != 2 or not len(self.right_SN):
            raise DataError(
                f"attacker {self.name!r}: answers {self.right_SN.shape} and validity {self.valid_SN.shape} must be [samples, items]"
            )


def attack_figures(clean_N: Bools, played: Played, clusters: Sequence[object], *, resamples: int, seed: int) -> dict[str, Any]:
    """The figures of one attacker against one Defender, by the first sample of every item where nothing else is said.

    accuracy: right about the edits. asr: wrong about the edit, of the items right when clean; asr_unconditional: of all. valid: share of edits that
    leave the answer right; valid_asr: as asr, invalid edits counting as no attack; valid_accuracy: accuracy then. drop: clean accuracy less accuracy,
    valid_drop the same of valid edits, both paired and clustered. harmed, rescued, net_flips and McNemar's exact p are of all edits.
    asr_at_k: for k = 1, 2, ... the share of items right when clean that one of the first k edits turned wrong, of all and of valid edits.
    """
    right_N, valid_N = played.right_SN[0], played.valid_SN[0]
    if clean_N.shape != right_N.shape or len(clusters) != clean_N.size:
        raise DataError(
            f"attacker {played.name!r}: {right_N.size} answers, {clean_N.size} clean ones and {len(clusters)} pictures do not belong together"
        )
    as_played_N = np.where(valid_N, right_N, clean_N)
    harmed, rescued = int((clean_N & ~right_N).sum()), int((~clean_N & right_N).sum())
    fooled_SN = ~played.right_SN
    tries = []
    for k in range(1, len(fooled_SN) + 1):
        any_N: Bools = np.logical_or.reduce(fooled_SN[:k])
        any_valid_N: Bools = np.logical_or.reduce(fooled_SN[:k] & played.valid_SN[:k])
        tries.append({"k": k, "asr": rate(any_N[clean_N]).as_dict(), "valid_asr": rate(any_valid_N[clean_N]).as_dict()})
    return {
        "control": played.control,
        "samples": len(fooled_SN),
        "accuracy": rate(right_N).as_dict(),
        "valid_accuracy": rate(as_played_N).as_dict(),
        "asr": rate(~right_N[clean_N]).as_dict(),
        "asr_unconditional": rate(~right_N).as_dict(),
        "valid": rate(valid_N).as_dict(),
        "valid_asr": rate((~right_N & valid_N)[clean_N]).as_dict(),
        "drop": paired_bootstrap(clean_N, right_N, clusters, resamples=resamples, seed=seed).as_dict(),
        "valid_drop": paired_bootstrap(clean_N, as_played_N, clusters, resamples=resamples, seed=seed).as_dict(),
        "harmed": harmed,
        "rescued": rescued,
        "net_flips": harmed - rescued,
        "mcnemar": mcnemar_exact(clean_N, right_N),
        "asr_at_k": tries,
    }


def robustness_report(
    clean: Sequence[bool], played: Sequence[Played], clusters: Sequence[object], *, resamples: int, seed: int
) -> dict[str, Any]:
    """One Defender against all its attackers: clean accuracy, robust accuracy, the figures of each, Holm-adjusted McNemar p-values over the attacks.

    robust_accuracy: right when clean and about every sample of every attack (controls left out); valid_robust_accuracy: about every valid edit.
    """
    clean_N = np.asarray(clean, dtype=bool)
    figures = {own.name: attack_figures(clean_N, own, clusters, resamples=resamples, seed=seed) for own in played}
    if len(figures) != len(played):
        raise DataError(f"two attackers have one name among {[own.name for own in played]}")
    attacks = [own for own in played if not own.control]
    adjusted = holm([figures[own.name]["mcnemar"] for own in attacks])
    for own, p in zip(attacks, adjusted, strict=True):
        figures[own.name]["mcnemar_holm"] = p
    all_N, valid_N = clean_N.copy(), clean_N.copy()
    for own in attacks:
        all_N &= own.right_SN.all(0)
        valid_N &= (own.right_SN | ~own.valid_SN).all(0)
    return {
        "clean_accuracy": rate(clean_N).as_dict(),
        "attacks": len(attacks),
        "robust_accuracy": rate(all_N).as_dict() if attacks else None,
        "valid_robust_accuracy": rate(valid_N).as_dict() if attacks else None,
        "attackers": figures,
    }


def transfer_matrix(clean: Mapping[str, Sequence[bool]], made: Mapping[str, Mapping[str, Played]]) -> dict[str, Any]:
    """Attacks made against one Defender, tried on others. clean: Defender -> right when clean. made: Defender S that the edits were made against ->
    Defender T that answered them -> what T made of them.

    Cells hold T's ASR and valid ASR over the items that T gets right when clean; None where S's edits were not put to T.
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
            clean_N = np.asarray(clean[target], dtype=bool)
            wrong_N = ~played.right_SN[0]
            row.append({"asr": rate(wrong_N[clean_N]).as_dict(), "valid_asr": rate((wrong_N & played.valid_SN[0])[clean_N]).as_dict()})
        rows.append(row)
    return {"made_against": list(made), "answered_by": targets, "asr": rows}
