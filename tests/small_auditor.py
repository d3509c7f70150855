"""An auditor of pictures in a module of its own: the processes of the audit import it."""

from __future__ import annotations

from PIL import Image

from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion


def by_width(question: VisualQuestion, image: Image.Image, limit: int) -> bool | None:
    if question.id == "broken":
        raise DataError('question "broken": cannot be read')
    return None if question.id == "unknown" else image.width < limit


def first_alone(question: VisualQuestion, image: Image.Image) -> bool | None:
    """An auditor that accepts the first question's edits alone, and cannot tell of the last."""
    return None if question.id == "q5" else question.id == "q0"


def breaks(question: VisualQuestion, image: Image.Image) -> bool | None:
    """An auditor with a fault."""
    return {f"q{number}": True for number in (0, 1, 3, 4, 5)}[question.id]
