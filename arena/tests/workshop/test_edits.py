"""Pairs: what an instruction says is what becomes of the scene."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from sparring_arena.sprites import lookalikes
from workshop.editor_net import CONSTANTS, PIXELS, TOKENS, choices
from workshop.edits import DISTRACTORS, EDITS, Pair, draw_pair


def pairs(kind: str, number: int) -> list[Pair]:
    weights = [float(name == kind) for name in EDITS]
    return [draw_pair(np.random.default_rng([3, i]), i % len(DISTRACTORS), weights) for i in range(number)]


def test_plain_instructions_do_what_they_say() -> None:
    for kind in ("add", "remove", "replace", "recolor"):
        for pair in pairs(kind, 40):
            gone = [t for t in pair.before.things if t not in pair.after.things]
            came = [t for t in pair.after.things if t not in pair.before.things]
            words = pair.instruction.split()
            if kind == "add":
                assert not gone
                assert words == ["add", "a", came[0].color, came[0].name]
                assert came[0].name not in [t.name for t in pair.before.things]
            elif kind == "remove":
                assert not came
                assert words[2:] == [gone[0].name]
            elif kind == "replace":
                assert words == ["replace", "the", gone[0].name, "with", "a", came[0].color, came[0].name]
            else:
                assert words == ["make", "the", gone[0].name, came[0].color]
                assert gone[0].name == came[0].name
            if gone:
                assert pair.before.count(gone[0].name) == 1
            if gone and came:
                assert (gone[0].column, gone[0].row) == (came[0].column, came[0].row)


def test_a_distractor_follows_from_scene_question_and_choice_alone() -> None:
    for pair in pairs("distract", 60):
        again = [
            p for p in pairs("distract", 60) if p.instruction == pair.instruction and p.before == pair.before
        ]
        assert pair in again


def test_an_untuned_editor_adds_a_second_one_about_as_often_as_editors_do() -> None:
    kinds = Counter()
    for pair in pairs("distract", 400):
        came = [t for t in pair.after.things if t not in pair.before.things]
        name = pair.named[0]
        if came and came[0].name == name:
            kinds["second"] += 1
        elif came and came[0].name in lookalikes(name):
            kinds["look-alike"] += 1
    assert 0.2 <= kinds["second"] / 400 <= 0.6
    assert kinds["look-alike"] / 400 >= 0.2


def test_what_a_distractor_is_follows_from_its_number() -> None:
    for i, pair in enumerate(pairs("distract", 160)):
        kind, name = DISTRACTORS[i % len(DISTRACTORS)], pair.named[0]
        came = [t for t in pair.after.things if t not in pair.before.things]
        gone = [t for t in pair.before.things if t not in pair.after.things]
        if kind == "second":
            assert [t.name for t in came] == [name]
        if kind in ("lookalike", "colored"):
            assert came[0].name in lookalikes(name)
        if kind == "other":
            assert came[0].name not in (name, *lookalikes(name))
        if gone:
            assert kind in ("replace", "recolor")
            assert gone[0].name not in pair.named


def test_the_noise_says_which_of_all_kinds_in_equal_parts() -> None:
    noise = torch.randn(4000, TOKENS, PIXELS + CONSTANTS, generator=torch.Generator().manual_seed(1))
    shares = choices(noise).bincount(minlength=len(DISTRACTORS)) / 4000
    assert ((shares - 1 / len(DISTRACTORS)).abs() < 0.03).all()
    assert (choices(noise) == choices(noise + 6)).all()  # constants say nothing
