"""Counts as they are said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sparring
from sparring.data.words import plural


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 questions"), (1, "1 question"), (2, "2 questions"), (1200, "1200 questions")]
)
def test_a_count_with_its_noun(number: int, said: str) -> None:
    assert plural(number, "question") == said


def test_no_text_leaves_the_reader_to_choose() -> None:
    """Neither "1 questions" nor "question(s)"."""
    for file in Path(sparring.__file__).parent.rglob("*.py"):
        assert not re.search(r"\} [A-Za-z]+\(s\)", file.read_text(encoding="utf-8")), file
