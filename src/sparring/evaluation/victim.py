"""A Defender as the victim of a gradient attack: asked and read as it is in the game."""

from __future__ import annotations

from sparring.attackers.rivals.pgd import Victim
from sparring.config import DefenderSettings
from sparring.data.records import VisualQuestion
from sparring.defenders.answers import parse_answer
from sparring.defenders.prompts import render_prompt
from sparring.models.vlms.local import LocalVLM


def victim_of(vlm: LocalVLM, settings: DefenderSettings) -> Victim:
    """The Defender with its prompt, its reply's length and its parsing rules."""

    def right(question: VisualQuestion, reply: str) -> bool:
        return parse_answer(reply, question.options)[0] == question.answer

    return Victim(vlm, lambda question: render_prompt(question, settings.prompt), right, settings.max_new_tokens)
