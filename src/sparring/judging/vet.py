"""The one way in which edits that are to count are judged: what they changed, whether the targets are
intact, whether the right answer still is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL.Image import Image

from sparring.config import JudgeSettings
from sparring.data.errors import DataError
from sparring.data.records import UNCHANGED, Edit, Verdict, VisualQuestion
from sparring.judging.judge import check_edits, same_picture
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
        doubled = [any(own) for own in duplicates.changed_batch(asked, originals, intact)]
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
