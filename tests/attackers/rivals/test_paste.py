"""Pasted distractors: where they stand, what they may not show, and what stays untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.attackers.rivals.paste import BUNDLED, Paste, mentions, object_name
from sparring.config import PasteSettings
from sparring.data.errors import DataError
from sparring.data.records import Box, Target, VisualQuestion


def about(
    *boxes: Box, name: str = "q", question: str = "Where is it?", options: tuple[str, ...] = ("left", "right")
) -> VisualQuestion:
    return VisualQuestion(
        name, Path("q.png"), question, options, "A", tuple(Target("thing", box) for box in boxes)
    )


def picture(width: int = 120, height: int = 90) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(100, 120, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, color in (("red_cup", (255, 0, 0)), ("clock", (0, 0, 255))):
        rgba = np.zeros((40, 60, 4), dtype=np.uint8)
        rgba[10:30, 10:50] = (*color, 255)
        Image.fromarray(rgba).save(tmp_path / f"{name}.png")
    return tmp_path


def test_an_added_object_changes_its_own_place_alone_and_never_a_protected_box() -> None:
    rival = Paste(PasteSettings(size=0.5))
    boxes = [(5, 5, 50, 60), (80, 50, 118, 88)]
    questions = [about(*boxes, name=f"q{i}") for i in range(40)]
    edits = rival.edit(questions, [picture()] * 40, seed=1)
    clean = np.asarray(picture())
    for edit in edits:
        changed = (np.asarray(edit.image) != clean).any(-1)
        assert changed.any()
        assert edit.image.size == (120, 90)
        for x0, y0, x1, y1 in boxes:
            assert not changed[y0:y1, x0:x1].any()
    assert len({edit.image.tobytes() for edit in edits}) > 30
    again = rival.edit(questions[7:8], [picture()], seed=1)[0]
    assert again.image.tobytes() == edits[7].image.tobytes()
    assert rival.edit(questions[7:8], [picture()], seed=2)[0].image.tobytes() != edits[7].image.tobytes()


def test_the_calm_side_is_chosen(folder: Path) -> None:
    noisy = np.asarray(picture(160, 80)).copy()
    noisy[:, :100] = np.random.default_rng(1).integers(0, 256, (80, 100, 3))
    for edit in Paste(PasteSettings(folder=str(folder))).edit(
        [about(name=str(i)) for i in range(5)], [Image.fromarray(noisy)] * 5, seed=0
    ):
        assert not (np.asarray(edit.image)[:, :100] != noisy[:, :100]).any()


def test_without_a_free_place_the_picture_stays_and_says_so(folder: Path) -> None:
    (edit,) = Paste(PasteSettings(folder=str(folder))).edit([about((0, 0, 120, 90))], [picture()], seed=0)
    assert edit.image.tobytes() == picture().tobytes()
    assert edit.instruction.startswith("nothing: no free place")


def test_insert_widens_the_canvas_and_leaves_every_pixel_where_it_was() -> None:
    rival = Paste(PasteSettings(mode="insert"))
    assert not rival.keeps_size
    sizes = set()
    for edit in rival.edit([about((0, 0, 120, 90), name=str(i)) for i in range(8)], [picture()] * 8, seed=0):
        assert np.array_equal(np.asarray(edit.image)[:90, :120], np.asarray(picture()))
        wider, taller = edit.image.width > 120, edit.image.height > 90
        assert wider != taller
        strip = np.asarray(edit.image)[:, 120:] if wider else np.asarray(edit.image)[90:]
        assert strip.astype(float).std() > 5
        sizes.add((wider, taller))
    assert len(sizes) == 2


def test_what_the_question_names_is_never_pasted(folder: Path) -> None:
    asked = [
        about(name=str(i), question="Is there a cup in the picture?", options=("yes", "no")) for i in range(6)
    ]
    for edit in Paste(PasteSettings(folder=str(folder))).edit(asked, [picture()] * 6, seed=0):
        assert edit.instruction.startswith("clock")
    with pytest.raises(DataError, match="names every object"):
        Paste(PasteSettings(folder=str(folder))).edit(
            [about(question="Are there two cups or clocks?")], [picture()], seed=0
        )


@pytest.mark.parametrize(
    ("name", "question", "found"),
    [
        ("box", "How many boxes are there?", True),
        ("alarm clock", "Where is the clock?", True),
        ("glasses", "Where are the glasses?", True),
        ("cup", "Where is the cupboard?", False),
        ("key", "Where is the monkey?", False),
    ],
)
def test_names_are_compared_as_words(name: str, question: str, found: bool) -> None:
    assert mentions(about(question=question), name) is found


def test_cut_outs_of_no_use_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no cut-outs"):
        Paste(PasteSettings(folder=str(tmp_path)))
    picture().save(tmp_path / "opaque.png")
    with pytest.raises(DataError, match="transparent"):
        Paste(PasteSettings(folder=str(tmp_path))).edit([about()], [picture()], seed=0)
    (tmp_path / "opaque.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(DataError, match=r"opaque\.png"):
        Paste(PasteSettings(folder=str(tmp_path))).edit([about()], [picture()], seed=0)
    assert object_name(BUNDLED / "alarm_clock-2.webp") == "alarm clock"
