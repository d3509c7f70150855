"""The one way in which edits that are to count are judged: what they changed, whether the targets are
intact, whether the right answer still is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from sparring.config import JudgeSettings
from sparring.data.errors import DataError
from sparring.data.records import UNCHANGED, Edit, Verdict, VisualQuestion
from sparring.judging.integrity import local_ssim
from sparring.judging.light import LightChange, excess, light_change
from sparring.judging.rewards import Gate
from sparring.judging.validity import DuplicateCheck

Audit = Callable[[Sequence[VisualQuestion], Sequence[Image]], list[bool | None]]


def vet(
    questions: Sequence[VisualQuestion],
    cleans: Sequence[Image],
    edits: Sequence[Edit],
    *,
    settings: JudgeSettings,
    duplicates: DuplicateCheck | None,
    device: torch.device,
    audit: Audit | None = None,
) -> list[Verdict]:
    """One verdict on each edit, one edit a question; whom it fools is not asked here.

    A picture that came back as it was is no attack: it is `unchanged`, and nobody is asked about it.
    Integrity, computed on `device`, is of the targets where they were: a canvas may have been widened on the
    right or at the bottom. Judge and auditor see the whole picture, since a second instance may stand on the
    new strip; the auditor only edits that pass. DataError, naming the question, for an edit that is smaller
    than its picture.
    """
    changed = [
        place
        for place, (edit, clean) in enumerate(zip(edits, cleans, strict=True))
        if not same_picture(edit.image, clean)
    ]
    asked = [questions[i] for i in changed]
    shown = [_where_it_was(questions[i], edits[i].image, cleans[i]) for i in changed]
    originals, pictures = [cleans[i] for i in changed], [edits[i].image for i in changed]
    gates = [
        gate
        for (gate,) in check_edits(asked, originals, [[image] for image in shown], settings, None, device)
    ]
    doubled = [False] * len(gates)
    if duplicates is not None:
        intact = [[picture] if gate.intact else [] for picture, gate in zip(pictures, gates, strict=True)]
        doubled = [any(own) for own in duplicates.changed(asked, originals, intact)]
    passed = [place for place, gate in enumerate(gates) if gate.intact and not doubled[place]]
    heard = (
        audit([asked[i] for i in passed], [pictures[i] for i in passed])
        if audit is not None
        else [None] * len(passed)
    )
    words = dict(zip(passed, heard, strict=True))
    verdicts = [
        Verdict(question.id, 1.0, True, False, 0.0, 0.0, notes={UNCHANGED: 1.0}) for question in questions
    ]
    for place, (i, gate) in enumerate(zip(changed, gates, strict=True)):
        verdicts[i] = Verdict(
            questions[i].id,
            gate.integrity,
            gate.intact,
            doubled[place],
            0.0,
            0.0,
            label_valid=words.get(place),
            notes=gate.notes,
        )
    return verdicts


def _where_it_was(question: VisualQuestion, edited: Image, clean: Image) -> Image:
    if edited.width < clean.width or edited.height < clean.height:
        raise DataError(
            f'question "{question.id}": the edit is {edited.width} x {edited.height} pixels, smaller than '
            f"its clean picture of {clean.width} x {clean.height}"
        )
    return edited if edited.size == clean.size else edited.crop((0, 0, clean.width, clean.height))


PIXELS_AT_ONCE = 2**25  # of edited pictures in one call of local SSIM: bounds memory for large pictures


def check_edits(
    questions: Sequence[VisualQuestion],
    clean_images: Sequence[Image],
    edits: Sequence[Sequence[Image]],
    settings: JudgeSettings,
    duplicates: DuplicateCheck | None,
    device: torch.device,
) -> list[list[Gate]]:
    """Integrity of every edit, on `device`; its light where that is guarded; the duplicate check of the
    intact ones.

    Errors as for `AttackJudge.judge`.
    """
    integrity = _integrity(questions, clean_images, edits, device)
    light = _light(questions, clean_images, edits, settings)
    relit = [
        [
            change is not None and excess(change, settings.light_level, settings.light_spread) > 0
            for change in own
        ]
        for own in light
    ]
    intact = [
        [value >= settings.integrity_threshold and not lit for value, lit in zip(*own, strict=True)]
        for own in zip(integrity, relit, strict=True)
    ]
    duplicate = [[False] * len(own) for own in edits]
    if duplicates is not None:
        to_check = [[e for e, whole in enumerate(own) if whole] for own in intact]
        changed = duplicates.changed(
            questions, clean_images, [[edits[q][e] for e in own] for q, own in enumerate(to_check)]
        )
        for q, own in enumerate(to_check):
            for e, other in zip(own, changed[q], strict=True):
                duplicate[q][e] = other
    together = zip(integrity, intact, duplicate, light, relit, strict=True)
    return [[Gate(*each) for each in zip(*own, strict=True)] for own in together]


def same_picture(edit: Image, clean: Image) -> bool:
    """Do the two show the same pixels?"""
    return edit.size == clean.size and edit.convert("RGB").tobytes() == clean.convert("RGB").tobytes()


def _light(
    questions: Sequence[VisualQuestion],
    clean_images: Sequence[Image],
    edits: Sequence[Sequence[Image]],
    settings: JudgeSettings,
) -> list[list[LightChange | None]]:
    """The change of light of every edit; None where no limit is set."""
    if settings.light_level is None and settings.light_spread is None:
        return [[None] * len(own) for own in edits]
    found: list[list[LightChange | None]] = []
    for question, clean, own in zip(questions, clean_images, edits, strict=True):
        before, boxes = np.asarray(clean.convert("RGB")), [target.box for target in question.targets]
        found.append([light_change(before, np.asarray(edit.convert("RGB")), boxes) for edit in own])
    return found


def _integrity(
    questions: Sequence[VisualQuestion],
    clean_images: Sequence[Image],
    edits: Sequence[Sequence[Image]],
    device: torch.device,
) -> list[list[float]]:
    """Local SSIM of every edit, in one call a picture size."""
    if not len(questions) == len(clean_images) == len(edits):
        raise DataError(
            f"{len(questions)} questions, {len(clean_images)} clean pictures and {len(edits)} lists of "
            f"edits do not belong together"
        )
    by_size: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for q, (question, clean) in enumerate(zip(questions, clean_images, strict=True)):
        _check(question, clean, edits[q])
        by_size.setdefault(clean.size, []).extend((q, e) for e in range(len(edits[q])))
    values = [[0.0] * len(own) for own in edits]
    for (width, height), places in by_size.items():
        at_once = max(1, PIXELS_AT_ONCE // (width * height))
        for start in range(0, len(places), at_once):
            part = places[start : start + at_once]
            cleans = {q: _pixels(clean_images[q]) for q in {q for q, _ in part}}
            clean_BCHW = torch.stack([cleans[q] for q, _ in part]).to(device)
            edited_BCHW = torch.stack([_pixels(edits[q][e]) for q, e in part]).to(device)
            boxes = [[target.box for target in questions[q].targets] for q, _ in part]
            for (q, e), value in zip(part, local_ssim(clean_BCHW, edited_BCHW, boxes).tolist(), strict=True):
                values[q][e] = value
    return values


def _check(question: VisualQuestion, clean: Image, edits: Sequence[Image]) -> None:
    for number, edit in enumerate(edits):
        if edit.size != clean.size:
            raise DataError(
                f'question "{question.id}": edit {number} is {edit.width} x {edit.height} pixels, its clean '
                f"picture {clean.width} x {clean.height}. An editor must give back pictures of the size it "
                f"was given."
            )
    for target in question.targets:
        x0, y0, x1, y1 = target.box
        if not (0 <= x0 < x1 <= clean.width and 0 <= y0 < y1 <= clean.height):
            raise DataError(
                f'question "{question.id}": box {list(target.box)} of target "{target.name}" is empty or '
                f"lies outside the picture, which is {clean.width} x {clean.height} pixels"
            )


def _pixels(image: Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
