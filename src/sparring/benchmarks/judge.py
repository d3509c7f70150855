"""A judge model as the last reader: which option does a reply choose, where the rules of a harness that asks
one have read nothing?

The judge is shown question, options and reply, and no picture. It must say one option and nothing else, or
"none"; whatever else it says leaves the reply unparsed (VLMEvalKit draws an option at random then, which is
not done here). It is asked once a reply, for all profiles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparring.benchmarks.items import YES_NO, Answered, Item, Mark
from sparring.benchmarks.profiles import Rule, profiles_of, rule_of
from sparring.benchmarks.rules.vlmevalkit import options_of, right_letter

if TYPE_CHECKING:
    from sparring.asking.desk import Desk


TOKENS = 16
BATCH = 8
NONE = "none"
RULE = "judge"
PROMPT = """A question was put to somebody, and this is the reply. Do not answer the question; say what the reply answers.

Question: {question}
Possible answers:
{options}

Reply: {reply}

Which of the possible answers does the reply settle on? Write {how} and nothing else. Write none if it settles on no answer, on several, or on another one."""


def judge_prompt(answered: Answered) -> str:
    """What the judge is told of one reply."""
    item = answered.item
    if item.kind == "yes_no":
        options = (
            "\n".join(f"{letter}. {word}" for letter, word in zip("AB", YES_NO, strict=True))
            if item.options
            else "\n".join(YES_NO)
        )
    else:
        options = "\n".join(f"{letter}. {text}" for letter, text in options_of(item).items())
    how = "yes or no" if item.kind == "yes_no" else "its letter"
    return PROMPT.format(question=item.question, options=options, reply=answered.reply.strip(), how=how)


def verdict(item: Item, text: str) -> str | None:
    """What the judge says: the letter of an option, yes or no, or "none"; None where it says anything else
    than one of these alone.
    """
    said = text.strip().strip("().*\"'`").strip().lower()
    allowed = {*item.choices} if item.choices else {*options_of(item)}
    return next((word for word in (*sorted(allowed), NONE) if said == word.lower()), None)


def read_marks(rule: Rule, answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """The marks of a profile's rule, and of the judge where the rule read nothing and the harness
    asks one.
    """
    marks = rule.read(answered, resources)
    return [_judged(one, mark) for one, mark in zip(answered, marks, strict=True)] if rule.unjudged else marks


def _unread(mark: Mark) -> bool:
    # A refusal is read, as no answer: the harness asks nobody about it.
    return mark.status == "unparsed" and mark.said is None


def _judged(one: Answered, mark: Mark) -> Mark:
    said = None if one.judge_reply is None or not _unread(mark) else verdict(one.item, one.judge_reply)
    if said in (None, NONE):
        return mark
    return Mark(said, float(said == right_letter(one.item)), RULE)


def ask_judge(
    desk: Desk, answered: Sequence[Answered], benchmark: str, resources: Mapping[str, Any]
) -> list[Answered]:
    """The answers with what the judge says of every reply that some profile's rule, whose harness asks a
    judge, did not read.
    """
    from sparring.asking.desk import Query

    wanted: dict[str, Answered] = {}
    for rule in (rule_of(profile, benchmark) for profile in profiles_of(benchmark)):
        if rule.unjudged:
            for one, mark in zip(answered, rule.read(answered, resources), strict=True):
                if _unread(mark) and one.reply.strip():
                    wanted[one.item.id] = one
    queries = (Query(one.item.id, (), judge_prompt(one)) for one in wanted.values())
    said = {raw.id: raw for raws in desk.ask(queries) for raw in raws} if wanted else {}
    return [
        replace(
            one,
            judge_asked=one.item.id in said,
            judge_reply=said[one.item.id].text
            if one.item.id in said and not said[one.item.id].trouble
            else None,
        )
        for one in answered
    ]


def judge_figures(answered: Sequence[Answered]) -> dict[str, int]:
    """How many replies the judge was asked about: named an option, "none", neither in the form that is
    wanted; and how many requests were given up.
    """
    asked = [one for one in answered if one.judge_asked]
    words = Counter(
        "given_up"
        if one.judge_reply is None
        else {None: "malformed", NONE: "none"}.get(verdict(one.item, one.judge_reply), "read")
        for one in asked
    )
    return {"asked": len(asked), **{name: words[name] for name in ("read", "none", "malformed", "given_up")}}
