"""A Defender that need not look is found out, one that looks is not, and asking changes nothing random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from small_game import PROMPT, picture, teach, write_game_questions
from small_vlms import tiny_qwen2_5_vl
from sparring.asking.questions import ask, ask_each
from sparring.config import DefenderSettings
from sparring.data.images import pictures_of
from sparring.data.questions import read_questions
from sparring.data.records import VisualQuestion
from sparring.models.vlms.local import LocalVLM
from sparring.selfplay.blind import FEWEST, GREY, blindness, greys

SETTINGS = DefenderSettings(model="x", prompt=PROMPT, max_new_tokens=12)


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> LocalVLM:
    """It tells light pictures from dark ones."""
    folder = tmp_path_factory.mktemp("blind") / "defender"
    tiny_qwen2_5_vl(folder, scale=1.0)
    rng = np.random.default_rng(5)
    images, light = zip(*(picture(rng) for _ in range(64)), strict=True)
    teach(folder, [f"\\boxed{{{'AB'[one]}}}" for one in light], list(images), "Light?", steps=60)
    return LocalVLM.load(folder)


def asked(vlm: LocalVLM, questions: list[VisualQuestion]) -> str | None:
    seen = [answer.right for answer in ask(vlm, questions, pictures_of(questions), SETTINGS)]
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    said = blindness(ask_each(vlm, questions, greys(questions), SETTINGS), seen)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == drawn  # type: ignore[index,union-attr]
    return said


def test_only_questions_that_need_no_picture_are_warned_of(looking: LocalVLM, tmp_path: Path) -> None:
    questions = list(read_questions(write_game_questions(tmp_path, 3 * FEWEST)))
    assert asked(looking, questions) is None
    grey = [Image.new("RGB", (64, 64), GREY)]
    (said,) = ask(looking, questions[:1], grey, SETTINGS)
    # What it says of grey is right about all of these.
    given_away = [question for question in questions if question.answer == said.choice]
    assert len(given_away) >= FEWEST
    assert "100.0% right beside a grey picture" in (asked(looking, given_away) or "")
    assert asked(looking, given_away[: FEWEST - 1]) is None
