"""Our rules: one unambiguous answer, or unparsed, which counts as wrong and is reported."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from sparring.asking.answers import boxed, parse_answer, parse_yes_no, split_thought
from sparring.benchmarks.chair import vocabulary_of
from sparring.benchmarks.items import Answered, Mark, failed, judged
from sparring.benchmarks.rules.vqa import OFFICIAL, soft_score, stripped
from sparring.data.records import LETTERS


def strict(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """`sparring`: `asking.answers` for options and for yes and no; free answers must be the reference
    but for case, articles and punctuation.
    """
    return [failed(one) or _strict(one, resources) for one in answered]


def _strict(one: Answered, resources: Mapping[str, Any]) -> Mark:
    if one.item.kind == "choice":
        said, rule = parse_answer(one.reply, one.item.options)
        return judged(one, said, rule)
    if one.item.kind == "yes_no":
        if one.item.options:  # shown as options: the reply is a letter, or the word
            letter, rule = parse_answer(one.reply, one.item.options)
            return judged(one, None if letter is None else one.item.options[LETTERS.index(letter)], rule)
        said, rule = parse_yes_no(one.reply)
        return judged(one, said, rule)
    if one.item.kind == "caption":
        return caption(one, resources)
    text, rule = free_answer(one.reply)
    if text is None:
        return Mark(None, 0.0, rule, "unparsed")
    references = one.item.meta.get("references")
    if references:
        score, said = soft_score(OFFICIAL, text, references)
        return Mark(said, score, rule)
    accepted = one.item.meta.get("accepted") or alternatives(one.item.answer)
    right = {OFFICIAL(stripped(reference)) for reference in accepted}
    return Mark(text, float(OFFICIAL(stripped(text)) in right), rule)


def alternatives(answer: str) -> list[str]:
    """The texts that answer an open question: those of a list of texts (MMMU writes them so), else the
    answer itself.
    """
    if answer.startswith("["):
        try:
            listed = ast.literal_eval(answer)
        except (ValueError, SyntaxError):
            return [answer]
        if isinstance(listed, list) and listed and all(isinstance(text, str) for text in listed):
            return listed
    return [answer]


def free_answer(reply: str) -> tuple[str | None, str]:
    """The text that a free answer gives: what is boxed, else the whole reply without its thought; None
    where there is none or several.
    """
    said = split_thought(reply)[1]
    if said is None:
        return None, "unfinished_thought"
    found = [text.strip() for text in boxed(said) if text.strip()]
    if found:
        return (
            (found[0], "boxed")
            if len({text.casefold() for text in found}) == 1
            else (None, "ambiguous_boxed")
        )
    plain = said.strip()
    return (plain, "whole") if plain else (None, "unparsed")


def caption(one: Answered, resources: Mapping[str, Any]) -> Mark:
    """CHAIR: which annotated objects a caption names, and which that are not there; right is a caption
    without any of these.
    """
    named = vocabulary_of(tuple(resources["synonyms"])).objects(one.reply)
    wrong = [name for name in named if name not in one.item.meta["objects"]]
    return Mark(", ".join(named), float(not wrong), "objects", detail={"named": named, "hallucinated": wrong})
