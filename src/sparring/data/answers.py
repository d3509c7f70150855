"""Which option a record says is right: letters, numbers, texts, several references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparring.data.choices import ANSWERS, LABEL, LETTER, Options, _label, _plain, options_of, python_list
from sparring.data.errors import Fault
from sparring.data.pictures import is_empty
from sparring.data.records import LETTERS


@dataclass
class Answers:
    """What the answers of a file are: letters, texts of options, or their numbers. `learn` from all
    records, then `place` each."""

    certain: set[str] = field(default_factory=set)
    zero: bool = False
    beyond: bool = False

    def learn(self, records: Iterable[Mapping[str, Any]]) -> Answers:
        """Note what is certain of each record: which way of reading alone makes sense of its answer."""
        for values in records:
            try:
                _, options = options_of(values)
                answer = _only(answer_in(values))
            except Fault:
                continue
            if not options.texts or is_empty(answer) or len(options.texts) > len(LETTERS):
                continue
            ways = _ways(answer, options, 0)
            number = _number(answer)
            if number is not None and not options.embedded and not {"letter", "text", "label"} & ways.keys():
                self.zero |= number == 0
                self.beyond |= number == len(options.texts)
            if len(ways) == 1:
                self.certain |= ways.keys()
        return self

    @property
    def base(self) -> int:
        """The number of the first option where options are counted: 1 where no answer is 0 and one is the
        number of options."""
        return int(self.beyond and not self.zero)

    def place(self, answer: Any, options: Options) -> int:
        """The place of the right option, from 0. Raises Fault where the answer is none of them, or could
        be two."""
        if isinstance(answer, list | tuple):
            places = {self.place(part, options) for part in answer}
            if len(places) != 1:
                raise Fault(
                    "several answers", f"answer names {len(places)} options; a question has one right option."
                )
            return places.pop()
        last = LETTERS[len(options.texts) - 1]
        if (label := _moved(str(answer).strip(), options)) is not None:
            what = (
                f"answer {label} is the letter of one option, and another begins with it ({label}. ...): "
                f"options were left out or moved."
            )
            raise Fault("answer is ambiguous", f"{what} Write the option's text.")
        ways = _ways(answer, options, self.base)
        if not ways:
            what = (
                f"answer must be the letter of an option, A to {last}, its text or its number; it is "
                f"{json.dumps(answer, default=str)[:80]}."
            )
            raise Fault("answer is no option", what)
        if len(set(ways.values())) == 1:
            return next(iter(ways.values()))
        told = [way for way in ways if way in self.certain]
        if len(told) > 1:
            named = ", ".join(f"the {way} of option {LETTERS[place]}" for way, place in ways.items())
            raise Fault(
                "answer is ambiguous",
                f"answer {str(answer)[:80]!r} may be {named}, and the file has both. Write the letter.",
            )
        return ways[told[0] if told else next(iter(ways))]


def _ways(answer: Any, options: Options, base: int) -> dict[str, int]:
    """Way of reading -> place of the option that it gives; the likeliest way first."""
    found = dict[str, int]()
    number = _number(answer)
    text = str(answer).strip()
    counts = isinstance(answer, int | float) and not isinstance(answer, bool) and not options.numeric
    if options.labels and _label(text) in options.labels:
        found["letter" if _label(text).isalpha() else "label"] = options.labels.index(_label(text))
    elif (
        not "".join(options.labels).isalpha()
        and (match := LETTER.fullmatch(text))
        and match[1].upper() in LETTERS[: len(options.texts)]
    ):
        found["letter"] = LETTERS.index(match[1].upper())
    if counts and number is not None and base <= number < len(options.texts) + base and not options.embedded:
        found["number"] = number - base
    same = _same_text(text, options.texts)
    if same is not None:
        found["text"] = same
    elif (place := _labelled(text, options)) is not None:
        found.setdefault("letter", place)
    if (
        "number" not in found
        and number is not None
        and base <= number < len(options.texts) + base
        and not options.embedded
    ):
        found["number"] = number - base
    return found


def _moved(text: str, options: Options) -> str | None:
    """The letter of an answer that names one option by place and another by the label in its text, as where
    B was taken out of "A. below", "B. above", "C. left", "D. right"; None where there is no such doubt."""
    match, labels = LETTER.fullmatch(text), [LABEL.match(own) for own in options.texts]
    if match is None or options.labels or not all(labels):
        return None
    carried = [_label(next(part for part in found.groups() if part)) for found in labels if found]
    letter = match[1].upper()
    return (
        letter
        if letter in carried
        and LETTERS.index(letter) < len(carried)
        and carried.index(letter) != LETTERS.index(letter)
        else None
    )


def _same_text(text: str, texts: Sequence[str]) -> int | None:
    """The only option of that text; of that text but for case and blanks, where none is the same to the
    letter."""
    for wanted, among in ((text, list(texts)), (_plain(text), [_plain(own) for own in texts])):
        if among.count(wanted) == 1:
            return among.index(wanted)
        if wanted in among:
            return None
    return None


def _labelled(text: str, options: Options) -> int | None:
    """The option that an answer such as "C. left" names by letter and text alike."""
    match = LABEL.match(text)
    if match is None:
        return None
    label = _label(next(part for part in match.groups() if part))
    labels = options.labels or tuple(LETTERS[: len(options.texts)])
    place = labels.index(label) if label in labels else None
    return (
        place if place is not None and _plain(options.texts[place]) == _plain(text[match.end() :]) else None
    )


def _number(answer: Any) -> int | None:
    if isinstance(answer, bool):
        return None
    if isinstance(answer, int):
        return answer if answer >= 0 else None
    if isinstance(answer, float):
        return int(answer) if answer >= 0 and answer.is_integer() else None
    text = str(answer).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else None


def answer_in(values: Mapping[str, Any]) -> Any:
    """What a record says is right; None where it says nothing."""
    return next((values[name] for name in ANSWERS if not is_empty(values.get(name))), None)


def _only(answer: Any) -> Any:
    """The only one of a list of answers; else the answer."""
    return answer[0] if isinstance(answer, list | tuple) and len(answer) == 1 else answer


def references_of(answer: Any) -> list[str]:
    """The texts of which each answers an open question: those of a list, also of one that is written as a
    text; else the one."""
    if isinstance(answer, str) and answer.strip().startswith("["):
        try:
            answer = python_list(answer, "answer")
        except Fault:
            return [answer.strip()]
    listed = answer if isinstance(answer, list | tuple) else [answer]
    return [str(part).strip() for part in listed if not is_empty(part)]
