"""What a Defender is told: questions and replies to be learned, filled into templates."""

from __future__ import annotations

from sparring.config import DefenderSettings, ImitationSettings
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion


def render_options(question: VisualQuestion) -> str:
    """One option a line: "A. left", "B. right"."""
    return "\n".join(
        f"{letter}. {option}" for letter, option in zip(question.letters, question.options, strict=True)
    )


def render_prompt(question: VisualQuestion, template: str) -> str:
    r"""`template` with {question} and {options} filled in; {{ and }} are literal braces (`\boxed{{}}`).
    RecipeError for another placeholder.
    """
    return filled(template, "defender.prompt", question=question.question, options=render_options(question))


def filled(template: str, field: str, **parts: str) -> str:
    """`template` with its placeholders replaced by `parts`; `field` is the setting that holds it. RecipeError
    for another placeholder, naming those that are.
    """
    try:
        return template.format(**parts)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        names = ", ".join(f"{{{name}}}" for name in parts)
        raise RecipeError(
            f"{field} {template!r} cannot be filled in: {error!r}. What is filled in is {names}; write {{{{ "
            f"and }}}} for braces."
        ) from error


def render_reply(question: VisualQuestion, template: str) -> str:
    """The reply to be learned: `template` with {reasoning}, {answer} and {option} filled in. RecipeError for
    another placeholder.
    """
    parts = {"reasoning": question.reasoning or "", "answer": question.answer, "option": question.answer_text}
    return filled(template, "defender.algorithm.reply", **parts).strip()


def reply_of(settings: DefenderSettings) -> str:
    """The template of the replies that a Defender is to learn, which supervised fine-tuning has."""
    assert isinstance(settings.algorithm, ImitationSettings)
    return settings.algorithm.reply
