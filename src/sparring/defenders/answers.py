r"""Reading the chosen option out of a reply: one unambiguous option, or none.

A reply is read by the first rule that has anything to say; what that rule finds ambiguous stays unread, no weaker rule is tried. An unread
reply counts as wrong, and says so.

1. `boxed`: the content of every `\boxed{}` that is not empty. All must name one option.
2. `whole`: the reply is nothing but an option: "B", "(b)", "B. red", "Yes.".
3. `stated`: "answer is B", "answer: (B)".
4. `marked`: "(C)", "option C", "choice C".
5. `clause`: a part between punctuation marks is nothing but an option: "As the image shows, B", "No doubt: yes."
6. `letter`: a capital standing alone: "I choose B here". "A" and "I" before a small word are the article and the pronoun.
7. `text`: the words of exactly one option occur. A longer option hides a shorter one inside it ("dark red", "red").

Rules 3 to 7 do not count what is denied in its own part of the sentence ("not B", "isn't red"). Rules 3, 4 and 6 take letters that are listed together
("A or B", "A/B") for all of them. A thought in <think> tags is not the answer; of several <answer> tags all must name one option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sparring.data.records import LETTERS

DENIAL = re.compile(r"(?:\b(?:not|never|neither|nor|cannot|rather than|instead of|except)\b|n['’]t\b)", re.IGNORECASE)
CLAUSE_END = re.compile(r"[.,;:!?\n]|\s[-–—]\s")
STATED = re.compile(r"\banswer\s*(?:is|:|=)\s*(?:option\s+|choice\s+)?\**(\(?)([A-Za-z])(\)?)\**(?![\w'’])", re.IGNORECASE)
MARKED = re.compile(r"\(([A-Za-z])\)|\b(?:[Oo]ption|[Cc]hoice|OPTION|CHOICE)\s+\**([A-Z])\**(?![\w'’])")
LONE = re.compile(r"(?<![\w'’])([A-Z])(?![\w'’])")
YES_NO = ("yes", "no")
STATED_YES_NO = re.compile(r"\banswer\s*(?:is|:|=)\s*\**(yes|no)\b", re.IGNORECASE)
BEGINS_YES_NO = re.compile(r"^\W*(?:(yes)\b|(?=no\s+(?:there|it|i|this|that|the|they|he|she|we)\b)(?:no)\b)", re.IGNORECASE)
# Two letters said in one breath. A comma joins them only where nothing follows: "B, A is wrong" is no list.
LISTED = re.compile(
    r"(?<![\w'’])([A-Z])\)?\**\s*(?:/|&|\b(?:or|and)\b|,(?=[\s(*]*[A-Z]\)?\**\s*(?:[.,;:!?\n]|$)))\s*(?:or\s+|and\s+)?"
    r"(?:[Oo]ption\s+|[Cc]hoice\s+)?\**\(?([A-Z])(?![\w'’])"
)
LABELLED = re.compile(r"^\(?([A-Za-z])(?:\)|\.|:|\s)\s*(.*)$", re.DOTALL)


def parse_answer(text: str, options: Sequence[str]) -> tuple[str | None, str]:
    """(letter of the chosen option, rule that found it), or (None, why): "unparsed", "ambiguous_RULE", "unfinished_thought", "unfinished_box".

    options: the texts of options A, B, ... in order.
    """
    said = _after_thought(text)
    if said is None:
        return None, "unfinished_thought"
    tagged = re.findall(r"<answer>(.*?)</answer>", said, re.DOTALL)
    if tagged:
        read = [parse_answer(one, options) for one in tagged]
        return read[-1] if len({letter for letter, _ in read}) == 1 else (None, "ambiguous_tag")
    boxes = [box for box in boxed(said) if box.strip()]
    if boxes:
        return _decide("boxed", [_option(box, options) for box in boxes])
    if said.count("\\boxed") > len(boxed(said)):
        return None, "unfinished_box"
    whole = _option(said, options)
    if whole is not None:
        return whole, "whole"
    for rule, found in (
        ("stated", _stated(said, options)),
        ("marked", _letters(MARKED, said, options)),
        ("clause", _clauses(said, options)),
        ("letter", _letters(LONE, said, options)),
        ("text", _texts(said, options)),
    ):
        named = list(found)
        if named:
            return _decide(rule, named)
    return None, "unparsed"


def parse_yes_no(text: str) -> tuple[str | None, str]:
    """("yes" or "no", rule that found it), or (None, why), as `parse_answer` says why.

    The rules are tried in turn: what is boxed, the whole reply, "answer is yes", a part between punctuation marks that is nothing but yes or no ("No
    doubt: yes." is yes), a reply that begins with one of them. A "no" that begins a phrase ("No doubt about it") is none.
    """
    said = _after_thought(text)
    if said is None:
        return None, "unfinished_thought"
    boxes = [_plain(box) for box in boxed(said) if box.strip()]
    if boxes:
        return _decide("boxed", [box if box in YES_NO else None for box in boxes])
    if said.count("\\boxed") > len(boxed(said)):
        return None, "unfinished_box"
    if _plain(said) in YES_NO:
        return _plain(said), "whole"
    for rule, found in (
        ("stated", [match[1].lower() for match in STATED_YES_NO.finditer(said)]),
        ("clause", [_plain(clause) for clause in CLAUSE_END.split(said) if _plain(clause) in YES_NO]),
        ("begins", ["yes" if match[1] else "no" for match in BEGINS_YES_NO.finditer(said)] and _words_yes_no(said)),
    ):
        if found:
            return _decide(rule, found)
    return None, "unparsed"


def _words_yes_no(text: str) -> list[str]:
    """Every yes and no of a text that begins with one: where both occur it is ambiguous."""
    return [word.lower() for word in re.findall(r"\b(?:yes|no)\b", text, re.IGNORECASE)]


def boxed(text: str) -> list[str]:
    r"""The contents of all `\boxed{...}` in order, braces balanced; one that is never closed is left out."""
    contents = []
    for match in re.finditer(r"\\boxed\s*\{", text):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                contents.append(text[match.end() : place])
                break
    return contents


def _after_thought(text: str) -> str | None:
    """What follows the thought; None where the thought never ends."""
    _, closed, after = text.rpartition("</think>")
    return None if not closed and "<think>" in text else after


def _decide(rule: str, named: Sequence[str | None]) -> tuple[str | None, str]:
    """The one option that is named; none where several are, or where something named is no option."""
    letter = named[0]
    if letter is None or any(other != letter for other in named):
        return None, f"ambiguous_{rule}"
    return letter, rule


def _plain(text: str) -> str:
    """Without decoration that carries no meaning: markup, quotes, outer punctuation, case, double spaces."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"[*$`\"“”]", "", text)
    return re.sub(r"\s+", " ", text).strip(" .,;:!?'’\n").casefold()


def _option(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a text is, whole: its letter, its words, or both where they agree."""
    plain, letters = _plain(text), LETTERS[: len(options)]
    words = [_plain(option) for option in options]
    letter = plain.strip("()").upper()
    if len(letter) == 1 and letter in letters:
        return letter
    if words.count(plain) == 1:
        return letters[words.index(plain)]
    labelled = LABELLED.match(re.sub(r"[*$`]", "", text).strip())
    if labelled and labelled[1].upper() in letters:
        letter = labelled[1].upper()
        if _plain(labelled[2]) in ("", words[letters.index(letter)]):
            return letter
    return None


def _denied(text: str, place: int) -> bool:
    """Does a denial come before this place in its own part of the sentence?"""
    start = max((match.end() for match in CLAUSE_END.finditer(text, 0, place)), default=0)
    return DENIAL.search(text, start, place) is not None


def _is_word(text: str, match: re.Match[str], group: int) -> bool:
    """ "A red car", "I see": a letter that goes on as a sentence. "A or B" does not."""
    return match[group] in ("A", "I", "a", "i") and re.match(r"\s+(?!(?:or|and)\b)[a-z]", text[match.end() :]) is not None


def _listed(text: str, options: Sequence[str]) -> dict[int, str]:
    """Place of a letter in a list of letters -> the letter beside it."""
    beside, place = dict[int, str](), 0
    while match := LISTED.search(text, place):
        place = match.start(2)
        if match[1] in LETTERS[: len(options)] and match[2] in LETTERS[: len(options)] and not _is_word(text, match, 2):
            beside |= {match.start(1): match[2], match.start(2): match[1]}
    return beside


def _stated(text: str, options: Sequence[str]) -> Iterable[str]:
    beside = _listed(text, options)
    for match in STATED.finditer(text):
        bare, other = not (match[1] and match[3]), beside.get(match.start(2))
        # A bare small letter is a word ("the answer is a car"), a bare capital before a small word may be.
        if (bare and (match[2].islower() or (other is None and _is_word(text, match, 2)))) or _denied(text, match.start(2)):
            continue
        if match[2].upper() in LETTERS[: len(options)]:
            yield from (match[2].upper(), *(other or ()))


def _letters(pattern: re.Pattern[str], text: str, options: Sequence[str]) -> Iterable[str]:
    beside = _listed(text, options)
    for match in pattern.finditer(text):
        group = match.lastindex or 1
        other = beside.get(match.start(group))
        word = pattern is LONE and other is None and _is_word(text, match, group)
        if match[group].upper() in LETTERS[: len(options)] and not word and not _denied(text, match.start()):
            yield from (match[group].upper(), *(other or ()))


def _clauses(text: str, options: Sequence[str]) -> Iterable[str]:
    for clause in CLAUSE_END.split(text):
        letter = _option(clause, options)
        # A small letter alone between marks ("e.g. a.") is no choice.
        if letter is not None and not re.fullmatch(r"\s*[a-z]\s*", clause):
            yield letter


def _texts(text: str, options: Sequence[str]) -> Iterable[str]:
    """Options whose words occur, longest first, so that "dark red" is not also read as "red"."""
    rest = text
    by_length = sorted(zip(LETTERS, options, strict=False), key=lambda pair: -len(pair[1]))
    for letter, option in by_length:
        words = r"\s+".join(re.escape(word) for word in option.strip().split())
        if not words:
            continue
        pattern = re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
        if any(not _denied(text, match.start()) for match in pattern.finditer(rest)):
            yield letter
        rest = pattern.sub(lambda match: "\0" * len(match[0]), rest)
