"""Players and questions of the game in miniature, made once for all tests of this folder."""

from pathlib import Path

import pytest

from small_game import write_game_questions, write_players


@pytest.fixture(scope="session")
def players(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an editor, a defender and a judge."""
    folder = tmp_path_factory.mktemp("players")
    write_players(folder)
    return folder


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 48 questions about dark and light pictures."""
    return write_game_questions(tmp_path_factory.mktemp("questions"), 48)
