"""The rules of the benchmarks' own scripts, where they need no judge model.

Sources: AoiDragon/POPE evaluate.py; tianyi-lab/HallusionBench utils.py; MMMU-Benchmark/MMMU
mmmu/utils/eval_utils.py; MMStar-Benchmark/MMStar eval/vlmeval/evaluate/mmstar.py; zeyofu/BLINK_Benchmark
eval/test_benchmark.py, evaluate.py; GT-Vision-Lab/VQA vqaEval.py; junyangwang0410/AMBER inference.py;
LisaAnne/Hallucination utils/chair.py. V*Bench's script compares likelihoods of options and has no rule for
texts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparring.benchmarks.items import Answered, Mark, each, failed, judged
from sparring.benchmarks.rules.sparring import alternatives, caption
from sparring.benchmarks.rules.vlmevalkit import yes_or_no
from sparring.benchmarks.rules.vqa import OFFICIAL, leave_one_out

OUTER = (",", ".", "!", "?", ";", ":", "'")
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
MMMU_SEED = 42


def pope_answer(one: Answered) -> str | None:
    """No where "No", "no" or "not" is a word of the first sentence, else yes, whatever was said."""
    first = one.reply.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(first) else "yes"


def mmstar_letter(one: Answered) -> str | None:
    """The first character, or the one after "(", "option ", "the answer is "; "As the image shows"
    begins with A.
    """
    said = one.reply.lower().strip().replace("\n", " ")
    places = [
        place
        for start, place in (("", 0), ("(", 1), ("option ", 7), ("the answer is ", 14))
        if said.startswith(start)
    ]
    letters = [said[place].upper() for place in places if place < len(said)]
    # Any of them being the answer is enough.
    return (
        one.item.answer
        if one.item.answer in letters
        else next((letter for letter in letters if letter in one.item.letters), None)
    )


def blink_letter(one: Answered) -> str | None:
    """A bare or bracketed letter, or the one bracketed letter among the words of the reply or of its
    last paragraph. GPT-3.5 is not asked.
    """
    reply, brackets = one.reply, {f"({letter})" for letter in one.item.letters}
    if reply in ("A", "B", "C", "D", "E"):
        return reply
    if reply in {f"({letter})" for letter in "ABCDE"}:
        return reply[1]
    whole, last = brackets & set(reply.split()), brackets & set(reply.split("\n\n")[-1].split())
    if not whole or (len(whole) != 1 and len(last) != 1):
        return None
    return next(iter(last if len(last) == 1 else whole))[1]


pope, mmstar, blink = (
    each(pope_answer, "first sentence"),
    each(mmstar_letter, "first character"),
    each(blink_letter, "brackets"),
)
amber = each(lambda one: {"Yes": "yes", "No": "no"}.get(one.reply), "exact")


def hallusion(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """Right, wrong or uncertain; uncertain is right where there was no picture to see. GPT-4, which
    tells the three, is replaced by a rule for words.
    """
    marks = []
    for one in answered:
        said = yes_or_no(one.reply)
        unseen = one.item.category == "VS" and str(one.item.meta["figure"]) == "0"
        mark = (
            Mark(None, 1.0, "uncertain", "unparsed")
            if said is None and unseen
            else judged(one, said, "one word")
        )
        marks.append(failed(one) or mark)
    return marks


# ---- MMMU


def mmmu(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """MMMU's script: a guess, from its seed of 42 and in the order of the questions, where no option is
    read.
    """
    return mmmu_marks(answered, open_mark, anywhere=False)


def open_mark(one: Answered) -> Mark:
    """A free answer by MMMU's script."""
    return Mark(one.reply.strip(), float(open_match(one.item.answer, open_readings(one.reply))), "open")


def mmmu_marks(
    answered: Sequence[Answered], free: Callable[[Answered], Mark], *, anywhere: bool
) -> list[Mark]:
    """MMMU's marks. free: of an open question. anywhere: a letter before any space, or before a full
    stop, is read too.
    """
    draw, marks = random.Random(MMMU_SEED), []
    for one in answered:
        missing = failed(one)
        if missing is not None:
            marks.append(missing)
        elif one.item.kind == "open":
            marks.append(free(one))
        else:
            said = mmmu_letter(one.reply, one.item.options, anywhere=anywhere)
            guess = draw.choice(one.item.letters) if said is None else said
            marks.append(
                judged(
                    one,
                    guess,
                    "guess" if said is None else "letter",
                    status="unparsed" if said is None else "read",
                )
            )
    return marks


def mmmu_letter(reply: str, options: Sequence[str], *, anywhere: bool) -> str | None:
    """The last of "(B)", else of " B ", else of the options' words in a reply of more than five words;
    None where there is none.
    """
    for mark in OUTER:
        reply = reply.strip(mark)
    text = f" {reply} "
    by_letter = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", options, strict=False))
    forms = ("({})", "{} ", "{}.") if anywhere else ("({})", " {} ")
    for form in forms:
        found = [letter for letter in by_letter if form.format(letter) in text]
        if found:
            # Several are told apart by brackets, or by spaces around them, in whatever form they were found.
            where = "({})" if form == "({})" else " {} "
            return max(found, key=lambda letter: text.rfind(where.format(letter)))
    if len(text.split()) <= 5:
        return None
    lower = text.lower()
    found = [letter for letter, option in by_letter.items() if option.lower() in lower]
    return max(found, key=lambda letter: lower.rfind(by_letter[letter].lower()), default=None)


def _normal(text: str) -> list[str | float]:
    plain = text.strip()
    try:
        return [round(float(plain.replace(",", "")), 2)]
    except ValueError:
        lower = plain.lower()
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]


def open_readings(reply: str) -> list[str | float]:
    """What a free reply may be saying: the shortest tails behind words that announce an answer, and all
    numbers in them.
    """
    text = reply.strip().strip(".").lower()
    parts, tails, keys = re.split(r"\.\s(?=[A-Z])|\n", text), list[str](), list(KEYS)
    for place, part in enumerate(parts):
        if place == len(parts) - 1:
            keys.append("=")
        # An empty tail gives way to the next one, of whatever length.
        shortest = ""
        for key in keys:
            if key in part:
                tail = part.split(key)[-1].strip()
                if not shortest or len(tail) < len(shortest):
                    shortest = tail
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            tails.append(shortest)
    tails = tails or [text]
    numbers = [number for tail in tails for pattern in NUMBERS for number in pattern.findall(tail)]
    return [value for text in (*tails, *numbers) for value in _normal(text)]


def open_match(answer: str, readings: Sequence[str | float]) -> bool:
    """A number equals the answer, or the answer is in a text. Several answers are written as a list."""
    wanted = [value for reference in alternatives(answer) for value in _normal(reference)]
    return any(
        any(isinstance(value, str) and value in reading for value in wanted)
        if isinstance(reading, str)
        else reading in wanted
        for reading in readings
    )


# ---- VQAv2, CHAIR


vqa = leave_one_out(OFFICIAL, "vqaEval")


def chair(answered: Sequence[Answered], resources: Mapping[str, Any]) -> list[Mark]:
    """Objects that captions name."""
    return [failed(one) or caption(one, resources) for one in answered]
