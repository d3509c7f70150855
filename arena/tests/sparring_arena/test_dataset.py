"""The arena's data on disk: written as the reader wants it, the same every time, no scene in two splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sparring.data.images import image_sha256, load_image
from sparring.data.questions import read_questions
from sparring.data.records import VisualQuestion
from sparring_arena.dataset import draw, write_questions
from sparring_arena.questions import KINDS
from sparring_arena.world import render


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def written(
    folder: Path, seed: int = 0, train: int = 48, held_out: int = 24
) -> tuple[list[VisualQuestion], list[VisualQuestion]]:
    paths = write_questions(folder, seed=seed, train=train, held_out=held_out)
    assert [path.name for path in paths] == ["train.jsonl", "held_out.jsonl"]
    return read_questions(paths[0]).records, read_questions(paths[1]).records


def test_reasoned_records_differ_in_their_reasoning_alone(tmp_path: Path) -> None:
    plain, reasoned = (
        read_questions(write_questions(tmp_path / str(r), seed=0, train=8, held_out=1, reasoned=r)[0]).records
        for r in (False, True)
    )
    for one, other in zip(plain, reasoned, strict=True):
        assert other.reasoning is not None
        assert other.reasoning.endswith(f", {other.answer_text}")
        assert replace(other, reasoning=None, image=one.image) == one


def test_records_describe_their_pictures(tmp_path: Path) -> None:
    train, held_out = written(tmp_path)
    assert [record.id for record in train][:2] == ["train-000000", "train-000001"]
    assert held_out[-1].id == "held-out-000023"
    for index, record in enumerate(train):
        scene, asked = draw(0, "train", index)
        assert np.array_equal(np.asarray(load_image(record.image)), render(scene))
        assert record.question == asked.question
        assert record.answer_text == asked.answer
        assert [(target.name, target.box) for target in record.targets] == [
            (thing.name, thing.box) for thing in asked.about
        ]
        assert record.image.parent.parent == tmp_path


def test_kinds_take_turns_and_half_of_existence_is_no(tmp_path: Path) -> None:
    train, _ = written(tmp_path, train=96, held_out=4)
    assert Counter(record.category for record in train) == dict.fromkeys(KINDS, 24)
    existence = Counter(record.answer_text for record in train if record.category == "existence")
    assert existence == {"yes": 12, "no": 12}
    assert all(
        (record.answer_text == "yes") == bool(record.targets)
        for record in train
        if record.category == "existence"
    )
    letters = Counter(record.answer for record in train if record.category != "existence")
    assert min(letters[letter] for letter in "ABCD") > 8


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path / "a", train=12, held_out=8)
    once = digests(tmp_path / "a")
    written(tmp_path / "a", train=12, held_out=8)
    written(tmp_path / "b", train=12, held_out=8)
    assert digests(tmp_path / "a") == once == digests(tmp_path / "b")
    assert len(once) == 22


def test_splits_and_seeds_share_no_picture(tmp_path: Path) -> None:
    pictures = []
    for seed in (0, 1):
        for split in written(tmp_path / str(seed), seed=seed, train=24, held_out=24):
            pictures += [image_sha256(Image.open(record.image)) for record in split]
    assert len(set(pictures)) == len(pictures) == 96


def test_a_question_does_not_depend_on_how_many_are_written(tmp_path: Path) -> None:
    few, _ = written(tmp_path / "few", train=5, held_out=1)
    many, _ = written(tmp_path / "many", train=9, held_out=3)
    assert [(r.id, r.question, r.options, r.answer, r.targets) for r in few] == [
        (r.id, r.question, r.options, r.answer, r.targets) for r in many[:5]
    ]
