"""Questions put to a Defender, and its replies read as answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL.Image import Image

from sparring.asking.answers import parse_answer
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
) -> list[Answer | RefusedError]:
    """As `ask`, with the error in the place of a question that the Defender refuses."""
    prompts = [render_prompt(question, settings.prompt) for question in questions]
    found = generate_each(
        vlm, images, prompts, sampling_of(settings, temperature=temperature, seed=seed, batch=batch)
    )
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
