"""Players and questions of the game in miniature."""

from selfplay.conftest import players, questions

__all__ = ["players", "questions"]
