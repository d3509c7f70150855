"""Options and the right answer, as a record has them: one rule for every layout and every verb (written out
in docs/data.md).

A record has options in a list or mapping (`options`, `choices`), in columns A, B, ..., or in the question's
text. Its answer is a letter, an option's text, the number of an option, or a list of references. Which of
these the answers of a file are, all its records say together (`Answers`): "3" among the options 1, 2, 3, 4 is
a text, unless other records show that the file counts options.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sparring.data.errors import Fault
from sparring.data.pictures import is_empty
from sparring.data.records import LETTERS
from sparring.data.tables import ASKING, KINDS, text_of

LISTS = ("options", "choices")
TEXTS = ASKING
ANSWERS = ("answer", "label", "gt_answer", "answers", "correct_answer")
LINES = re.compile(r"(?:^|\n)[ \t]*\(?([A-Z]|[a-z])[.):][ \t]*([^\n]+)")
INLINE = re.compile(r"\(([A-Z])\)\s*([^()\n]+?)\s*(?=\([A-Z]\)|\n|$)")
LISTED = re.compile(r"\b(?:Options|Choices)\s*:\s*(?=\(?A[.):]\s)", re.IGNORECASE)
LABEL = re.compile(
    r"\s*(?:(?i:option|choice)\s+)?"
    r"(?:[(\[（]([A-Za-z]|\d{1,2})[)\]）]\s*"
    r"|([A-Za-z])(?:[):：、．）]\s*|\.\s+|\.(?=[A-Za-z][a-z]|\d|[^\x00-\x7f]))"  # "A.D." and "a.m." have no label
    r"|(\d{1,2})[.)、．）]\s+"
    r"|\*\*[(\[]?([A-Za-z])[)\]]?[.):]?\*\*[.):]?\s*"
    r"|([A-Za-z])\s+[-–—]\s+(?![A-Za-z]$))(?=\S)"  # "A - B" is a line
)
COLUMN = re.compile(r"(?:(?:option|choice)[ _-]?)?([a-z])|(?:option|choice)[ _-]?(\d{1,2})", re.IGNORECASE)
LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.):]?")


@dataclass(frozen=True, slots=True)
class Options:
    """A record's options in the order of the data. labels: what the data call them, where they do; embedded:
    they stand in the question.

    numeric: they are numbers, not texts, in the data.
    """

    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    embedded: bool = False
    numeric: bool = False


def options_of(values: Mapping[str, Any]) -> tuple[str, Options]:
    """(the question without options that stand in it, the options). Raises Fault where an option is
    missing or of no use."""
    question = text_of(values, *TEXTS)
    if is_open(values):
        return question, Options()
    for name in LISTS:
        if not is_empty(values.get(name)):
            found = _listed(name, values[name])
            if found.texts:
                return _without(question, found), found
    columns = {letter: values[letter] for letter in string.ascii_uppercase if letter in values}
    if not all(is_empty(value) for value in columns.values()):
        found = _without_labels(_texts("option", columns))
        return _without(question, found), found
    if not columns and (named := _named_columns(values)):
        texts = _texts("option", dict(zip(LETTERS, named.values(), strict=False)))
        found = _without_labels(texts)
        found = found if found.labels else Options(found.texts, tuple(named)[: len(texts)])
        return _without(question, found), found
    question, texts = embedded_options(question)
    return question, Options(texts, embedded=True)


def _named_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Label -> cell of columns such as option_a, option_b, choice1 or a, b: those that follow one another
    from a, 0 or 1 on; none where they are fewer than two."""
    cells = dict[str, Any]()
    for key, value in values.items():
        if match := COLUMN.fullmatch(key):
            cells.setdefault(_label(match[1] or match[2]), value)
    for first in (list(LETTERS), [str(n) for n in range(27)], [str(n) for n in range(1, 27)]):
        run = list(takewhile(cells.__contains__, first))
        if len(run) > 1 and not all(is_empty(cells[label]) for label in run):
            return {label: cells[label] for label in run}
    return {}


def _without(question: str, options: Options) -> str:
    """The question without a list of the very options, whose letters would not be those that are shown."""
    rest, texts = embedded_options(question)
    return rest if rest and tuple(map(_plain, texts)) == tuple(map(_plain, options.texts)) else question


def is_open(values: Mapping[str, Any]) -> bool:
    """Does the record say itself that its answer is free?"""
    kind = str(values.get("question_type") or "").lower()
    return any(word in kind for word in ("open", "free", "short"))


def _listed(name: str, value: Any) -> Options:
    """Options of a field: a list, a mapping, or a text that holds one."""
    if isinstance(value, str):
        value = _parsed(name, value)
    if isinstance(value, Mapping):
        return _mapped(name, value)
    if not isinstance(value, list | tuple):
        raise Fault(
            "wrong type",
            f"{name} is {KINDS.get(type(value), type(value).__name__)}; it must be a list of texts.",
        )
    pairs = [_pair(part) for part in value]
    if value and all(pair is not None for pair in pairs):
        return _mapped(name, dict(pair for pair in pairs if pair is not None))
    return _without_labels(
        _texts(name, dict(enumerate(value))), numeric=bool(value) and not isinstance(value[0], str)
    )


def _parsed(name: str, text: str) -> Any:
    """A list or mapping that is written as JSON, as Python, or as lettered lines."""
    if not text.strip().startswith(("[", "{")):
        _, texts = embedded_options("Options: " + text if "\n" not in text.strip() else "\n" + text)
        if not texts:
            raise Fault(
                "wrong type", f"{name} is a text; it must be a list of texts, and {text[:60]!r} is none."
            )
        return list(texts)
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list | tuple | dict):
            return found
    raise Fault("wrong type", f"{name}: {text[:60]!r} is no list.")


def python_list(text: str, name: str) -> list[Any]:
    """A list written as JSON or as Python literals. Raises Fault where it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    raise Fault("broken JSON", f"{name}: {text[:60]!r} is no list.")


def _pair(part: Any) -> tuple[Any, Any] | None:
    """(label, text) of an option that is an object of its own."""
    if not isinstance(part, Mapping):
        return None
    label = next((part[key] for key in ("label", "key", "id", "letter") if key in part), None)
    text = next((part[key] for key in ("text", "value", "content", "option") if key in part), None)
    return None if label is None or text is None else (label, text)


def _mapped(name: str, value: Mapping[Any, Any]) -> Options:
    """Options under letters or numbers, or as {"text": [...], "label": [...]}."""
    texts, labels = value.get("text"), value.get("label")
    if isinstance(texts, list) and isinstance(labels, list):
        if len(texts) != len(labels):
            raise Fault("number of options", f"{name} has {len(texts)} texts and {len(labels)} labels.")
        value = dict(zip(labels, texts, strict=True))
        if len(value) != len(texts):
            raise Fault("duplicate option", f"{name} has a label twice.")
    keys = [_label(str(key)) for key in value]
    letters = all(key in list(LETTERS) for key in keys)
    if not letters and not all(key.isdigit() for key in keys):
        raise Fault(
            "wrong type",
            f"{name} is an object with the keys {', '.join(map(str, value))[:80]}; they must be letters.",
        )
    ordered = sorted(zip(keys, value.values(), strict=True), key=lambda pair: (len(pair[0]), pair[0]))
    found = _texts(name, dict(ordered))
    return Options(found, tuple(key for key, _ in ordered)[: len(found)])


def _label(key: str) -> str:
    """A key without brackets and words around it: "(A)", "option_a" and "a" are A."""
    key = re.sub(r"^(?:option|choice)[ _-]?", "", key.strip(), flags=re.IGNORECASE).strip("().: ")
    return key.upper() if len(key) == 1 else key


def _texts(name: str, cells: Mapping[Any, Any]) -> tuple[str, ...]:
    """Options as texts. Empty cells end them; one before others is missing, and is refused."""
    given = list(cells.items())
    while given and is_empty(given[-1][1]):
        given.pop()
    found = []
    for place, (key, value) in enumerate(given):
        where = f"{name}[{key}]" if name in LISTS else f"{name} {key}"
        if place < 26 and name == "option" and key != LETTERS[place]:
            raise Fault("empty text", f"option {LETTERS[place]} is missing, though {key} is there.")
        if is_empty(value):
            raise Fault(
                "empty text",
                f"{where} is empty, though {given[-1][0]} is there. Fill it in, or leave the record out.",
            )
        if isinstance(value, list | tuple | Mapping):
            raise Fault("wrong type", f"{where} is {KINDS.get(type(value), 'a list')}; it must be a text.")
        found.append(check_text(where, str(value).strip()))
    return tuple(found)


def check_text(name: str, text: str) -> str:
    """The text. Raises Fault where it is empty or holds what no model can be told."""
    if not text.strip():
        raise Fault("empty text", f"{name} is empty.")
    if any((char < " " and not char.isspace()) or char == "\x7f" for char in text):
        raise Fault("wrong type", f"{name} holds control characters.")
    halves = [char for char in text if "\ud800" <= char <= "\udfff"]
    # how Python reads bytes that are no text
    if halves and all("\udc80" <= char <= "\udcff" for char in halves):
        raise Fault("not UTF-8", f"{name} holds bytes that are not UTF-8. Save the file as UTF-8.")
    if halves:
        raise Fault("wrong type", f"{name} holds half of a surrogate pair.")
    return text


def _without_labels(texts: tuple[str, ...], numeric: bool = False) -> Options:
    """Options without the letters or numbers that they carry in their own texts ("A. below"), where all
    carry a label of the first few."""
    matches = [LABEL.match(text) for text in texts]
    if len(texts) < 2 or not all(matches):
        return Options(texts, numeric=numeric)
    labels = [_label(next(part for part in match.groups() if part)) for match in matches if match]
    first = [*LETTERS[: len(texts)]], [str(place + 1) for place in range(len(texts))]
    if sorted(labels) != first[0] and labels != first[1]:
        return Options(texts, numeric=numeric)
    return Options(
        tuple(text[match.end() :].strip() for text, match in zip(texts, matches, strict=True) if match),
        tuple(labels),
    )


def embedded_options(question: str) -> tuple[str, tuple[str, ...]]:
    """(the question without the options that stand in its text, these).

    They are one a line ("A. red"), in brackets ("(A) red (B) green"), or listed ("Options: A: red, B:
    green").
    """
    if match := LISTED.search(question):
        texts = _in_a_row(question[match.end() :])
        if len(texts) > 1:
            return question[: match.start()].strip(), texts
    for pattern in (LINES, INLINE):
        found = list(pattern.finditer(question))
        if len(found) > 1 and "".join(match[1] for match in found) in (
            LETTERS[: len(found)],
            LETTERS[: len(found)].lower(),
        ):
            return re.sub(
                r"\s*\b(?:Options|Choices)\s*:\s*$", "", question[: found[0].start()]
            ).strip(), tuple(m[2].strip() for m in found)
    return question, ()


def _in_a_row(text: str) -> tuple[str, ...]:
    """The options of "A: red, B: green", whose letters come one after another."""
    starts = list[re.Match[str]]()
    for letter in LETTERS:
        pattern = re.compile(rf"(?:^|[,;|]?\s+)\(?{letter}[.):]\s*")
        found = pattern.search(text, starts[-1].end() if starts else 0)
        if found is None:
            break
        starts.append(found)
    ends = [match.start() for match in starts[1:]] + [len(text)]
    ends[-1:] = [end if (end := text.find("\n", starts[-1].end())) >= 0 else len(text)] if starts else []
    return tuple(
        text[match.end() : end].strip().rstrip(",;|").strip() for match, end in zip(starts, ends, strict=True)
    )


# ---- the right answer


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
