"""A VLM asked by templates, and its replies taken strictly: a verdict by majority, or boxes with names. What
is not in the form asked for is nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from PIL.Image import Image

from sparring.config import PanelSettings
from sparring.data.errors import RecipeError, RefusedError
from sparring.data.records import Box, VisualQuestion
from sparring.models.vlms.base import VLM, Sampling, generate_each

TEMPLATES = ("composition", "duplication", "harmless", "locate", "propose", "realism")

UNPARSED = "unparsed"
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a panel decided, and why: the first reason given by the side that won."""

    passed: bool
    reason: str
    passes: int
    votes: int


class Panel:
    """Puts one question about every picture several times; it passes where more than half of the replies say
    so.
    """

    def __init__(self, vlm: VLM, settings: PanelSettings) -> None:
        self.vlm, self.settings = vlm, settings

    def vote(
        self, template: str, images: Sequence[Image], fields: Sequence[Mapping[str, str]], seed: int
    ) -> list[Ballot | RefusedError]:
        """A ballot for every picture, asked by the template of that name with its fields, or the error by
        which there is none. Greedy replies are asked for once: they are all the same.
        """
        if not images:
            return []
        prompts = [fill_template(template, own, self.settings.templates) for own in fields]
        votes = 1 if self.settings.temperature == 0 else self.settings.votes
        limit, temperature = self.settings.max_new_tokens, self.settings.temperature
        sampling = Sampling(limit, temperature, seed=seed, n=votes, batch=16)
        replies = generate_each(self.vlm, images, prompts, sampling)
        return [
            own if isinstance(own, RefusedError) else count([parse_verdict(reply.text) for reply in own])
            for own in replies
        ]


def count(verdicts: Sequence[tuple[bool, str]]) -> Ballot:
    """The majority of (passed, reason); a tie has not passed."""
    passes = sum(passed for passed, _ in verdicts)
    won = 2 * passes > len(verdicts)
    return Ballot(won, next(reason for passed, reason in verdicts if passed == won), passes, len(verdicts))


def parse_verdict(reply: str) -> tuple[bool, str]:
    """(passed, reason) of a reply. One that is not exactly {"verdict": "pass" or "fail", "reason": text} has
    failed, as unparsed.
    """
    found = _json(reply)
    if (
        not isinstance(found, dict)
        or found.keys() != {"verdict", "reason"}
        or found["verdict"] not in ("pass", "fail")
    ):
        return False, UNPARSED
    if not isinstance(found["reason"], str) or not found["reason"].strip():
        return False, UNPARSED
    return found["verdict"] == "pass", found["reason"].strip()


def parse_boxes(reply: str, key: str, size: tuple[int, int]) -> list[tuple[str, Box]] | None:
    """(text under `key`, box in pixels of a picture of that size) of a list of {key: text, "box": four
    thousandths}; None where it is not one.
    """
    found = _json(reply)
    if not isinstance(found, list):
        return None
    boxes = []
    for item in found:
        if (
            not isinstance(item, dict)
            or item.keys() != {key, "box"}
            or not isinstance(item[key], str)
            or not isinstance(item["box"], list)
        ):
            return None
        sides = item["box"]
        if len(sides) != 4 or not all(type(side) in (int, float) and abs(side) < 2**31 for side in sides):
            return None
        x0, y0, x1, y1 = (round(side * size[axis % 2] / 1000) for axis, side in enumerate(sides))
        boxes.append((item[key].strip(), (x0, y0, x1, y1)))
    return boxes


def _json(reply: str) -> Any:
    text = reply.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def require_templates(folder: str | None) -> None:
    """Raise RecipeError where a folder of templates holds none that would be used."""
    names = [f"{name}.txt" for name in TEMPLATES]
    if folder and not any(Path(folder, name).is_file() for name in names):
        raise RecipeError(f"stages.panel.templates: {folder} holds none of {', '.join(names)}.")


def fill_template(name: str, fields: Mapping[str, str], folder: str | None) -> str:
    """The template of that name, from the folder or else the bundled one, with $placeholders filled in.
    RecipeError for an unknown placeholder.
    """
    own = Path(folder, f"{name}.txt") if folder else None
    text = (
        own.read_text(encoding="utf-8")
        if own and own.is_file()
        else files("sparring.forge").joinpath(f"templates/{name}.txt").read_text("utf-8")
    )
    try:
        return Template(text).substitute(fields).strip()
    except (KeyError, ValueError) as error:
        raise RecipeError(
            f"forge.panel.templates: {name}.txt cannot be filled in: {error!r}. Known are "
            f"{', '.join('$' + f for f in fields)}."
        ) from error


def fields_of(question: VisualQuestion) -> dict[str, str]:
    """What templates may say of a question."""
    names = [target.name for target in question.targets]
    return {
        "question": question.question,
        "options": ", ".join(question.options),
        "answer": question.answer_text,
        "targets": ", ".join(dict.fromkeys(names)) or "nothing in particular",
        "counts": ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "none",
    }
