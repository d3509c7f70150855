"""What a Defender in training is told beside the picture: the question, and for some groups a caption or the beginning of a thought, right or wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sparring.config import DefenderSettings, TextSettings
from sparring.data.errors import DataError
from sparring.data.records import LETTERS, VisualQuestion
from sparring.defenders.prompts import filled, render_prompt
from sparring.rl.seeds import derive_seed

KINDS = ("right_caption", "wrong_caption", "right_thought", "wrong_thought")


@dataclass(frozen=True, slots=True)
class Told:
    """The prompt, what the reply begins with, and the kind of perturbation, None for none."""

    prompt: str
    start: str = ""
    kind: str | None = None


def tell(questions: Sequence[VisualQuestion], settings: DefenderSettings, *where: int | str) -> list[Told]:
    """What is told with each question. Kinds, and the wrong options that are named, depend on the place of use alone."""
    plain = [render_prompt(question, settings.prompt) for question in questions]
    weights = [getattr(settings.text, kind) for kind in KINDS]
    if not any(weights):
        return [Told(prompt) for prompt in plain]
    rng, told = random.Random(derive_seed(*where, "texts")), []
    for question, prompt in zip(questions, plain, strict=True):
        (kind,) = rng.choices((*KINDS, None), (*weights, max(0.0, 1 - sum(weights))))
        other = rng.choice([letter for letter in question.letters if letter != question.answer])
        named = question.answer if kind is None or kind.startswith("right") else other
        if kind is None:
            told.append(Told(prompt))
        elif kind.endswith("caption"):
            told.append(Told(_filled(settings.text, "caption", question, named) + prompt, kind=kind))
        else:
            told.append(Told(prompt, _filled(settings.text, "thought", question, named), kind))
    return told


def _filled(settings: TextSettings, field: str, question: VisualQuestion, letter: str) -> str:
    template, option = getattr(settings, field), question.options[LETTERS.index(letter)]
    reasoning = _ending_in(question, option) if "{reasoning}" in template else ""
    return filled(template, f"defender.text.{field}", question=question.question, answer=letter, option=option, reasoning=reasoning)


def _ending_in(question: VisualQuestion, option: str) -> str:
    """The record's reasoning, the last mention of the right option replaced by that option. DataError where there is none."""
    before, found, after = (question.reasoning or "").rpartition(question.answer_text)
    if not found:
        raise DataError(
            f'question "{question.id}": its reasoning does not name the right option, "{question.answer_text}", so no thought can be made of it. Add '
            "one to the record, or leave {reasoning} out of defender.text."
        )
    return before + option + after
