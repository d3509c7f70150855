"""Texts that every file and every server can hold."""

from __future__ import annotations

import re

HALF_PAIR = re.compile("[\ud800-\udfff]")


def storable(text: str) -> str:
    """The text, with U+FFFD for every half of a surrogate pair: JSON can spell one, and neither UTF-8 nor SQLite nor Arrow can hold it."""
    return HALF_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)
