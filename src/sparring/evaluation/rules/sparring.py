"""Our own rules: one unambiguous answer, or unparsed, which counts as wrong and is reported; and the strict ones of AOT's evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparring.data.records import LETTERS
from sparring.defenders.answers import boxed, parse_answer, parse_yes_no
from sparring.evaluation.chair import vocabulary_of
from sparring.evaluation.items import YES_NO
from sparring.evaluation.marks import Answered, Mark, failed, judged
from sparring.evaluation.rules.vqa import OFFICIAL, soft_score, stripped


def strict(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """`sparring`: `defenders.answers` for options and for yes and no; free answers must be the reference but for case, articles and punctuation."""
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
    accepted = one.item.meta.get("accepted", [one.item.answer])  # a list of references: any of them is right
    right = any(OFFICIAL(stripped(text)) == OFFICIAL(stripped(reference)) for reference in accepted)
    return Mark(text, float(right), rule)


def free_answer(reply: str) -> tuple[str | None, str]:
    """The text that a free answer gives: what is boxed, else the whole reply without its thought; None where there is none or several."""
    said = reply.rpartition("</think>")[2] if "</think>" in reply else reply
    if "<think>" in said:
        return None, "unfinished_thought"
    found = [text.strip() for text in boxed(said) if text.strip()]
    if found:
        return (found[0], "boxed") if len({text.casefold() for text in found}) == 1 else (None, "ambiguous_boxed")
    plain = said.strip()
    return (plain, "whole") if plain else (None, "unparsed")


def caption(one: Answered, resources: Mapping[str, Any]) -> Mark:
    """CHAIR: which annotated objects a caption names, and which that are not there; right is a caption without any of these."""
    named = vocabulary_of(tuple(resources["synonyms"])).objects(one.reply)
    wrong = [name for name in named if name not in one.item.meta["objects"]]
    return Mark(", ".join(named), float(not wrong), "objects", detail={"named": named, "hallucinated": wrong})


def aot(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    r"""`aot-strict`: what the last \boxed{} holds is a letter (or yes, no) and nothing else, in every trial; pictures that cannot be read are left out."""
    marks = []
    for one in answered:
        missing = failed(one, leave_out=("picture",))
        if missing is not None:
            marks.append(missing)
            continue
        said = [_boxed_choice(one, reply) for reply in one.replies]
        wrong = next((word for word in said if word != one.item.answer), one.item.answer)
        marks.append(judged(one, wrong, "boxed"))
    return marks


def _boxed_choice(one: Answered, reply: str) -> str | None:
    found = boxed(reply)
    if not found:
        return None
    word = found[-1].strip()
    if one.item.kind == "yes_no":
        by_letter = dict(zip(one.item.letters, one.item.options, strict=True))
        word = by_letter.get(word.upper(), word.lower())
        return word if word in YES_NO else None
    return word.upper() if len(word) == 1 and word.upper() in one.item.letters else None
