"""Questions put to a Defender, and its replies read as answers: which option, and where its letter stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from PIL.Image import Image

from sparring.asking.answers import parse_answer, split_thought
from sparring.asking.prompts import render_prompt
from sparring.config import DefenderSettings
from sparring.data.errors import RefusedError
from sparring.data.records import Answer, VisualQuestion
from sparring.models.vlms.base import VLM, Reply, Sampling, generate_each


def ask(
    vlm: VLM,
    questions: Sequence[VisualQuestion],
    images: Sequence[Image],
    settings: DefenderSettings,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 128,
) -> list[Answer]:
    """One answer to every question about the picture beside it; greedy at temperature 0. At most `batch` are
    asked at a time.
    """
    prompts = [render_prompt(question, settings.prompt) for question in questions]
    replies = vlm.generate(
        images, prompts, sampling_of(settings, temperature=temperature, seed=seed, batch=batch)
    )
    return [read(own[0], question, vlm.name) for own, question in zip(replies, questions, strict=True)]


def ask_each(
    vlm: VLM,
    questions: Sequence[VisualQuestion],
    images: Sequence[Image],
    settings: DefenderSettings,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 128,
    numbers: Sequence[int] = (),
) -> list[Answer | RefusedError]:
    """As `ask`, with the error in the place of a question that the Defender refuses. numbers: of the
    questions, from which the random numbers follow; their places if left out.
    """
    prompts = [render_prompt(question, settings.prompt) for question in questions]
    sampling = sampling_of(settings, temperature=temperature, seed=seed, batch=batch)
    found = generate_each(vlm, images, prompts, replace(sampling, numbers=numbers))
    return [
        own if isinstance(own, RefusedError) else read(own[0], question, vlm.name)
        for own, question in zip(found, questions, strict=True)
    ]


def answered(
    questions: Sequence[VisualQuestion], found: Sequence[Answer | RefusedError], tell: Callable[[str], object]
) -> list[Answer]:
    """The answers among what `ask_each` gives; tell: is told of every question without one."""
    for question, own in zip(questions, found, strict=True):
        if isinstance(own, RefusedError):
            tell(f'question "{question.id}" gets no answer and is left out: {own}')
    return [own for own in found if isinstance(own, Answer)]


def sampling_of(
    settings: DefenderSettings, *, temperature: float = 0.0, seed: int = 0, batch: int = 128
) -> Sampling:
    """How a Defender's reply is drawn; a greedy one without top_p and top_k, which change nothing there."""
    if temperature == 0:
        return Sampling(settings.max_new_tokens, seed=seed, batch=batch)
    return Sampling(
        settings.max_new_tokens, temperature, settings.top_p, settings.top_k, seed=seed, batch=batch
    )


def read(reply: Reply, question: VisualQuestion, defender: str, start: str = "") -> Answer:
    """A reply as an answer: which option it chose, by which rule, and whether that is right. start: how it
    was begun for the Defender.
    """
    text = start + reply.text
    choice, rule = parse_answer(text, question.options)
    return Answer(question.id, defender, text, choice, rule, choice == question.answer, tokens=reply.tokens)


LETTER_BOX = re.compile(r"\\boxed\s*\{\s*\(?(?:\\text\s*\{\s*)?([A-Z])(?![A-Za-z])")
LETTER_WORD = re.compile(r"(?<![\w'’\\])\(?([A-Z])(?![\w'’])")


TRIED = 50
"""Letters of a reply that are tried at most, to find the one that answers."""


def letter_place(text: str, options: Sequence[str]) -> int | None:
    """Where the letter that answers stands in a reply; None where the reply is not read, or names its option
    in words alone.

    It is the first behind the thought; of what a reply ends with, the last. Of a statement it is the first
    with which the reply has answered, whatever comes before the next such letter: in "B. It is blue, so the
    answer is B" the first, after a list of the options the one that is stated.
    """
    choice, rule = parse_answer(text, options)
    said = split_thought(text)[1]
    if choice is None or said is None:
        return None
    start = max(len(text) - len(said), text.rfind("<answer>"))
    pattern = LETTER_BOX if rule == "boxed" else LETTER_WORD
    places = [match.start(1) for match in pattern.finditer(text, start) if match[1] == choice]
    if rule == "last":
        places.reverse()
    elif rule == "stated":
        for place, following in pairwise(places[:TRIED]):
            read, how = parse_answer(text[:following], options)
            if read == choice and how in ("whole", "first", "stated"):
                return place
        places.reverse()
    return next(iter(places), None)


def letter_behind(start: str, text: str, options: Sequence[str]) -> int | None:
    """`letter_place` in what was written behind `start`, which was put into the model's mouth; None where the
    letter stands in that.
    """
    own, put = answering(start, text)
    place = letter_place(own, options)
    return None if place is None or place < put else place - put


def answering(start: str, text: str) -> tuple[str, int]:
    """The part of a reply that is read for its answer, and how many of its characters were put there.

    What was put into the model's mouth is not its answer. A thought in tags is passed over by the parser,
    which needs to see it whole; where a thought without tags was begun, what follows is read alone.
    """
    return (start + text, len(start)) if "<think>" in start else (text, 0)
