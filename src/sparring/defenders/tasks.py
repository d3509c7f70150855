"""What a Defender in training is told beside the picture, and what its answer is paid."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sparring.asking.answers import boxed, parse_answer
from sparring.asking.prompts import filled, render_prompt
from sparring.config import DefenderSettings, TextSettings
from sparring.data.errors import DataError
from sparring.data.records import LETTERS, VisualQuestion
from sparring.seeds import derive_seed

KINDS = ("right_caption", "wrong_caption", "right_thought", "wrong_thought")


@dataclass(frozen=True, slots=True)
class Told:
    """The prompt, what the reply begins with, and the kind of perturbation, None for none."""

    prompt: str
    start: str = ""
    kind: str | None = None


def tell(questions: Sequence[VisualQuestion], settings: DefenderSettings, *where: int | str) -> list[Told]:
    """What is told with each question. Kinds, and the wrong options that are named, depend on the place of
    use alone.
    """
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
    return filled(
        template,
        f"defender.text.{field}",
        question=question.question,
        answer=letter,
        option=option,
        reasoning=reasoning,
    )


def _ending_in(question: VisualQuestion, option: str) -> str:
    """The record's reasoning, the last mention of the right option replaced by that option. DataError where
    there is none.
    """
    before, found, after = (question.reasoning or "").rpartition(question.answer_text)
    if not found:
        raise DataError(
            f'question "{question.id}": its reasoning does not name the right option, '
            f'"{question.answer_text}", so no thought can be made of it. Add '
            "one to the record, or leave {reasoning} out of defender.text."
        )
    return before + option + after


PREFIX = "reward_"
"""An answer's notes hold the parts under their names with this before them."""


BARE_BOX = re.compile(r"\\boxed\{([A-Z])\}")


LOOSE_BOX = re.compile(r"boxed\s*[{(\[]\s*([A-Z])\s*[})\]]", re.IGNORECASE)


def answer_reward(
    text: str, question: VisualQuestion, settings: DefenderSettings, *, consistent: bool | None = None
) -> dict[str, float]:
    """Name of a part -> what it adds to the reward; only parts that the settings ask for. `consistent`: None
    where nobody judged.
    """
    if settings.reward == "released":
        letter, formed = released_choice(text)
        right = letter == question.answer
    else:
        choice, rule = parse_answer(text, question.options)
        right = rule == "boxed" and choice == question.answer
        formed = right and well_formed(text, question.letters)
    parts = {
        "accuracy": settings.reward_accuracy if right else 0.0,
        "format": settings.reward_format if right and formed else 0.0,
    }
    if settings.consistency.role == "factor":
        parts["inconsistency"] = 0.0 if consistent else -(parts["accuracy"] + parts["format"])
    return parts


def well_formed(text: str, letters: tuple[str, ...]) -> bool:
    r"""The reply ends with its only box, which is exactly `\boxed{X}`, X being one of the letters."""
    end = re.search(r"\\boxed\{([A-Z])\}\s*$", text)
    return end is not None and end[1] in letters and len(boxed(text)) == 1


def released_choice(text: str) -> tuple[str | None, bool]:
    """(the letter that the AOT authors' reward reads or None, whether the reply is well formed to it)."""
    if bare := BARE_BOX.search(text):
        return bare[1], True
    loose = LOOSE_BOX.search(text)
    return (loose[1].upper() if loose else None), False
