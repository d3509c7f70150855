"""Which proposals are let through: the box check and the prompt check."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files

from sparring.config import BoxSettings
from sparring.data.records import Box, VisualQuestion

_SPLIT = re.compile(r"\s+(?:with|of|in|on|at|from|for|made|that|which|and|near|next|beside)\b")
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")


def related(name: str, other: str) -> bool:
    """The two describe, or may describe, one object: "a red mug" and "cup", "dogs" and "animal", "trash can"
    and "bin"; not two kinds of animal.
    """
    return bool(names(name) & meanings(other) or meanings(name) & names(other))


def mentions(text: str, name: str) -> bool:
    """The text names the object, a synonym of it, its kind, or something of the kind that it is: any one to
    three words of the text in a row.
    """
    phrases, kinds = _phrases(text)
    return bool(phrases & meanings(name) or kinds & names(name))


@lru_cache(maxsize=1024)
def _phrases(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """One to three words of a text in a row, each by the one name of all that mean the same; and the kinds
    that these are of.
    """
    words = [singular(word) for word in _WORD.findall(text.lower())]
    phrases = frozenset(
        _same(" ".join(words[start : start + length]))
        for length in (1, 2, 3)
        for start in range(len(words) - length + 1)
    )
    return phrases, frozenset(kind for phrase in phrases for kind in _above(phrase))


@lru_cache(maxsize=4096)
def names(description: str) -> frozenset[str]:
    """What an object of that description is called: its noun with less and less before it, and the one name
    of all that mean the same as each.
    """
    head = _SPLIT.split(description.lower().strip(), maxsplit=1)[0]
    words = _WORD.findall(head)
    words = [*words[:-1], singular(words[-1])] if words else []
    endings = [" ".join(words[start:]) for start in range(len(words))]
    return frozenset([*endings, *map(_same, endings)])


@lru_cache(maxsize=4096)
def meanings(description: str) -> frozenset[str]:
    """`names`, and the kinds that things of these names are of."""
    return frozenset({kind for name in names(description) for kind in _above(name)} | names(description))


def _above(name: str) -> set[str]:
    """The kinds that a thing of that name is of, and their kinds."""
    found, todo = set[str](), list(_kinds().get(_same(name), ()))
    while todo:
        kind = todo.pop()
        if kind not in found:
            found.add(kind)
            todo += _kinds().get(_same(kind), ())
    return found


def singular(word: str) -> str:
    """A noun's singular, by its ending; a singular that looks like a plural is the same in every text, which
    is all that is needed.
    """
    irregular = {
        "people": "person",
        "men": "man",
        "women": "woman",
        "children": "child",
        "mice": "mouse",
        "knives": "knife",
        "feet": "foot",
    }
    if word in irregular:
        return irregular[word]
    for ending, replacement in (
        ("ies", "y"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("sses", "ss"),
        ("xes", "x"),
        ("shelves", "shelf"),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + replacement
    return (
        word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2 else word
    )


def _same(name: str) -> str:
    """The one name of all that mean the same."""
    return _synonyms().get(name, name)


@cache
def _lines() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    text = files("sparring.forge").joinpath("synonyms.txt").read_text(encoding="utf-8")
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            sign = "=" if "=" in line else ">"
            first, _, rest = line.partition(sign)
            found.append(
                (
                    first.strip(),
                    sign,
                    tuple(" ".join(map(singular, name.split())) for name in rest.split(",")),
                )
            )
    return tuple(found)


@cache
def _synonyms() -> dict[str, str]:
    return {
        " ".join(map(singular, name.split())): first
        for first, sign, names in _lines()
        if sign == "="
        for name in (first, *names)
    }


@cache
def _kinds() -> dict[str, tuple[str, ...]]:
    kinds: dict[str, tuple[str, ...]] = {}
    for kind, sign, names in _lines():
        for name in names if sign == ">" else ():
            kinds[_synonyms().get(name, name)] = (*kinds.get(_synonyms().get(name, name), ()), kind)
    return kinds


Rejection = tuple[str, str]
"""(reason to count by, message)."""


def check_box(
    box: Box, size: tuple[int, int], targets: Sequence[Box], others: Sequence[Box], settings: BoxSettings
) -> Rejection | None:
    """What is wrong with a distractor's box in a picture of (width, height), beside the targets and the other
    distractors; None: nothing.
    """
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    if x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1] or width <= 0 or height <= 0:
        return (
            "box outside the image",
            f"box {list(box)} is empty or lies outside the picture, which is {size[0]} x {size[1]} pixels",
        )
    share = width * height / (size[0] * size[1])
    if min(width, height) < settings.side or share < settings.smallest:
        return "box too small", f"box {list(box)} is {width} x {height} pixels, {share:.4f} of the picture"
    if share > settings.largest:
        return (
            "box too large",
            f"box {list(box)} covers {share:.2f} of the picture; {settings.largest} is the most",
        )
    if max(width, height) > settings.aspect * min(width, height):
        return (
            "box too thin",
            f"box {list(box)} is {max(width, height) / min(width, height):.1f} times as long as wide",
        )
    margin = max(settings.margin, round(settings.margin_share * min(size)))
    for what, boxes in (("a target", targets), ("another proposal", others)):
        for other in boxes:
            if not apart(box, other, margin):
                return (
                    f"box overlaps {what}",
                    f"box {list(box)} is less than {margin} pixels from {what}, {list(other)}, or covers it",
                )
    return None


def apart(a: Box, b: Box, margin: int) -> bool:
    """The boxes keep at least so many pixels between them."""
    return a[2] + margin <= b[0] or b[2] + margin <= a[0] or a[3] + margin <= b[1] or b[3] + margin <= a[1]


def check_object(name: str, question: VisualQuestion) -> Rejection | None:
    """Whether adding that object could change what the question is about; None: it could not, as far as words
    tell.

    It must not be a target, nor a synonym or a kind of one, nor anything that the question or its options
    name.
    """
    if not name.strip() or len(name) > 120 or "\n" in name:
        return "prompt is no object", f"{name[:130]!r} does not describe an object"
    for target in question.targets:
        if related(name, target.name):
            return (
                "prompt names a target",
                f'"{name}" is, or may be, a "{target.name}", which the question is about',
            )
    for text in (question.question, *question.options):
        if mentions(text, name):
            return "prompt changes the answer", f'"{name}" is something that "{text}" speaks of'
    return None
