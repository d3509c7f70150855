"""Objects that a caption names, for CHAIR (Rohrbach et al. 2018, arXiv 1809.02156), by the official list of
synonyms.

The rule is the official one; its tokeniser and its singular forms (NLTK, pattern.en) are replaced by short
rules of our own, so figures may differ from its in rare words. Its pickle cache is never read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from sparring.data.errors import DataError

PAIRS = [
    "motor bike",
    "motor cycle",
    "air plane",
    "traffic light",
    "street light",
    "traffic signal",
    "stop light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "suit case",
    "sports ball",
    "baseball bat",
    "baseball glove",
    "tennis racket",
    "wine glass",
    "hot dog",
    "cell phone",
    "mobile phone",
    "teddy bear",
    "hair drier",
    "potted plant",
    "laptop computer",
    "stove top oven",
    "home plate",
]
ANIMALS = (
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "animal",
    "cub",
)
IRREGULAR = {"men": "man", "women": "woman", "children": "child", "people": "people", "knives": "knife", "mice": "mouse", "geese": "goose",
             "teeth": "tooth", "feet": "foot", "skis": "ski", "buses": "bus", "wolves": "wolf", "loaves": "loaf", "leaves": "leaf"}  # fmt: skip
# As NLTK's tokeniser does: "a man's hat" is "man", "'s", "hat", and names a person.
WORD = re.compile(r"[a-z]+(?:-[a-z]+)*|['’][a-z]+")
AS_THEY_ARE = {
    "bus",
    "glass",
    "tennis",
    "grass",
    "dress",
    "series",
    "scissors",
    "species",
    "always",
    "is",
    "this",
    "was",
    "has",
    "sheep",
}


def singular(word: str) -> str:
    """The singular of an English noun, by rule."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in AS_THEY_ARE or len(word) < 4 or word.endswith(("ss", "us")) or not word.endswith("s"):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes")) or word in ("potatoes", "tomatoes"):
        return word[:-2]
    return word[:-1]


class Vocabulary:
    """The official synonyms: on every line an object of COCO and what else it is called."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        self.object_of: dict[str, str] = {}
        for line in lines:
            words = [word.strip() for word in line.split(",") if word.strip()]
            self.object_of |= dict.fromkeys(words, words[0])
        # Two words that name one thing; and what a word before an animal or a vehicle does not make of it (a
        # "baby bird" is no person).
        self.pairs = {pair: pair for pair in PAIRS} | {
            f"{young} {animal}": animal for animal in ANIMALS for young in ("baby", "adult")
        }
        self.pairs |= {
            "passenger jet": "jet",
            "passenger train": "train",
            "bow tie": "tie",
            "toilet seat": "toilet",
        }

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read `synonyms.txt`. Raises DataError where it holds no line."""
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if not lines:
            raise DataError(f"{path}: holds no synonyms.")
        return cls(lines)

    def objects(self, caption: str) -> list[str]:
        """The object of every mention, in order; an object that is named twice is there twice."""
        words = [singular(word) for word in WORD.findall(caption.lower())]
        joined, place = [], 0
        while place < len(words):
            pair = " ".join(words[place : place + 2])
            joined.append(self.pairs.get(pair, words[place]))
            place += 2 if pair in self.pairs else 1
        if "toilet" in joined:
            joined = [word for word in joined if word != "seat"]
        return [self.object_of[word] for word in joined if word in self.object_of]


@lru_cache(maxsize=4)
def vocabulary_of(lines: tuple[str, ...]) -> Vocabulary:
    """The vocabulary of these lines, made once."""
    return Vocabulary(lines)
