r"""Reading the chosen option out of a reply: one unambiguous option, or none.

A reply is read by the first rule that has anything to say; what that rule finds ambiguous stays unread, no
weaker rule is tried. An unread reply counts as wrong, and says so. A thought in tags is no answer; of
several <answer> tags all must name one option.

1. `boxed`: the last `\boxed{}` that is not empty, and every other that names an option.
2. `whole`, `stated`, `first`, `last`, `verdict`, `clause`, `text`: see `sparring.asking.statements`,
   which reads plain words.

Time is linear in the length of a reply, and bounded: of what follows the thought, the first HEAD and the
last TAIL characters are read.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from sparring.asking.mentions import Vocabulary, option_words, vocabulary_of
from sparring.asking.statements import LETTER_ALONE, LONG, SENTENCE_END, SKIPPED, Reading, Statements
from sparring.asking.wording import INABILITY, JSON_KEY, NUMBERED, QUESTION_AND_ANSWER, plain_text
from sparring.data.records import LETTERS

HEAD, TAIL = 2_000, 4_000
YES_NO = ("yes", "no")
_THINKS = "think|thinking|thought|reasoning|analysis"
THOUGHT_BEGINS = re.compile(rf"<(?:{_THINKS})>|◁think▷", re.IGNORECASE)
THOUGHT_ENDS = re.compile(rf"</(?:{_THINKS})>|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE)
ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
BRACE = re.compile(r"[{}]")
BOX, ANY_BOX = ("\\boxed",), ("boxed", "fbox")
"""What begins a box; as models also write it: \\fbox, boxed without the stroke, and GLM's special tokens."""
BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}]+)")
TOKEN_BOX = re.compile(r"<\|(begin|end)_of_box\|>")
PLACEHOLDER = re.compile(
    r"\W*(?:x|(?:(?:your|final|the|option|correct)\s+)*(?:letter|answer|option|choice)|)\W*", re.IGNORECASE
)
"""What stands in a box where a reply repeats what it was told to do."""
LONE_LETTER = re.compile(r"\W*[A-Za-z]\W*")


def parse_answer(text: str, options: Sequence[str]) -> Reading:
    """(letter of the chosen option, rule that found it), or (None, why): "unparsed", "ambiguous_RULE",
    "unfinished_thought", ...

    options: the texts of options A, B, ... in order. The last two reasons are "unfinished_box" and
    "no_option" (a box names none).
    """
    return _read(text, tuple(options), lettered=True)


def parse_yes_no(text: str) -> Reading:
    """("yes" or "no", rule that found it), or (None, why), as `parse_answer` says why. The same rules;
    there are no letters.
    """
    letter, rule = _read(text, YES_NO, lettered=False)
    return (None if letter is None else YES_NO[LETTERS.index(letter)]), rule


def split_thought(text: str) -> tuple[str, str | None]:
    """The thought in tags, without them, and what follows it; None where the thought never ends. ("",
    text) where there is no thought.
    """
    if "<" not in text and "◁" not in text:
        return "", text
    ends = list(THOUGHT_ENDS.finditer(text))
    end = ends[-1] if ends else None
    place = 0 if end is None else end.end()
    begun = THOUGHT_BEGINS.search(text, place)
    if begun is not None:
        return text[begun.end() :].strip(), None
    if end is None:
        return "", text
    first = THOUGHT_BEGINS.search(text, 0, end.start())
    return text[first.end() if first else 0 : end.start()].strip(), text[place:]


def boxed(text: str) -> list[str]:
    r"""The contents of all `\boxed{...}` in order, braces balanced; one that is never closed is left out."""
    return [text[start:end] for start, end in _boxes(text, BOX)[0]]


def _boxes(text: str, begins: tuple[str, ...]) -> tuple[list[tuple[int, int]], bool]:
    """Where the contents of boxes stand, in order; and whether one is never closed. One pass over the
    braces.
    """
    if "box" not in text:
        return [], False
    spans, open_braces = list[tuple[int, int]](), list[int]()
    for match in BRACE.finditer(text):
        place = match.start()
        if text[place] == "{":
            open_braces.append(
                place + 1 if text[max(0, place - 12) : place].rstrip().endswith(begins) else -1
            )
        elif open_braces and (start := open_braces.pop()) >= 0:
            spans.append((start, place))
    return sorted(spans), any(start >= 0 for start in open_braces)


def _read(text: str, options: tuple[str, ...], *, lettered: bool) -> Reading:
    said = split_thought(text)[1]
    if said is None:
        return None, "unfinished_thought"
    if len(said) > HEAD + TAIL:
        said = f"{said[:HEAD]}\n\n{said[-TAIL:]}"
    tagged = [part for part in _tagged(said) if part.strip()]
    if tagged:
        read = [_read_untagged(part, options, lettered) for part in tagged]
        return read[-1] if len({letter for letter, _ in read}) == 1 else (None, "ambiguous_tag")
    return _read_untagged(said, options, lettered)


def _tagged(text: str) -> list[str]:
    """The contents of <answer> tags; one that is never closed goes on to the next, or to the end."""
    if "<" not in text:
        return []
    parts, start = list[str](), None
    for match in ANSWER_TAG.finditer(text):
        if start is not None:
            parts.append(text[start : match.start()])
        start = None if match[1] else match.end()
    return parts if start is None else [*parts, text[start:]]


def _read_untagged(said: str, options: tuple[str, ...], lettered: bool) -> Reading:
    if "box" not in said:
        return read_words(said, options, lettered=lettered)
    if "_of_box" in said:
        said = TOKEN_BOX.sub(lambda match: "\\boxed{" if match[1] == "begin" else "}", said)
    said = BARE_BOX.sub(r"\\boxed{\1}", said)
    spans, unfinished = _boxes(said, ANY_BOX)
    # The prompt asks for \boxed{}: what only looks like it is a statement, and is paid as none.
    rule = "boxed" if spans and said[: spans[-1][0] - 1].rstrip().endswith(BOX) else "stated"
    contents = [(plain_text(said[start:end]), end) for start, end in spans]
    filled = [
        (content, end)
        for content, end in contents
        if not _is_placeholder(content) or _is_option(content, options, lettered)
    ]
    if not filled:
        if spans and not unfinished:  # what it was told, repeated; or nothing
            words = "".join(part for part in _outside(said, spans))
            return read_words(words, options, lettered=lettered)
        return (None, "unfinished_box") if unfinished else read_words(said, options, lettered=lettered)
    read = [read_box(content, options, lettered=lettered) for content, _ in filled]
    last, end = filled[-1]
    if read[-1] is None:
        # A number or a formula in a box is a step on the way, if the answer is stated after it in so many
        # words.
        stated = (
            (None, "") if LONE_LETTER.fullmatch(last) else read_words(said[end:], options, lettered=lettered)
        )
        return stated if stated[1] == "stated" else (None, "ambiguous_boxed")
    named = [
        letter
        for letter, (content, _) in zip(read, filled, strict=True)
        if letter or LONE_LETTER.fullmatch(content)
    ]
    return (read[-1], rule) if set(named) == {read[-1]} else (None, "ambiguous_boxed")


def _is_placeholder(content: str) -> bool:
    return len(content) < 40 and PLACEHOLDER.fullmatch(content) is not None


def _is_option(content: str, options: tuple[str, ...], lettered: bool) -> bool:
    return bool(content.strip()) and read_box(content, options, lettered=lettered) is not None


def _outside(said: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    parts, place = list[str](), 0
    for start, end in spans:
        if start >= place:
            parts.append(re.sub(r"\\*(?:boxed|fbox)\s*\{$", " ", said[place:start]))
            place = end + 1
    return [*parts, said[place:]]


def _telling(text: str, vocabulary: Vocabulary) -> str:
    """The sentences of a long text that name an option or announce an answer, those beside them, the
    first and the last two.
    """
    low = text.lower()
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if len(ends) < 6 or len(low) != len(text):
        return text
    telling = {0, len(ends)}
    places = [match.start() for match in LETTER_ALONE.finditer(text)] if vocabulary.letters else []
    for word in vocabulary.sought:
        place = low.find(word)
        while place >= 0:
            places.append(place)
            place = low.find(word, place + len(word))
    for place in places:
        telling.add(bisect_right(ends, place))
    starts = [0, *ends]
    parts, last = list[str](), -1
    kept = {near for number in telling for near in (number - 1, number, number + 1)}
    for number in sorted(kept & set(range(len(starts)))):
        if number != last + 1:
            parts.append(SKIPPED)
        parts.append(text[starts[number] : ends[number] if number < len(ends) else len(text)])
        last = number
    return "".join(parts)


def read_words(text: str, options: tuple[str, ...], *, lettered: bool) -> Reading:
    """(letter, rule), or (None, why), of a text without boxes and thoughts."""
    text = plain_text(text).strip()
    vocabulary = vocabulary_of(options, lettered=lettered)
    if vocabulary.grammar and len(text) < LONG and (own := vocabulary.grammar.get(option_words(text))):
        return own, "whole"
    if not vocabulary.numeric:
        text = NUMBERED.sub("", text)
    if '"' in text or "'" in text:
        text = JSON_KEY.sub(" answer: ", text)
    text = QUESTION_AND_ANSWER.sub(" answer: ", text)
    if len(text) > LONG:
        text = _telling(text, vocabulary)
    letter, rule = Statements(text, vocabulary).reading()
    if (
        letter is not None
        and vocabulary.polar
        and INABILITY.search(text)
        and rule in ("first", "last", "text")
    ):
        return None, "unparsed"  # "No, I can't see any image."
    return letter, rule


def read_box(text: str, options: tuple[str, ...], *, lettered: bool) -> str | None:
    """The letter of the option that a box holds and nothing but it; None where it holds anything else,
    or several options.
    """
    letter, rule = read_words(text, options, lettered=lettered)
    return letter if rule in ("whole", "stated", "first") else None
