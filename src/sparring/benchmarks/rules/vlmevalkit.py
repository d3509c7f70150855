"""VLMEvalKit's rules (github.com/open-compass/VLMEvalKit, state of August 2026) under its `exact_matching`
policy, where no judge model is asked.

Sources: vlmeval/utils/matching_util.py, vlmeval/dataset/utils/multiple_choice.py, yorn.py, hrbench.py,
vqa_eval.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparring.benchmarks.items import Answered, Item, Mark, Read, failed, judged
from sparring.benchmarks.rules.vqa import LONE_STOP, VLMEVALKIT, leave_one_out, without_marks
from sparring.data.records import LETTERS

REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
API_FAILED = "Failed to obtain answer via API"
NONE = "Z"
MISSING = frozenset(
    [
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
        "",
    ]
)
"""Texts that its reader of tables (`pandas.read_csv` with its defaults) takes for empty cells: no
options there.
"""
STATED = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**")
SPACED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def infer_option(
    reply: str, letters: Sequence[str], *, window: int | None = 5, stated: bool = True
) -> str | None:
    """The one letter among the reply's words, if it is one of the last `window` less one; else the
    letter of "answer is X"; "Z" for a refusal.
    """
    if API_FAILED in reply:
        return None
    if any(refusal in reply for refusal in REFUSALS):
        return NONE
    words = reply.translate(SPACED).split()
    present = [letter for letter in letters if letter in words]
    if len(present) == 1 and (window is None or words.index(present[0]) > len(words) - window):
        return present[0]
    if not present and NONE in words:
        return NONE
    match = STATED.search(reply) if stated else None
    return match[1].upper() if match and match[1].upper() in letters else None


def infer_text(reply: str, options: Mapping[str, str], *, limit: bool = True) -> str | None:
    """The letter of the only option whose words are in the reply; `limit`: the reply is at most twice as
    long as all options together.
    """
    said = reply.lower()
    if limit and len(said) > 2 * sum(len(option) for option in options.values()):
        return None
    found = [letter for letter, option in options.items() if option.lower() in said]
    return found[0] if len(found) == 1 else None


def options_of(item: Item) -> dict[str, str]:
    """Options by letter; an open question is asked as its answer against "Other Answers" (MMMU_preproc)."""
    if item.kind == "open":
        return {"A": item.answer, "B": "Other Answers"}
    return dict(zip(item.letters, item.options, strict=True))


def read_options(item: Item) -> dict[str, str]:
    """Those options that its reader of tables reads."""
    return {
        letter: text
        for letter, text in options_of(item).items()
        if item.kind == "open" or text not in MISSING
    }


def mmmu_options(item: Item) -> dict[str, str]:
    """The same for MMMU, where a question whose option A is missing is taken for an open one."""
    options = read_options(item)
    if "A" in options:
        return options
    return {"A": item.answer, "B": "Other Answers"} | {
        letter: text for letter, text in options.items() if letter > "B"
    }


def right_letter(item: Item) -> str:
    """The option that is right: of an open question A, or the answer where that is one capital letter."""
    return (
        "A" if item.kind == "open" and not (len(item.answer) == 1 and item.answer in LETTERS) else item.answer
    )


def _choices(known: Callable[[Item], dict[str, str]]) -> Callable[[Item], tuple[Sequence[str], str]]:
    return lambda item: (
        (item.choices, item.answer) if item.kind == "yes_no" else (list(known(item)), right_letter(item))
    )


choices, mmmu_choices = _choices(read_options), _choices(mmmu_options)


def _without_judge(known: Callable[[Item], dict[str, str]]) -> Read:
    def marks(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
        return [failed(one) or mark(one) for one in answered]

    def mark(one: Answered) -> Mark:
        options = known(one.item)
        said = infer_option(one.reply, list(options)) or infer_text(one.reply, options)
        right = float(said == right_letter(one.item))
        return Mark(said, right, "can_infer", "read" if said not in (None, NONE) else "unparsed")

    return marks


choice, mmmu = _without_judge(read_options), _without_judge(mmmu_options)


def custom(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """Each question by the rule for its kind: yes and no as words, others as options."""
    return [(yes_no if one.item.kind == "yes_no" else choice)([one], resources)[0] for one in answered]


def yes_no(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """Exactly one of the words yes and no is in the reply, punctuation taken out as VQA does."""
    return [failed(one) or judged(one, yes_or_no(one.reply), "one word") for one in answered]


def yes_or_no(reply: str) -> str | None:
    """ "yes" or "no" where exactly one of these words is in the reply."""
    words = without_marks(reply.lower(), stops=LONE_STOP).split()
    found = [word for word in ("yes", "no") if word in words]
    return found[0] if len(found) == 1 else None


def pictured_yes_no(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """The same for HallusionBench, whose TSV holds only questions with a picture."""
    return [
        only_pictured(one) or mark for one, mark in zip(answered, yes_no(answered, resources), strict=True)
    ]


def only_pictured(one: Answered) -> Mark | None:
    """Left out of the denominator: a question that was asked without a picture."""
    return None if one.item.meta.get("shown", True) else Mark(None, 0.0, "no picture", "left_out")


vqa = leave_one_out(VLMEVALKIT, "vqa_score", when_unanimous=True)
