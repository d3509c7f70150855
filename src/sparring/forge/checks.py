"""Which proposals are let through: the box check and the prompt check."""

from __future__ import annotations

from collections.abc import Sequence

from sparring.config import BoxSettings
from sparring.data.records import Box, VisualQuestion
from sparring.forge.words import mentions, related

Rejection = tuple[str, str]
"""(reason to count by, message)."""


def check_box(box: Box, size: tuple[int, int], targets: Sequence[Box], others: Sequence[Box], settings: BoxSettings) -> Rejection | None:
    """What is wrong with a distractor's box in a picture of (width, height), beside the targets and the other distractors; None: nothing."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    if x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1] or width <= 0 or height <= 0:
        return "box outside the image", f"box {list(box)} is empty or lies outside the picture, which is {size[0]} x {size[1]} pixels"
    share = width * height / (size[0] * size[1])
    if min(width, height) < settings.side or share < settings.smallest:
        return "box too small", f"box {list(box)} is {width} x {height} pixels, {share:.4f} of the picture"
    if share > settings.largest:
        return "box too large", f"box {list(box)} covers {share:.2f} of the picture; {settings.largest} is the most"
    if max(width, height) > settings.aspect * min(width, height):
        return "box too thin", f"box {list(box)} is {max(width, height) / min(width, height):.1f} times as long as wide"
    margin = max(settings.margin, round(settings.margin_share * min(size)))
    for what, boxes in (("a target", targets), ("another proposal", others)):
        for other in boxes:
            if not apart(box, other, margin):
                return f"box overlaps {what}", f"box {list(box)} is less than {margin} pixels from {what}, {list(other)}, or covers it"
    return None


def apart(a: Box, b: Box, margin: int) -> bool:
    """The boxes keep at least so many pixels between them."""
    return a[2] + margin <= b[0] or b[2] + margin <= a[0] or a[3] + margin <= b[1] or b[3] + margin <= a[1]


def check_object(name: str, question: VisualQuestion) -> Rejection | None:
    """Whether adding that object could change what the question is about; None: it could not, as far as words tell.

    It must not be a target, nor a synonym or a kind of one, nor anything that the question or its options name.
    """
    if not name.strip() or len(name) > 120 or "\n" in name:
        return "prompt is no object", f"{name[:130]!r} does not describe an object"
    for target in question.targets:
        if related(name, target.name):
            return "prompt names a target", f'"{name}" is, or may be, a "{target.name}", which the question is about'
    for text in (question.question, *question.options):
        if mentions(text, name):
            return "prompt changes the answer", f'"{name}" is something that "{text}" speaks of'
    return None
