"""Does the reasoning of an answer arrive at the answer? (arXiv 2602.12506: reinforcement learning raises
accuracy and lowers this.)

The verdict of the reasoning is read without the answer, and compared with it; by one rule where it is paid
and where it is measured: the last part of the reasoning between punctuation marks, where it is nothing but
an option, and else the last sentence that names one, both read as answers are. Or by a judge model: it is
told the question and the reasoning alone, beside an empty picture, because it shall read and not look. A
verdict that cannot be read, or reasoning that is not there, is no support of the answer: the answer counts
as inconsistent, and as unread.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from sparring.asking.answers import parse_answer, split_thought
from sparring.asking.prompts import filled, render_options
from sparring.config import ConsistencySettings
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion
from sparring.models.vlms.base import VLM, Sampling, ask_each_once

VERDICT_TOKENS = 16
MARKS = ".,;:!?\n"
SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
EMPTY = Image.new("RGB", (64, 64), (128, 128, 128))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a reasoning arrives: the letter of an option or None, and the rule that read it, or why none
    did.
    """

    letter: str | None
    rule: str


def reasoning_of(text: str) -> str:
    r"""The thought in tags (all of it, where it never ends), or else what comes before the first
    `\boxed`; "" where there is neither.
    """
    thought, after = split_thought(text)
    if after is None or len(after) < len(text):
        return thought
    before, boxed, _ = text.partition("\\boxed")
    return before.strip() if boxed else ""


def parted(reasoning: str) -> tuple[str, str]:
    """What comes before the last part between punctuation marks, and that part: where a reasoning says
    what it arrives at.
    """
    ended = reasoning.rstrip(f" {MARKS}")
    place = max(ended.rfind(mark) for mark in MARKS) + 1
    return ended[:place].rstrip(f" {MARKS}"), ended[place:].strip()


def verdict_of(reasoning: str, options: Sequence[str]) -> Verdict:
    """By rules: the last part, or the last sentence that has anything to say; where it is ambiguous, no
    earlier one is asked.
    """
    if not reasoning:
        return Verdict(None, "no_reasoning")
    letter, rule = parse_answer(parted(reasoning)[1], options)
    if letter is not None and rule == "whole":
        return Verdict(letter, rule)
    for sentence in reversed(SENTENCE_END.split(reasoning)):
        letter, rule = parse_answer(sentence, options)
        if letter is not None or rule != "unparsed":
            return Verdict(letter, rule)
    return Verdict(None, "unparsed")


class ConsistencyJudge:
    """Reads verdicts, by rules or by a judge model."""

    def __init__(self, settings: ConsistencySettings, model: VLM | None = None, *, batch: int = 128) -> None:
        """`model`: the one that settings.model names. RecipeError where it is missing."""
        if (settings.model is None) is not (model is None):
            raise RecipeError(
                f"defender.consistency.model is {settings.model}, but the judge model handed over is "
                f"{model and model.name}"
            )
        self.settings, self.model, self.batch = settings, model, batch

    def verdicts(self, questions: Sequence[VisualQuestion], replies: Sequence[str]) -> list[Verdict]:
        """Where the reasoning of each reply, to the question beside it, arrives."""
        reasonings = [reasoning_of(reply) for reply in replies]
        if self.model is None:
            return [
                verdict_of(reasoning, question.options)
                for reasoning, question in zip(reasonings, questions, strict=True)
            ]
        told = {(q, r): self._prompt(q, r) for q, r in zip(questions, reasonings, strict=True) if r}
        said = ask_each_once(
            self.model, [EMPTY] * len(told), list(told.values()), Sampling(VERDICT_TOKENS, batch=self.batch)
        )
        read = {
            key: Verdict(None, "refused")
            if reply is None
            else Verdict(*parse_answer(reply.text, key[0].options))
            for key, reply in zip(told, said, strict=True)
        }
        return [
            read.get((q, r), Verdict(None, "no_reasoning"))
            for q, r in zip(questions, reasonings, strict=True)
        ]

    def _prompt(self, question: VisualQuestion, reasoning: str) -> str:
        parts = {"question": question.question, "options": render_options(question), "reasoning": reasoning}
        return filled(self.settings.prompt, "defender.consistency.prompt", **parts)
