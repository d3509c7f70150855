"""What every gallery of the viewer gives: filters, a page of tiles, one exhibit with its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlencode

from sparring.data.records import LETTERS, Target

Key = Mapping[str, str]
"""What tells an exhibit of a work from all others; part of its address."""
Filters = Mapping[str, str]
Outcome = Literal["fooled", "held", "rejected", "waiting", "right", "wrong"]
OUTCOMES: dict[Outcome, str] = {
    "fooled": "fooled",
    "held": "not fooled",
    "rejected": "rejected",
    "waiting": "not yet asked",
    "right": "right",
    "wrong": "wrong",
}
PAGE = 60
"""Tiles of a page."""


@dataclass(frozen=True, slots=True)
class Facet:
    """One filter, or the order: its name in addresses, its label, (value, words) of what may be chosen."""

    name: str
    label: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of the pictures before and after; None where there is none."""

    before: Path | None
    after: Path | None


@dataclass(frozen=True, slots=True)
class Tile:
    """An exhibit in a page of many. marks: (Defender, was it right)."""

    key: Key
    title: str
    note: str
    outcome: Outcome
    figure: str
    pair: Pair
    marks: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a Defender said about one of the two pictures."""

    text: str
    choice: str | None
    right: bool
    probability: float | None = None
    tokens: int | None = None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """A Defender with its replies about the picture before and after, one a trial."""

    name: str
    before: tuple[Reply, ...]
    after: tuple[Reply, ...]

    @property
    def flipped(self) -> bool:
        """Right before, wrong after."""
        return bool(self.after) and all(r.right for r in self.before) and not all(r.right for r in self.after)


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a table; bad: it speaks against the edit."""

    label: str
    value: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One edit, candidate or item with all that is known of it. kind: of attack, where it was recorded."""

    key: Key
    pair: Pair
    outcome: Outcome
    question: str
    options: tuple[str, ...]
    answer: str
    kind: str | None = None
    targets: tuple[Target, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    verdict: tuple[Fact, ...] = ()
    parts: tuple[tuple[str, float], ...] = ()
    reward: float | None = None
    origin: tuple[Fact, ...] = ()
    related: tuple[Tile, ...] = ()
    related_title: str = ""

    def option(self, letter: str | None) -> str:
        """A choice with its option's text."""
        if letter is None:
            return "no option"
        if len(letter) != 1 or letter not in LETTERS[: len(self.options)]:
            return letter
        return f"{letter}. {self.options[LETTERS.index(letter)]}"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Where an exhibit stands among those that the filters let pass: its place from 1 (None: they do not),
    how many there are, and the keys before and after it."""

    place: int | None
    of: int
    before: Key | None = None
    after: Key | None = None


@dataclass(frozen=True, slots=True)
class Tiles:
    """One page of a gallery; `of` tiles pass the filters."""

    tiles: tuple[Tile, ...] = ()
    of: int = 0
    start: int = 0
    notes: tuple[str, ...] = field(default=())


class Gallery(Protocol):
    """The exhibits of one work."""

    keys: Sequence[str]
    """The names of a key's parts."""

    def facets(self) -> list[Facet]:
        """The filters, and last the order under the name "sort"."""
        ...

    def page(self, filters: Filters, start: int, most: int = PAGE) -> Tiles:
        """Tiles from place `start` (0 is the first) on."""
        ...

    def exhibit(self, key: Key) -> Exhibit | None:
        """One exhibit; None where there is none of that key."""
        ...

    def neighbours(self, key: Key, filters: Filters) -> Neighbours:
        """What comes before and after an exhibit under these filters."""
        ...

    def pair(self, key: Key) -> Pair | None:
        """The files of an exhibit's pictures, and nothing else; None where there is none of that key."""
        ...


def address(path: str, *parts: Mapping[str, str], **more: str | int) -> str:
    """An address of this viewer with its query; what is empty is left out."""
    pairs = {
        name: str(value) for part in (*parts, more) for name, value in part.items() if value not in ("", None)
    }
    return path + (f"?{urlencode(pairs)}" if pairs else "")


def inside(folder: Path, name: str | None) -> Path | None:
    """The file that a database names below its folder; None for a name that leads out of it."""
    if not name:
        return None
    root = folder.resolve()
    path = (root / name).resolve()
    return path if path.is_relative_to(root) else None
