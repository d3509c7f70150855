"""The one way in which edits that are to count are judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from small_vlms import noise_pictures
from sparring.attackers.rivals import load_rival
from sparring.attackers.rivals.paste import Paste
from sparring.config import JudgeSettings, PasteSettings
from sparring.data.errors import DataError, ModelError, RefusedError
from sparring.data.records import Edit, Target, Verdict, VisualQuestion
from sparring.judging.validity import DuplicateCheck
from sparring.judging.vet import same_picture, vet
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.endpoint import EndpointReply

CPU = torch.device("cpu")
CUP = (Target("cup", (8, 8, 40, 40)),)


def question(name: str, targets: tuple[Target, ...] = CUP) -> VisualQuestion:
    return VisualQuestion(name, Path("x.png"), "Where is the cup?", ("left", "right"), "A", targets)


def edit(of: VisualQuestion, image: Image.Image) -> Edit:
    return Edit(of.id, "x", "", 0, image)


def verdicts(
    questions: Sequence[VisualQuestion],
    cleans: Sequence[Image.Image],
    images: Sequence[Image.Image],
    **more: Any,
) -> list[Verdict]:
    edits = [edit(own, image) for own, image in zip(questions, images, strict=True)]
    return vet(
        questions, cleans, edits, **({"settings": JudgeSettings(), "duplicates": None, "device": CPU} | more)
    )


def lighter(image: Image.Image, by: int = 1) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image, dtype=int) + by, 0, 255).astype(np.uint8))


def test_pictures_on_a_widened_canvas_and_questions_without_boxes() -> None:
    cleans = noise_pictures(3)
    questions = [question("wide"), question("ruined"), question("boxless", ())]
    wide = Paste(PasteSettings(mode="insert")).edit(questions[:1], cleans[:1], seed=0)[0].image
    assert wide.size != cleans[0].size
    found = verdicts(questions, cleans, [wide, *noise_pictures(3, seed=9)[1:]])
    assert [one.accepted for one in found] == [True, False, True]
    assert found[0].integrity == pytest.approx(1.0)
    assert not found[0].unchanged  # the part that was the picture is whole, and yet something was added
    with pytest.raises(DataError, match='question "wide": the edit is 32 x 32 pixels, smaller'):
        verdicts(questions[:1], cleans[:1], [cleans[0].resize((32, 32))])


def test_a_picture_that_came_back_as_it_was_is_no_attack_and_nobody_is_asked_about_it() -> None:
    cleans, heard = noise_pictures(4), list[str]()
    questions = [question(f"q{i}") for i in range(4)]

    def audit(asked: Sequence[VisualQuestion], images: Sequence[Image.Image]) -> list[bool | None]:
        heard.extend(own.id for own in asked)
        return [True] * len(asked)

    images = [cleans[0], lighter(cleans[1]), cleans[2].convert("RGBA"), noise_pictures(1, seed=5)[0]]
    found = verdicts(questions, cleans, images, audit=audit)
    assert [one.unchanged for one in found] == [True, False, True, False]
    assert [one.accepted for one in found] == [False, True, False, False]
    assert heard == ["q1"]
    assert [one.label_valid for one in found] == [None, True, None, None]


@pytest.mark.parametrize(("by", "same"), [(0, True), (1, False)])
def test_one_grey_level_is_a_change(by: int, same: bool) -> None:
    image = noise_pictures(1)[0].resize((300, 1))
    assert same_picture(lighter(image, by), image) is same


def test_paste_without_a_free_place_is_no_attack() -> None:
    filled = question("full", (Target("cup", (0, 0, 64, 64)),))
    clean = noise_pictures(1)[0]
    (made,) = load_rival("paste:add").edit([filled], [clean], 0)
    assert made.instruction.startswith("nothing")
    (found,) = vet([filled], [clean], [made], settings=JudgeSettings(), duplicates=None, device=CPU)
    assert found.unchanged
    assert not found.accepted


class Counter:
    """Counts by width, and will not look at pictures of 40 pixels."""

    name, device = "counter", CPU

    def __init__(self, error: ModelError) -> None:
        self.error = error

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[EndpointReply]]:
        if any(image.width == 40 for image in images):
            raise self.error
        return [[EndpointReply("two" if image.width > 64 else "one", 1, True)] for image in images]

    def try_each(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[EndpointReply | ModelError]:
        return [
            self.error if image.width == 40 else self.generate([image], [""], sampling)[0][0]
            for image in images
        ]


def test_a_second_instance_on_the_new_strip_is_seen_and_a_picture_that_the_judge_refuses_is_uncounted() -> (
    None
):
    cleans = [*noise_pictures(2), noise_pictures(1, size=(40, 64))[0]]
    questions = [question(f"q{i}") for i in range(3)]
    strip = Image.new("RGB", (80, 64))
    strip.paste(cleans[0], (0, 0))
    images = [strip, *map(lighter, cleans[1:])]
    check = DuplicateCheck(Counter(RefusedError("no")), JudgeSettings())  # type: ignore[arg-type]
    assert [one.duplicate for one in verdicts(questions, cleans, images, duplicates=check)] == [
        True,
        False,
        True,
    ]
    down = DuplicateCheck(Counter(ModelError("down")), JudgeSettings())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="down"):
        verdicts(questions, cleans, images, duplicates=down)


def test_nothing_to_judge() -> None:
    assert verdicts([], [], []) == []
    clean = noise_pictures(1)
    assert [one.unchanged for one in verdicts([question("q")], clean, clean)] == [True]
