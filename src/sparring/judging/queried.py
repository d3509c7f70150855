"""Which objects a question asks after: those that a judge counts before and after an edit."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sparring.config import Recipe
from sparring.data.records import VisualQuestion
from sparring.data.words import plural

_END = (
    r"(?=\s+(?:in|on|at|of|to|near|by|next|beside|behind|under|above|below|with|are|is|do|does|can|visible|shown|"
    r"present|here|there|anywhere)\b|\s*[?.,;]|\s*$)"
)
_EXISTS = re.compile(rf"\b(?:a|an|any|the)\s+(.+?){_END}", re.IGNORECASE)
_HOW_MANY = re.compile(rf"\bhow many\s+(.+?){_END}", re.IGNORECASE)


def queried_names(question: VisualQuestion) -> tuple[str, ...]:
    """The objects whose count must not change, each once: the targets' names, or else what the question's
    wording names.

    The wording is read only where a record has no target (there is none to box: "Is there a cup?" - "no"),
    by two rules of ours: X of "a / an / any / the X" in a question whose options are yes and no, and X of
    "how many Xs". Anything else has no queried object: ().
    """
    if question.targets:
        return tuple(dict.fromkeys(target.name for target in question.targets))
    if found := _HOW_MANY.search(question.question):
        return (_singular(found[1]),)
    if {option.strip().rstrip(".").lower() for option in question.options} == {"yes", "no"} and (
        found := _EXISTS.search(question.question)
    ):
        many = found[0].lower().startswith("any") or re.search(r"\bare\b", question.question, re.IGNORECASE)
        return (_singular(found[1]) if many else found[1],)
    return ()


def unguarded(recipe: Recipe, questions: Sequence[VisualQuestion]) -> str | None:
    """A warning where an edit may paint the right answer over and no check would object: of questions without
    boxes of which no judge model counts anything. None where there is no such question, or no Attacker that
    trains; what is not there ("Is there a cup?" - "no") cannot be painted over.
    """
    judged = recipe.judge.model is not None
    bare = sum(not (q.targets or _absent(q) or (judged and queried_names(q))) for q in questions)
    if not bare or not recipe.attacker.steps:
        return None
    counted = (
        "name nothing that the judge could count" if judged else "there is no judge that counts (judge.model)"
    )
    return (
        f"{bare} of {plural(len(questions), 'training question')} have no boxes (targets), and {counted}: "
        "nothing keeps an edit of their pictures from hiding what is asked about, which is what an Attacker "
        "then learns"
    )


def _absent(question: VisualQuestion) -> bool:
    return question.answer_text.strip().rstrip(".").lower() == "no"


def _singular(name: str) -> str:
    for ending, singular in (
        ("ies", "y"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("sses", "ss"),
        ("xes", "x"),
        ("ss", "ss"),
        ("s", ""),
    ):
        if name.lower().endswith(ending):
            return name[: -len(ending)] + singular
    return name
