"""An editor of random weights, questions on disk, and a served Defender that rolls dice by what it
is shown.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from endpoint_server import Server, dice, question, serving
from small_attack import attack, attack_of
from small_checkpoints import tiny_flux2_klein
from small_game import write_game_questions
from sparring.config import ProbeSettings


@pytest.fixture(scope="session")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux2_klein(tmp_path_factory.mktemp("players") / "editor")


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 14 questions."""
    return write_game_questions(tmp_path_factory.mktemp("questions"), 14)


def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
    """Questions by dice; one of everything is counted, but in some edits two."""
    if question(body).endswith("s?"):
        return {"text": "two" if sum(image.tobytes()) % 5 == 0 else "one"}
    return dice(image, body)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(answer) as server:
        yield server


@pytest.fixture(scope="session")
def finished(
    editor: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ProbeSettings, dict[str, Any]]:
    """The folder, settings and results of an attack that nothing disturbed."""
    out = tmp_path_factory.mktemp("finished")
    with serving(answer) as server:
        settings = attack_of(editor, questions, server.url)
        return out, settings, attack(settings, out)
