"""The text that a Defender reads beside the picture."""

from __future__ import annotations

from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion


def render_options(question: VisualQuestion) -> str:
    """One option a line: "A. left", "B. right"."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(question.letters, question.options, strict=True))


def render_prompt(question: VisualQuestion, template: str) -> str:
    r"""`template` with {question} and {options} filled in; {{ and }} are literal braces (`\boxed{{}}`). RecipeError for another placeholder."""
    try:
        return template.format(question=question.question, options=render_options(question))
    except (KeyError, IndexError, ValueError) as error:
        raise RecipeError(
            f"defender.prompt {template!r} cannot be filled in: {error!r}. Its placeholders are {{question}} and {{options}}; write {{{{ and }}}} for braces."
        ) from error
