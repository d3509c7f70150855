"""A Defender answers questions about pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL.Image import Image
from PIL.Image import open as open_image

from sparring.config import DefenderSettings
from sparring.data.errors import ModelError
from sparring.data.records import Answer, VisualQuestion
from sparring.defenders.answers import parse_answer
from sparring.defenders.prompts import render_prompt
from sparring.models.vlms.base import VLM, Reply
from sparring.models.vlms.processors import Takes


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
    """One answer to every question about the picture beside it; greedy at temperature 0. At most `batch` are asked at a time."""
    return [own[0] for own in ask_often(vlm, questions, images, settings, n=1, temperature=temperature, seed=seed, batch=batch)]


def try_ask(
    vlm: VLM, questions: Sequence[VisualQuestion], images: Sequence[Image], settings: DefenderSettings, *, batch: int = 128
) -> list[Answer | ModelError]:
    """One greedy answer to every question about the picture beside it, or the error by which there is none. Errors: as of `VLM.try_each`."""
    prompts = [render_prompt(question, settings.prompt) for question in questions]
    replies = vlm.try_each(images, prompts, max_new_tokens=settings.max_new_tokens, batch=batch)
    return [
        reply if isinstance(reply, ModelError) else read(reply, question, vlm.name)
        for reply, question in zip(replies, questions, strict=True)
    ]


def refused(takes: Takes, questions: Sequence[VisualQuestion], texts: Callable[[VisualQuestion], Sequence[str]]) -> dict[str, str]:
    """Question id -> why a model cannot be told its texts or shown its picture, as far as its processor says; the pictures are not decoded."""
    found = dict[str, str]()
    for question in questions:
        with open_image(question.image) as picture:
            said = takes.text(*texts(question)) or takes.picture(picture.size)
        if said:
            found[question.id] = said
    return found


def ask_often(
    vlm: VLM,
    questions: Sequence[VisualQuestion],
    images: Sequence[Image],
    settings: DefenderSettings,
    *,
    n: int,
    temperature: float,
    seed: int,
    batch: int = 128,
) -> list[list[Answer]]:
    """n sampled answers to every question. Those of question i depend on the seed and on i, not on the questions beside it."""
    prompts = [render_prompt(question, settings.prompt) for question in questions]
    replies = vlm.generate(
        images,
        prompts,
        n=n,
        max_new_tokens=settings.max_new_tokens,
        temperature=temperature,
        top_p=1.0 if temperature == 0 else settings.top_p,
        top_k=0 if temperature == 0 else settings.top_k,
        seed=seed,
        batch=batch,
    )
    return [[read(reply, question, vlm.name) for reply in own] for own, question in zip(replies, questions, strict=True)]


def read(reply: Reply, question: VisualQuestion, defender: str, start: str = "") -> Answer:
    """A reply as an answer: which option it chose, by which rule, and whether that is right. start: how it was begun for the Defender."""
    text = start + reply.text
    choice, rule = parse_answer(text, question.options)
    return Answer(question.id, defender, text, choice, rule, choice == question.answer, tokens=reply.tokens)
