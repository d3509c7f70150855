"""lmms-eval's rules (github.com/EvolvingLMMs-Lab/lmms-eval, state of August 2026) as its command runs,
where they need no judge model.

Sources:
lmms_eval/tasks/{vstar_bench,hrbench,pope,hallusion_bench,mmmu,mmstar,realworldqa,blink,ai2d,vqav2}/utils.py,
tasks/_task_utils/mcq_extract.py and mmmu_mcq_utils.py; the command's default `--reasoning_tags`,
api/reasoning.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sparring.benchmarks.items import Answered, Mark, Read, each, failed, judged
from sparring.benchmarks.rules.official import mmmu_marks
from sparring.benchmarks.rules.vlmevalkit import NONE, infer_option, infer_text, only_pictured
from sparring.benchmarks.rules.vqa import LMMS, leave_one_out

REASONING = (("<think>", "</think>"), ("<analysis>", "</analysis>"))
FIRST_FOUR = ("A", "B", "C", "D")
VSTAR = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^([A-D])\s*[\.)\]]*",
        r"(?:THE\s+)?(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])",
        r"\(([A-D])\)",
        r"([A-D])\s*(?:\.|\)|])",
        r"(?:^|\s)([A-D])(?:\s|$)",
    )
)
STARTS = re.compile(r"[\(\s]*([A-Z])[\)\.\s]*", re.IGNORECASE)
AI2D = re.compile(r"^\s*([A-Z])\.")
PUNCTUATION = str.maketrans("", "", string.punctuation)
PHRASES = [
    "the answer is",
    "answer is",
    "the correct answer is",
    "correct answer is",
    "the best answer is",
    "best answer is",
    "the correct option is",
    "correct option is",
    "the best option is",
    "best option is",
    "the choice is",
    "choice is",
    "the correct choice is",
    "correct choice is",
    "i choose",
    "i select",
    "i pick",
    "my answer is",
    "my choice is",
    "옵션",
    "정답은",
    "답은",
    "답:",
    "答案是",
    "答案为",
    "选",
    "答えは",
]


def without_reasoning(reply: str) -> str:
    """A reply as the command hands it to a task: without blocks of reasoning, and space around it. A block
    that never ends stays.

    Where a block's beginning was part of the prompt, what follows its last end is left.
    """
    for begins, ends in REASONING:
        start = reply.find(begins)
        while start >= 0 and (end := reply.find(ends, start)) >= 0:
            reply = reply[:start] + reply[end + len(ends) :]
            start = reply.find(begins)
        if start < 0 and ends in reply:
            reply = reply.rpartition(ends)[2]
    return reply.strip()


def as_run(read: Read) -> Read:
    """The rule of a task on replies as the command hands them to it."""

    def cleaned(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
        return read(
            [replace(one, replies=tuple(map(without_reasoning, one.replies))) for one in answered], resources
        )

    return cleaned


def vstar_letter(one: Answered) -> str | None:
    """The first pattern that matches, tried in turn on the reply in capitals: the first letter of "As
    the image shows" is A.
    """
    reply = one.reply.strip().upper()
    match = next((found for pattern in VSTAR if (found := pattern.search(reply))), None)
    if match:
        return match[1].upper()
    letters = re.findall(r"[A-D]", reply)
    return letters[0] if len(letters) == 1 else None


def extracted_letter(reply: str, letters: Sequence[str] = FIRST_FOUR) -> str | None:
    """`extract_mcq_answer`: letters in several forms, the best form wins, then the latest place, then
    the earlier letter.
    """
    if not reply.strip():
        return None
    text = reply.strip()
    for mark in (",", ".", "!", "?", ";", ":", "'", '"'):
        text = text.strip(mark)
    text = f" {text} "
    inner, lower = text.strip(), text.lower()
    found: list[tuple[int, int, str]] = []
    for rank, form in ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} ")):
        found += [
            (rank, text.rfind(form.format(letter)), letter)
            for letter in letters
            if form.format(letter) in text
        ]
    for phrase in PHRASES:
        place = lower.find(phrase)
        if place != -1:
            after = place + len(phrase)
            found += [
                (7, text.find(letter, after), letter) for letter in letters if text.find(letter, after) != -1
            ]
    for letter in letters:
        if inner.startswith(letter) and (len(inner) == 1 or not inner[1].isalpha()):
            found.append((10, 0, letter))
        if inner.endswith(letter) and (len(inner) == 1 or not inner[-2].isalpha()):
            found.append((9, len(text) - 1, letter))
    if not found:
        found = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(found, key=lambda one: one[:2])[2] if found else None


def hrbench_mark(one: Answered) -> Mark:
    """VLMEvalKit's inference of an older state: anywhere in the reply, and however long it is. Its judge
    is not asked about refusals.
    """
    options = dict(zip(one.item.letters, one.item.options, strict=True))
    said = infer_option(one.reply, list(options), window=None, stated=False) or infer_text(
        one.reply, options, limit=False
    )
    return judged(one, said, "can_infer", status="unparsed" if said in (None, NONE) else "read")


def hrbench(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """HR-Bench without a judge."""
    return [failed(one) or hrbench_mark(one) for one in answered]


def realworld_answer(one: Answered) -> str | None:
    """A letter where the answer is one of the first four, else the reply in lower case, which must be
    the answer.
    """
    if one.item.answer.strip().upper() in FIRST_FOUR:
        return extracted_letter(one.reply)
    same = one.reply.lower().strip().rstrip(".") == one.item.answer.strip().lower()
    return one.item.answer if same else (one.reply.strip() or None)


def ai2d_letter(one: Answered) -> str | None:
    """ "B. ..." at the beginning of the raw reply is B; any other must be the letter, but for reasoning,
    case and punctuation.
    """
    match = AI2D.match(one.reply)
    plain = (match[1] if match else without_reasoning(one.reply)).lower().translate(PUNCTUATION)
    return plain.upper() if plain.upper() in one.item.letters else None


def blink_letter(one: Answered) -> str | None:
    """The first letter of the reply, whatever word it begins."""
    match = STARTS.match(one.reply.strip())
    return match[1].upper() if match else None


def pope_answer(one: Answered) -> str | None:
    """The whole reply is yes or no: "Yes." is neither."""
    said = one.reply.lower().strip()
    return said if said in ("yes", "no") else None


vstar, ai2d = each(vstar_letter, "patterns"), each(ai2d_letter, "exact_match")
mmstar = each(lambda one: extracted_letter(one.reply), "extract_mcq_answer")
realworldqa, blink, pope = (
    each(realworld_answer, "exact_match"),
    each(blink_letter, "first letter"),
    each(pope_answer, "exact"),
)


def mmmu(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """Options as by MMMU's script, guesses included; open questions never count: its rule walks over the
    characters of what was read.
    """
    return mmmu_marks(answered, lambda one: Mark(one.reply, 0.0, "open"), anywhere=True)


def hallusion(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """The variant without a judge: yes where "yes" is in the reply, else no; questions with a picture
    only.
    """
    return [
        only_pictured(one)
        or failed(one)
        or judged(one, "yes" if "yes" in one.reply.lower() else "no", "contains yes")
        for one in answered
    ]


vqa = leave_one_out(LMMS, "exact_match", when_unanimous=True)
