"""The rival that draws perfectly: it draws what nobody asked about, and the right answer stays right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.attackers.rivals import load_rival
from sparring.data.errors import DataError
from sparring.data.images import load_image
from sparring.data.questions import read_questions
from sparring.data.records import VisualQuestion
from sparring.scenes.audit import label_valid
from sparring.scenes.dataset import write_questions
from sparring.scenes.rivals import other_thing


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[VisualQuestion]:
    _, held_out = write_questions(
        tmp_path_factory.mktemp("arena"), seed=5, train=4, held_out=24, sizes=(14, 26)
    )
    return read_questions(held_out).records


def test_the_answer_stays_right_and_the_change_is_one_place(questions: list[VisualQuestion]) -> None:
    done = []
    for seed, question in enumerate(questions):
        clean = load_image(question.image)
        made = other_thing(question, clean, seed=seed)
        assert made is not None
        edited, what = made
        changed = (np.asarray(clean) != np.asarray(edited)).any(-1)
        assert 0.005 < changed.mean() < 0.4
        assert not any(
            changed[y0:y1, x0:x1].any() for x0, y0, x1, y1 in (target.box for target in question.targets)
        )
        assert label_valid(question, edited) is True
        done.append(" in place of " in what)
    assert 4 < sum(done) < 20  # it adds about as often as it replaces


def test_it_is_a_rival_by_its_name_and_draws_the_same_again(questions: list[VisualQuestion]) -> None:
    rival = load_rival("sparring.scenes.rivals:other_thing:sizes=[14, 20]", name="other")
    cleans = [load_image(question.image) for question in questions[:6]]
    first, again = (rival.edit(questions[:6], cleans, seed=3) for _ in range(2))
    assert [edit.image.tobytes() for edit in first] == [edit.image.tobytes() for edit in again]
    assert {edit.attacker for edit in first} == {"other"}
    assert [edit.image.tobytes() for edit in rival.edit(questions[:6], cleans, seed=4)] != [
        edit.image.tobytes() for edit in first
    ]


def test_pictures_of_others_are_refused(questions: list[VisualQuestion], tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "held-out-000001.png"
    path.parent.mkdir()
    Image.new("RGB", (64, 64)).save(path)
    with pytest.raises(DataError, match=r"the scene of .* is not known"):
        other_thing(replace(questions[1], image=path), load_image(path), seed=0)
    with pytest.raises(DataError, match="not worded like one about a scene"):
        other_thing(replace(questions[1], question="Why?"), load_image(questions[1].image), seed=0)
