"""Questions that a Defender does not take, found before it is asked and named after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL.Image import open as open_image

from sparring.asking.prompts import render_prompt, render_reply, reply_of
from sparring.config import DefenderSettings
from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion
from sparring.data.words import plural
from sparring.engine.screen import Screen
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.processors import Takes, load_processor

SHOWN = 5  # questions set aside that are named; the rest are counted


def takes_of(settings: DefenderSettings) -> Takes | None:
    """What a Defender on this machine takes, by its processor; None for an endpoint, which says so itself.
    Raises ModelError where it cannot be had.
    """
    if is_endpoint(settings.model):
        return None
    return Takes(
        load_processor(settings.model, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)
    )


def taken(
    takes: Takes,
    settings: DefenderSettings,
    questions: list[VisualQuestion],
    screen: Screen,
    *,
    with_replies: bool = False,
) -> list[VisualQuestion]:
    """The questions that a Defender on this machine can be asked; the others are named with the reason and
    set aside.

    with_replies: the replies that it is to learn must be such as can be told too. Raises DataError where
    none is left.
    """

    def texts(question: VisualQuestion) -> list[str]:
        reply = [render_reply(question, reply_of(settings))] if with_replies else []
        return [render_prompt(question, settings.prompt), *reply]

    found = refused(takes, questions, texts)
    for name, reason in list(found.items())[:SHOWN]:
        screen.warn(f'question "{name}" is set aside, as the Defender does not take it: {reason}')
    if len(found) > SHOWN:
        screen.warn(f"{len(found) - SHOWN} more questions are set aside, as the Defender does not take them")
    if len(found) == len(questions):
        name, reason = next(iter(found.items()), ("", "there are none"))
        raise DataError(
            f'the Defender takes none of {plural(len(questions), "question")}; the first one, "{name}": '
            f"{reason}"
        )
    return [question for question in questions if question.id not in found]


def refused(
    takes: Takes, questions: Sequence[VisualQuestion], texts: Callable[[VisualQuestion], Sequence[str]]
) -> dict[str, str]:
    """Question id -> why a model cannot be told its texts or shown its picture, as far as its processor
    says; the pictures are not decoded.
    """
    found = dict[str, str]()
    for question in questions:
        with open_image(question.image) as picture:
            said = takes.text(*texts(question)) or takes.picture(picture.size)
        if said:
            found[question.id] = said
    return found


def left_out_text(ids: Sequence[str]) -> str:
    """How many questions were left out, and the first of them by name."""
    named = ", ".join(f'"{name}"' for name in ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
    return f"the Defender refused {plural(len(ids), 'question')}, left out: {named}"
