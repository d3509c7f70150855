"""Misleading and helpful words beside an untouched picture (after arXiv 2602.12506), for any multiple-choice
question: those that a Defender is measured under, and those that one in training is told.

Six conditions: the plain question; a wrong caption before it; a wrong thought that begins the reply; both of
these with a doubt in them; and a thought that is over before it has begun (stop-think). Two controls: a
caption and a thought that are right. Training has the four that are neither hedged nor stopped, for shares of
its groups. The words are settings.

Where a Defender is measured, which wrong option is hinted at follows from (seed, question id) alone and is
the same in all conditions, so that they can be compared. In training it is drawn anew at every use.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sparring.asking.prompts import filled, render_prompt
from sparring.config import ConditionSettings, DefenderSettings, TextSettings
from sparring.data.errors import DataError
from sparring.data.records import LETTERS, VisualQuestion
from sparring.seeds import derive_seed

Name = Literal[
    "plain",
    "wrong_caption",
    "wrong_caption_hedged",
    "wrong_thought",
    "wrong_thought_hedged",
    "stop_think",
    "right_caption",
    "right_thought",
]
CONDITIONS: tuple[Name, ...] = (
    "plain",
    "wrong_caption",
    "wrong_caption_hedged",
    "wrong_thought",
    "wrong_thought_hedged",
    "stop_think",
)
CONTROLS: tuple[Name, ...] = ("right_caption", "right_thought")
PLAIN: Name = "plain"
KINDS: tuple[Name, ...] = ("right_caption", "wrong_caption", "right_thought", "wrong_thought")
"""The conditions of training, each a share in `defender.text`."""


@dataclass(frozen=True, slots=True)
class Told:
    """The prompt, what the reply begins with, the condition (None for the plain question), and the letter of
    the option that is hinted at, None where none is.
    """

    prompt: str
    start: str = ""
    kind: Name | None = None
    hint: str | None = None


def hint_of(question: VisualQuestion, seed: int) -> str:
    """The letter of a wrong option, drawn by (seed, question id)."""
    wrong = [letter for letter in question.letters if letter != question.answer]
    return wrong[derive_seed(seed, "hint", question.id) % len(wrong)]


def under(
    condition: Name,
    question: VisualQuestion,
    prompt: str,
    settings: ConditionSettings,
    seed: int,
    own: str = "",
) -> Told:
    """The question with this prompt under that condition. own: what {own} stands for, the Defender's own
    reasoning about the plain question without its verdict.

    RecipeError where a template has another placeholder than {question}, {option}, {letter} and {own}.
    """
    if condition not in (*CONDITIONS, *CONTROLS):
        raise DataError(
            f"there is no text condition {condition!r}, only {', '.join((*CONDITIONS, *CONTROLS))}"
        )
    if condition == PLAIN:
        return Told(prompt)
    if condition == "stop_think":
        return Told(prompt, settings.stopped, condition)
    field = _field(condition)
    hint = question.answer if condition.startswith("right_") else hint_of(question, seed)
    words = filled(
        getattr(settings, field),
        f"conditions.{field}",
        question=question.question,
        option=_option(question, hint),
        letter=hint,
        own=own,
    )
    return _placed(condition, prompt, f"{words}\n" if words and "caption" in condition else words, hint)


def tell(questions: Sequence[VisualQuestion], settings: DefenderSettings, *where: int | str) -> list[Told]:
    """What a Defender in training is told with each question. Conditions, and the wrong options that are
    hinted at, depend on the place of use alone.

    Errors: RecipeError where a template has another placeholder than {question}, {answer}, {option} and
    {reasoning}; DataError where a record has no reasoning that ends in its right option.
    """
    plain = [render_prompt(question, settings.prompt) for question in questions]
    weights = [getattr(settings.text, kind) for kind in KINDS]
    if not any(weights):
        return [Told(prompt) for prompt in plain]
    rng, told = random.Random(derive_seed(*where, "texts")), []
    for question, prompt in zip(questions, plain, strict=True):
        (kind,) = rng.choices((*KINDS, None), (*weights, max(0.0, 1 - sum(weights))))
        other = rng.choice([letter for letter in question.letters if letter != question.answer])
        if kind is None:
            told.append(Told(prompt))
        else:
            hint = question.answer if kind.startswith("right_") else other
            told.append(_placed(kind, prompt, _words(settings.text, _field(kind), question, hint), hint))
    return told


def require_reasonings(questions: Sequence[VisualQuestion], settings: DefenderSettings) -> None:
    """Raise DataError, as `tell` would in the midst of training, where words of a condition that is drawn are
    made of a record's reasoning, and a record has none that ends in its right option.
    """
    for kind in KINDS if settings.steps else ():
        if getattr(settings.text, kind) > 0 and "{reasoning}" in getattr(settings.text, _field(kind)):
            for question in questions:
                _ending_in(question, question.answer_text)


def _field(kind: Name) -> str:
    """The setting that holds a condition's template: right and wrong have the same."""
    return kind.removeprefix("wrong_").removeprefix("right_")


def _placed(kind: Name, prompt: str, words: str, hint: str) -> Told:
    """A caption stands before the question, a thought begins the reply."""
    if "caption" in kind:
        return Told(words + prompt, kind=kind, hint=hint)
    return Told(prompt, words, kind, hint)


def _option(question: VisualQuestion, letter: str) -> str:
    return question.options[LETTERS.index(letter)]


def _words(settings: TextSettings, field: str, question: VisualQuestion, hint: str) -> str:
    template, option = getattr(settings, field), _option(question, hint)
    return filled(
        template,
        f"defender.text.{field}",
        question=question.question,
        answer=hint,
        option=option,
        reasoning=_ending_in(question, option) if "{reasoning}" in template else "",
    )


def _ending_in(question: VisualQuestion, option: str) -> str:
    """The record's reasoning, the last mention of the right option replaced by that option. DataError where
    there is none.
    """
    before, found, after = (question.reasoning or "").rpartition(question.answer_text)
    if not found:
        raise DataError(
            f'question "{question.id}": its reasoning does not name the right option, '
            f'"{question.answer_text}", so no thought can be made of it. Add one to the record, or leave '
            f"{{reasoning}} out of defender.text."
        )
    return before + option + after
