"""lmms-eval's rules (github.com/EvolvingLMMs-Lab/lmms-eval, state of August 2026), where they need no judge model.

Sources: lmms_eval/tasks/{vstar_bench,hrbench,pope,hallusion_bench,mmstar,realworldqa,blink,ai2d,vqav2}/utils.py, tasks/_task_utils/mcq_extract.py. MMMU's
open questions there depend on the order of a Python set; the rule of the last state that is deterministic (the official one) is used.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparring.evaluation.marks import Answered, Mark, failed, judged
from sparring.evaluation.rules.vlmevalkit import NONE, infer_option, infer_text, only_pictured, options_of
from sparring.evaluation.rules.vqa import LMMS, soft_score

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

Rule = Callable[[Sequence[Answered], Mapping[str, Any]], list[Mark]]


def each(read: Callable[[Answered], str | None], name: str) -> Rule:
    """A rule that reads every reply by itself."""
    return lambda answered, resources: [failed(one) or judged(one, read(one), name) for one in answered]


def vstar_letter(one: Answered) -> str | None:
    """The first pattern that matches, tried in turn on the reply in capitals: the first letter of "As the image shows" is A."""
    reply = one.reply.strip().upper()
    match = next((found for pattern in VSTAR if (found := pattern.search(reply))), None)
    if match:
        return match[1].upper()
    letters = re.findall(r"[A-D]", reply)
    return letters[0] if len(letters) == 1 else None


def extracted_letter(reply: str, letters: Sequence[str] = FIRST_FOUR) -> str | None:
    """`extract_mcq_answer`: letters in several forms, the best form wins, then the latest place, then the earlier letter."""
    if not reply.strip():
        return None
    text = reply.strip()
    for mark in (",", ".", "!", "?", ";", ":", "'", '"'):
        text = text.strip(mark)
    text = f" {text} "
    inner, lower = text.strip(), text.lower()
    found: list[tuple[int, int, str]] = []
    for rank, form in ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} ")):
        found += [(rank, text.rfind(form.format(letter)), letter) for letter in letters if form.format(letter) in text]
    for phrase in PHRASES:
        place = lower.find(phrase)
        if place != -1:
            after = place + len(phrase)
            found += [(7, text.find(letter, after), letter) for letter in letters if text.find(letter, after) != -1]
    for letter in letters:
        if inner.startswith(letter) and (len(inner) == 1 or not inner[1].isalpha()):
            found.append((10, 0, letter))
        if inner.endswith(letter) and (len(inner) == 1 or not inner[-2].isalpha()):
            found.append((9, len(text) - 1, letter))
    if not found:
        found = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(found, key=lambda one: one[:2])[2] if found else None


def hrbench_letter(one: Answered) -> str | None:
    """VLMEvalKit's inference of an older state: anywhere in the reply, and however long it is. Its judge model is not asked."""
    reply, options = one.reply.strip(), options_of(one.item)
    said = infer_option(reply, list(options), window=None, stated=False) or infer_text(reply, options, limit=False)
    return None if said == NONE else said


def realworld_answer(one: Answered) -> str | None:
    """A letter where the answer is one, else the reply in lower case, which must be the answer."""
    if one.item.kind == "choice":
        return extracted_letter(one.reply)
    return one.item.answer if one.reply.lower().strip().rstrip(".") == one.item.answer.lower() else (one.reply.strip() or None)


def ai2d_letter(one: Answered) -> str | None:
    """ "B. ..." at the beginning is B; any other reply must be the letter, but for case and punctuation."""
    match = AI2D.match(one.reply)
    plain = (match[1] if match else one.reply).lower().translate(PUNCTUATION)
    return plain.upper() if plain.upper() in one.item.letters else None


def blink_letter(one: Answered) -> str | None:
    """The first letter of the reply, whatever word it begins."""
    match = STARTS.match(one.reply.strip())
    return match[1].upper() if match else None


def pope_answer(one: Answered) -> str | None:
    """The whole reply is yes or no: "Yes." is neither."""
    said = one.reply.lower().strip()
    return said if said in ("yes", "no") else None


vstar, hrbench, ai2d = each(vstar_letter, "patterns"), each(hrbench_letter, "can_infer"), each(ai2d_letter, "exact_match")
mmstar = each(lambda one: extracted_letter(one.reply), "extract_mcq_answer")
realworldqa, blink, pope = each(realworld_answer, "exact_match"), each(blink_letter, "first letter"), each(pope_answer, "exact")


def hallusion(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """The variant without a judge: yes where "yes" is in the reply, else no; questions with a picture only."""
    return [
        only_pictured(one) or failed(one) or judged(one, "yes" if "yes" in one.reply.lower() else "no", "contains yes") for one in answered
    ]


def vqa(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """Leave-one-out, both sides normalised."""
    marks = []
    for one in answered:
        score, said = soft_score(LMMS, one.reply, one.item.meta["references"], when_unanimous=True)
        marks.append(failed(one) or Mark(said, score, "exact_match"))
    return marks
