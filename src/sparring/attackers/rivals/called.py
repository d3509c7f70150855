"""A rival that a function of the user's own draws, which may know the scene behind a picture and draw into it."""

from __future__ import annotations

from PIL.Image import Image

from sparring.attackers.rivals.base import OneByOne
from sparring.config import CallSettings
from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion
from sparring.engine.calls import import_call


class Called(OneByOne):
    """Calls f(question, image, seed=..., **arguments) for every picture, an RGB one.

    The function returns (edited picture, what was done), or None where it can do nothing, and then the
    picture stays as it is. What it draws must follow from its arguments alone. A function that needs the
    scene finds it by the question, whose `image` is the picture's path.
    """

    def __init__(self, call: CallSettings, name: str) -> None:
        """Raises RecipeError where the function cannot be had or does not take the arguments."""
        super().__init__(name)
        self.call = call
        self._function = import_call(call, f'rival "{name}"')

    def _edit_one(self, question: VisualQuestion, image: Image, seed: int) -> tuple[Image, str]:
        made = self._function(question, image, seed=seed, **self.call.arguments)
        if made is None:
            return image, "nothing"
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Image) and isinstance(made[1], str)):
            raise DataError(
                f'question "{question.id}": rival "{self.call.call}" must return (edited picture, what was done) or None; it returned {made!r}.'
            )
        return made[0].convert("RGB"), made[1]
