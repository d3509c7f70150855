"""A Defender answers questions about pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL.Image import Image
from PIL.Image import open as open_image

from sparring.config import DefenderSettings
from sparring.data.errors import DataError, ModelError, RecipeError, RefusedError
from sparring.data.records import Answer, VisualQuestion
from sparring.defenders.answers import parse_answer
from sparring.engine.screen import Screen
from sparring.models.vlms.address import is_endpoint
from sparring.models.vlms.base import VLM, Reply, Sampling, generate_each
from sparring.models.vlms.processors import Takes, load_processor


def render_options(question: VisualQuestion) -> str:
    """One option a line: "A. left", "B. right"."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(question.letters, question.options, strict=True))


def render_prompt(question: VisualQuestion, template: str) -> str:
    r"""`template` with {question} and {options} filled in; {{ and }} are literal braces (`\boxed{{}}`). RecipeError for another placeholder."""
    return filled(template, "defender.prompt", question=question.question, options=render_options(question))


def filled(template: str, field: str, **parts: str) -> str:
    """`template` with its placeholders replaced by `parts`; `field` is the setting that holds it. RecipeError for another placeholder, naming those that are."""
    try:
        return template.format(**parts)
    except (KeyError, IndexError, ValueError) as error:
        *names, last = (f"{{{name}}}" for name in parts)
        raise RecipeError(
            f"{field} {template!r} cannot be filled in: {error!r}. Its placeholders are {', '.join(names)} and {last}; write {{{{ and }}}} for braces."
        ) from error


def render_reply(question: VisualQuestion, template: str) -> str:
    """The reply to be learned: `template` with {reasoning}, {answer} and {option} filled in. RecipeError for another placeholder."""
    parts = {"reasoning": question.reasoning or "", "answer": question.answer, "option": question.answer_text}
    return filled(template, "defender.reply", **parts).strip()


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
    prompts = [render_prompt(question, settings.prompt) for question in questions]
    replies = vlm.generate(images, prompts, sampling_of(settings, temperature=temperature, seed=seed, batch=batch))
    return [read(own[0], question, vlm.name) for own, question in zip(replies, questions, strict=True)]


def try_ask(
    vlm: VLM, questions: Sequence[VisualQuestion], images: Sequence[Image], settings: DefenderSettings, *, batch: int = 128
) -> list[Answer | ModelError]:
    """One greedy answer to every question about the picture beside it, or the error by which there is none.
    Errors: as of `VLM.try_each`.
    """
    prompts = [render_prompt(question, settings.prompt) for question in questions]
    replies = vlm.try_each(images, prompts, Sampling(settings.max_new_tokens, batch=batch))
    return [
        reply if isinstance(reply, ModelError) else read(reply, question, vlm.name)
        for reply, question in zip(replies, questions, strict=True)
    ]


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
    found = generate_each(vlm, images, prompts, sampling_of(settings, temperature=temperature, seed=seed, batch=batch))
    return [
        own if isinstance(own, RefusedError) else read(own[0], question, vlm.name) for own, question in zip(found, questions, strict=True)
    ]


def answered(questions: Sequence[VisualQuestion], found: Sequence[Answer | RefusedError], tell: Callable[[str], object]) -> list[Answer]:
    """The answers among what `ask_each` gives; tell: is told of every question without one."""
    for question, own in zip(questions, found, strict=True):
        if isinstance(own, RefusedError):
            tell(f'question "{question.id}" gets no answer and is left out: {own}')
    return [own for own in found if isinstance(own, Answer)]


def sampling_of(settings: DefenderSettings, *, temperature: float = 0.0, seed: int = 0, batch: int = 128) -> Sampling:
    """How a Defender's reply is drawn; a greedy one without top_p and top_k, which change nothing there."""
    if temperature == 0:
        return Sampling(settings.max_new_tokens, seed=seed, batch=batch)
    return Sampling(settings.max_new_tokens, temperature, settings.top_p, settings.top_k, seed=seed, batch=batch)


def read(reply: Reply, question: VisualQuestion, defender: str, start: str = "") -> Answer:
    """A reply as an answer: which option it chose, by which rule, and whether that is right. start: how it was begun for the Defender."""
    text = start + reply.text
    choice, rule = parse_answer(text, question.options)
    return Answer(question.id, defender, text, choice, rule, choice == question.answer, tokens=reply.tokens)


SHOWN = 5  # questions set aside that are named; the rest are counted


def takes_of(settings: DefenderSettings) -> Takes | None:
    """What a Defender on this machine takes, by its processor; None for an endpoint, which says so itself.
    Raises ModelError where it cannot be had.
    """
    if is_endpoint(settings.model):
        return None
    return Takes(load_processor(settings.model, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels))


def taken(
    takes: Takes, settings: DefenderSettings, questions: list[VisualQuestion], screen: Screen, *, with_replies: bool = False
) -> list[VisualQuestion]:
    """The questions that a Defender on this machine can be asked; the others are named with the reason and
    set aside.

    with_replies: the replies that it is to learn must be such as can be told too. Raises DataError where
    none is left.
    """

    def texts(question: VisualQuestion) -> list[str]:
        reply = [render_reply(question, settings.reply)] if with_replies else []
        return [render_prompt(question, settings.prompt), *reply]

    found = refused(takes, questions, texts)
    for name, reason in list(found.items())[:SHOWN]:
        screen.warn(f'question "{name}" is set aside, as the Defender does not take it: {reason}')
    if len(found) > SHOWN:
        screen.warn(f"{len(found) - SHOWN} more questions are set aside, as the Defender does not take them")
    if len(found) == len(questions):
        name, reason = next(iter(found.items()), ("", "there are none"))
        raise DataError(f'the Defender takes none of {len(questions)} questions; the first one, "{name}": {reason}')
    return [question for question in questions if question.id not in found]


def refused(takes: Takes, questions: Sequence[VisualQuestion], texts: Callable[[VisualQuestion], Sequence[str]]) -> dict[str, str]:
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
    return f"the Defender refused {len(ids)} question(s), left out: {named}"
