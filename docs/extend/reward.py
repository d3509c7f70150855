"""A reward for edits that change little of a picture."""

from __future__ import annotations

import numpy as np
from PIL.Image import Image

from sparring.data.records import Answer, Verdict, VisualQuestion


def small_change(
    question: VisualQuestion,
    clean: Image,
    edited: Image,
    verdict: Verdict,
    answers: tuple[Answer, ...],
    *,
    share: float = 0.25,
    level: int = 12,
) -> float:
    """1 where nothing changed; 0 where `share` of the pixels or more changed by over `level` grey levels.

    Paid only where the Defender was fooled at least once: an edit that does nothing is no attack.
    """
    if verdict.efficacy == 0:
        return 0.0
    before, after = (np.asarray(image, dtype=np.int16) for image in (clean, edited))
    changed = (np.abs(after - before).max(axis=2) > level).mean()
    return float(max(0.0, 1.0 - changed / share))
