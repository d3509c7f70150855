"""Whether two names may mean the same thing: synonyms, kinds, plurals, and the nouns that descriptions end with."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files

_SPLIT = re.compile(r"\s+(?:with|of|in|on|at|from|for|made|that|which|and|near|next|beside)\b")
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")


def related(name: str, other: str) -> bool:
    """The two describe, or may describe, one object: "a red mug" and "cup", "dogs" and "animal", "trash can" and "bin"; not two kinds of animal."""
    return bool(names(name) & meanings(other) or meanings(name) & names(other))


def mentions(text: str, name: str) -> bool:
    """The text names the object, a synonym of it, its kind, or something of the kind that it is: any one to three words of the text in a row."""
    phrases, kinds = _phrases(text)
    return bool(phrases & meanings(name) or kinds & names(name))


@lru_cache(maxsize=1024)
def _phrases(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """One to three words of a text in a row, each by the one name of all that mean the same; and the kinds that these are of."""
    words = [singular(word) for word in _WORD.findall(text.lower())]
    phrases = frozenset(_same(" ".join(words[start : start + length])) for length in (1, 2, 3) for start in range(len(words) - length + 1))
    return phrases, frozenset(kind for phrase in phrases for kind in _above(phrase))


@lru_cache(maxsize=4096)
def names(description: str) -> frozenset[str]:
    """What an object of that description is called: its noun with less and less before it, and the one name of all that mean the same as each."""
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
    """A noun's singular, by its ending; a singular that looks like a plural is the same in every text, which is all that is needed."""
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
    for ending, replacement in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"), ("shelves", "shelf")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + replacement
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2 else word


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
            found.append((first.strip(), sign, tuple(" ".join(map(singular, name.split())) for name in rest.split(","))))
    return tuple(found)


@cache
def _synonyms() -> dict[str, str]:
    return {" ".join(map(singular, name.split())): first for first, sign, names in _lines() if sign == "=" for name in (first, *names)}


@cache
def _kinds() -> dict[str, tuple[str, ...]]:
    kinds: dict[str, tuple[str, ...]] = {}
    for kind, sign, names in _lines():
        for name in names if sign == ">" else ():
            kinds[_synonyms().get(name, name)] = (*kinds.get(_synonyms().get(name, name), ()), kind)
    return kinds
