"""Splitting off held-out questions so that no picture is on both sides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from sparring.data.errors import DataError
from sparring.data.images import image_sha256, load_image
from sparring.data.records import VisualQuestion


def split_held_out(questions: Sequence[VisualQuestion], count: int, seed: int) -> tuple[list[VisualQuestion], list[VisualQuestion]]:
    """(train, held out), both in the order given. Questions about the same picture (by its pixels) stay
    together.

    `count` questions are held out; fewer, by less than the questions of one picture, where whole pictures do
    not add up to it. The split depends on the order of the questions, their pictures and `seed` alone. Raises
    DataError if fewer than `count` + 1 questions are there, or if nothing is left to train on.
    """
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(_keys(questions)):
        groups.setdefault(key, []).append(index)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    chosen: set[int] = set()
    for group in shuffled:
        if len(chosen) + len(group) <= count:
            chosen.update(group)
    if not chosen or len(chosen) == len(questions) or len(questions) <= count:
        raise DataError(
            f"{len(questions)} questions about {len(groups)} pictures are too few to hold {count} out and train on the rest. "
            "Lower data.held_out, add questions, or name a file with data.held_out_path."
        )
    held_out = [question for index, question in enumerate(questions) if index in chosen]
    return [question for index, question in enumerate(questions) if index not in chosen], held_out


def require_disjoint(train: Sequence[VisualQuestion], held_out: Sequence[VisualQuestion]) -> None:
    """Raise DataError if a picture (by its pixels) or an id is in both."""
    twins = {question.id for question in train} & {question.id for question in held_out}
    if twins:
        raise DataError(f'id "{min(twins)}" is in both the training and the held-out file ({len(twins)} in all). Ids are unique over both.')
    seen = dict(zip(_keys(train), train, strict=True))
    shared = [(seen[key], question) for key, question in zip(_keys(held_out), held_out, strict=True) if key in seen]
    if shared:
        first, second = shared[0]
        raise DataError(
            f'questions "{first.id}" (training) and "{second.id}" (held out) show the same picture, {second.image.name}; {len(shared)} held-out '
            "questions are like that. Held-out pictures must be new: leave data.held_out_path out and the split is made by picture."
        )


def _keys(questions: Sequence[VisualQuestion]) -> list[str]:
    """The hash of every question's picture; each file is read once."""
    hashes: dict[Path, str] = {}
    for question in questions:
        if question.image not in hashes:
            hashes[question.image] = image_sha256(load_image(question.image))
    return [hashes[question.image] for question in questions]
