"""VQA's answer normalisation and soft score (Goyal et al. 2017, visualqa.org/evaluation.html), in the
official reading and in those of two harnesses.

Quirks are kept, because they decide scores: the pattern that strips full stops was meant to spare decimals
and does so only before a digit, and its third argument, meant as a flag, ends it after 32 replacements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparring.benchmarks.items import Answered, Mark, Read, failed

MARKS = (
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
)
STOP = re.compile(r"(?!<=\d)(\.)(?!\d)")
LONE_STOP = re.compile(r"(?<!\d)\.(?!\d)")
STOPS = int(re.UNICODE)
THOUSANDS = re.compile(r"(\d)(,)(\d)")
MANY_COMMAS = re.compile(r"(?<=\d)(,)+(?=\d)")
DIGITS = {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
} | {"none": "0"}
ARTICLES = {"a", "an", "the"}
# The left-hand sides as a rule are the right-hand ones without apostrophes; those below are not.
ODD = {"couldn'tve": "couldn't've", "couldnt've": "couldn't've", "hadnt've": "hadn't've", "hadn'tve": "hadn't've", "hed've": "he'd've", "he'dve": "he'd've",
       "Id've": "I'd've", "I'dve": "I'd've", "Im": "I'm", "Ive": "I've", "itd've": "it'd've", "it'dve": "it'd've", "let's": "let's",
       "mightnt've": "mightn't've", "mightn'tve": "mightn't've", "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at",
       "shed've": "she'd've", "she'dve": "she'd've", "she's": "she's", "shouldnt've": "shouldn't've", "shouldn'tve": "shouldn't've",
       "somebody'd": "somebodyd", "somebodyd've": "somebody'd've", "somebody'dve": "somebody'd've", "someoned've": "someone'd've",
       "someone'dve": "someone'd've", "somethingd've": "something'd've", "something'dve": "something'd've", "thered've": "there'd've",
       "there'dve": "there'd've", "theyd've": "they'd've", "they'dve": "they'd've", "wed've": "we'd've", "we'dve": "we'd've",
       "whod've": "who'd've", "who'dve": "who'd've", "wouldnt've": "wouldn't've", "wouldn'tve": "wouldn't've", "yall'll": "y'all'll",
       "y'allll": "y'all'll", "yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've", "youd've": "you'd've",
       "you'dve": "you'd've"}  # fmt: skip
PLAIN = [
    "ain't",
    "aren't",
    "can't",
    "could've",
    "couldn't",
    "didn't",
    "doesn't",
    "don't",
    "hadn't",
    "hasn't",
    "haven't",
    "he'd",
    "he's",
    "how'd",
    "how'll",
    "how's",
    "isn't",
    "it'd",
    "it'll",
    "ma'am",
    "mightn't",
    "might've",
    "mustn't",
    "must've",
    "needn't",
    "not've",
    "o'clock",
    "oughtn't",
    "shan't",
    "should've",
    "shouldn't",
    "somebody'll",
    "somebody's",
    "someone'd",
    "someone'll",
    "someone's",
    "something'd",
    "something'll",
    "that's",
    "there'd",
    "there're",
    "there's",
    "they'd",
    "they'll",
    "they're",
    "they've",
    "'twas",
    "we've",
    "weren't",
    "wasn't",
    "what'll",
    "what're",
    "what's",
    "what've",
    "when's",
    "where'd",
    "where's",
    "where've",
    "who'd",
    "who'll",
    "who's",
    "who've",
    "why'll",
    "why're",
    "why's",
    "won't",
    "would've",
    "wouldn't",
    "y'all",
    "you'd",
    "you'll",
    "you're",
    "you've",
]
CONTRACTIONS = {word.replace("'", ""): word for word in PLAIN} | ODD


def stripped(text: str) -> str:
    """On one line, without space around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def without_marks(text: str, commas: re.Pattern[str] = THOUSANDS, stops: re.Pattern[str] = STOP) -> str:
    """Punctuation is taken out where it stands beside a space (or the text holds a comma between digits), and
    becomes a space elsewhere.
    """
    result = text
    for mark in MARKS:
        taken = f"{mark} " in text or f" {mark}" in text or commas.search(text) is not None
        result = result.replace(mark, "" if taken else " ")
    return stops.sub("", result, count=STOPS)


def without_articles(text: str) -> str:
    """Lower case, number words as digits, no articles, apostrophes put back into contractions."""
    words = [DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def OFFICIAL(text: str) -> str:
    """The official normalisation."""
    return without_articles(without_marks(stripped(text)))


def LMMS(text: str) -> str:
    """lmms-eval's: as the official one, with commas between digits found by another pattern."""
    return without_articles(without_marks(stripped(text), MANY_COMMAS))


def VLMEVALKIT(text: str) -> str:
    """VLMEvalKit's: a full stop behind a digit stays."""
    return without_articles(without_marks(stripped(text), stops=LONE_STOP))


def soft_score(
    normal: Callable[[str], str], reply: str, references: Sequence[str], *, when_unanimous: bool = False
) -> tuple[float, str]:
    """(score, the reply as compared): the mean over leave-one-out of min(1, matches among the others / 3).

    when_unanimous: normalise also where all references are the same; the official script does not, and
    compares the texts as they are.
    """
    texts = [stripped(reference) for reference in references]
    said = stripped(reply)
    if when_unanimous or len(set(texts)) > 1:
        texts, said = [normal(text) for text in texts], normal(said)
    matches = texts.count(said)
    shares = [min(1.0, (matches - (text == said)) / 3) for text in texts]
    return sum(shares) / len(shares), said


def leave_one_out(normal: Callable[[str], str], name: str, *, when_unanimous: bool = False) -> Read:
    """A rule that scores every first reply as `soft_score` does; `name` is what its marks call it."""

    def marks(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
        return [failed(one) or mark(one) for one in answered]

    def mark(one: Answered) -> Mark:
        references = one.item.meta["references"]
        score, said = soft_score(normal, one.reply, references, when_unanimous=when_unanimous)
        return Mark(said, score, name)

    return marks
