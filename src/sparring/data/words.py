"""How counts are said."""

from __future__ import annotations


def plural(number: int, one: str) -> str:
    """A count with its noun: "1 question", "2 questions"; one: of a single thing, whose plural ends in s."""
    return f"{number} {one}{'' if number == 1 else 's'}"
