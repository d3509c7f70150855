"""Answer sets with known scores: for every benchmark a dozen items, and fifty sets of replies to them, drawn
from pools that hold every known trap.

Every reply of a pool carries what it says to a strict reader (`sparring`), marked by hand. What other
harnesses make of the sets is in `answer_sets.json`: their own functions were run on them, outside this
project.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparring.benchmarks.items import Answered, Item

SETS = 50
KNOWN: dict[str, list[float]] = json.loads(Path(__file__).with_name("answer_sets.json").read_text())
TEXTS = ("red", "dark blue", "green tea", "white", "yellow")
LETTERS = "ABCDE"
T = "TOLD"  # the option that the reply is about
N = "NOTHING"

# (reply, what a strict reader reads)
CHOICE = [
    ("{L}", T),
    ("{L}. {T}", T),
    ("({L})", T),
    ("\\boxed{{{L}}}", T),
    ("\\boxed{{{L}. {T}}}", T),
    ("The answer is {L}.", T),
    ("The answer is a {T} car, option ({L})", T),
    ("As the image shows, {L}", T),
    ("It is {T}.", T),
    ("I am not sure.", N),
    ("", N),
    ("{L} or {M}", N),
    ("Not {M}, but {L}", T),
    (
        "Let me see. It looks {T}, so I choose {L} here among all of the options that were given to "
        "me today.",
        T,
    ),
    ("Sorry, I can't help with images of people yet.", N),
    ("option {L}", T),
    ("{l}", T),
    ("\\boxed{{{L}}} no, \\boxed{{{M}}}", N),
    ("Answer: {L}", T),
    ("**{L}**", T),
    (
        "The correct answer is **{L}**. Here's why: the picture shows it clearly, and nothing else "
        "would fit in.",
        T,
    ),
    ("A {T} thing is in the picture.", T),
    ("{T}", T),
    ("\\boxed{{{l}}}", T),
    ("I think it is {T} rather than {U}.", T),
    ("Z", N),
    ("<think>maybe {M}</think>{L}", T),
    ("{L}) {T}\n\nSo ({L})", T),
]
YES_NO = [
    ("{y}", T),
    ("{Y}", T),
    ("{Y}.", T),
    ("\\boxed{{{y}}}", T),
    ("{Y}, there is.", T),
    ("No doubt: yes.", "yes"),
    ("The answer is {y}.", T),
    ("I am not sure.", N),
    ("", N),
    ("Yes and no.", N),
    ("There is no dog in the image.", N),
    ("It is not visible.", N),
    ("Yes, the man on the left has no hat.", "yes"),
    ("\\boxed{{{Y}.}}", T),
    ("<think>no</think>{Y}", T),
    ("{Y}\n", T),
    ("No doubt about it.", N),
    ("Yesterday it was there", N),
]
# (reply, is it the answer to a strict reader)
OPEN = [
    ("{A}", True),
    ("{A}.", True),
    ("The {A}", True),
    ("\\boxed{{{A}}}", True),
    ("The answer is {A}.", False),
    ("x = {A}", False),
    ("about 7", False),
    ("", False),
    ("{A} cm", False),
    ("It could be 3 or {A}", False),
    ("So the result is\n{A}", False),
]
VQA = [
    "yes",
    "Yes.",
    "no",
    "2",
    "two",
    "the red one",
    "red, one",
    "10,000",
    "it isnt",
    "it isn't",
    "a dog",
    "dog!",
    "",
    "1.5",
    "U.S.A.",
    "left/right",
    "wont",
    "3 dogs",
]
REFERENCES = [
    ["2"] * 10,
    ["yes"] * 6 + ["no"] * 4,
    ["two"] * 3 + ["2"] * 2 + ["3"] * 5,
    ["red one"] * 4 + ["the red one"] * 2 + ["blue"] * 4,
    ["10,000"] * 2 + ["10000"] * 2 + ["many"] * 6,
    ["it isn't"] * 2 + ["it isnt"] + ["no"] * 7,
    ["dog"] * 1 + ["a dog"] * 2 + ["cat"] * 7,
    ["U.S.A."] * 3 + ["usa"] * 7,
    ["left/right"] * 5 + ["left right"] * 5,
    ["1.5"] * 3 + ["1"] * 7,
    ["won't"] * 2 + ["wont"] * 8,
    ["Yes."] * 10,
]
SYNONYMS = [
    "person, man, woman, people",
    "dog, puppy",
    "dining table, table",
    "traffic light, stop light",
    "cup, mug",
    "toilet",
    "chair, seat",
    "tie",
    "bird",
]
# (caption, objects named)
CAPTIONS = [
    ("A man walks two dogs.", ["person", "dog"]),
    ("The puppy sleeps under the table beside a dog", ["dog", "dining table", "dog"]),
    ("Traffic lights over an empty street", ["traffic light"]),
    ("Nothing to see here", []),
    ("Women with mugs; a baby bird", ["person", "cup", "bird"]),
    ("A toilet seat beside a chair, and a seat", ["toilet", "chair"]),
    ("He wears a bow tie.", ["tie"]),
    ("", []),
]


@dataclass(frozen=True)
class Said:
    """A reply and what was read in it by hand."""

    text: str
    strict: str | None


def items_of(rules: str) -> list[Item]:
    """A dozen items of a benchmark, with all that its figures need; of `custom` three more, of yes or no."""
    items = []
    for place in range(15 if rules == "custom" else 12):
        name, answer = f"q{place}", LETTERS[place * 7 % 4]
        options = tuple(TEXTS[(place + k) % 5] for k in range(4 if place % 5 else 2))
        answer = answer if answer in LETTERS[: len(options)] else "B"
        choice = Item(
            name, "choice", "What is it?", answer, options, category=("alpha", "beta", "gamma")[place % 3]
        )
        truth = "yes" if place % 3 else "no"
        yes_no = Item(name, "yes_no", "Is it there?", truth)
        if place >= 12:
            item = yes_no
        elif rules == "hrbench":
            item = replace(
                choice, category=("single", "cross")[place // 4 % 2], meta={"cycle": str(place % 4)}
            )
        elif rules == "mmstar":
            item = replace(choice, meta={"l2_category": ("x", "y", "z", "w")[place * place % 4]})
        elif rules in ("mmmu", "realworldqa", "custom") and place % 4 == 3:
            item = Item(name, "open", "How much?", ("12", "0.5", "downhill")[place // 4], category="Math")
        elif rules == "pope":
            splits = [
                ["random"],
                ["popular", "adversarial"],
                ["random", "popular", "adversarial"],
                ["adversarial"],
            ][place % 4]
            item = replace(yes_no, category=",".join(splits), meta={"splits": splits})
        elif rules == "hallusionbench":
            # VD and VS share the subcategory and the numbers of an OCR set, which only one of the keys keeps
            # apart.
            kind, figure = ("VD", "VS")[place // 6], place % 3
            shown = not (kind == "VS" and figure == 0)
            meta = {
                "subcategory": "ocr",
                "set": "0",
                "figure": str(figure),
                "pair": str(place % 6 // 3),
                "shown": shown,
            }
            item = replace(yes_no, category=kind, meta=meta)
        elif rules == "amber":
            kinds = ("attribute-state", "attribute-number", "attribute-action", "hallucination", "relation")
            item = replace(yes_no, category=f"discriminative-{kinds[place % 5]}")
        elif rules == "vqav2":
            item = Item(name, "open", "?", REFERENCES[place][0], meta={"references": REFERENCES[place]})
        elif rules == "chair":
            item = Item(
                name,
                "caption",
                "Describe.",
                "",
                meta={
                    "objects": [["person", "dog"], ["dining table"], ["cup", "bird", "person"], []][place % 4]
                },
            )
        else:
            item = choice
        items.append(item)
    return items


def replies_of(items: Sequence[Item], number: int) -> list[Said]:
    """Set `number` of replies to the items. Sets 0 and 1 are all right and all wrong, as far as a reply can
    be.
    """
    dice = random.Random(f"set {number}")
    return [_say(item, dice, number) for item in items]


def _say(item: Item, dice: random.Random, number: int) -> Said:
    right = number == 0 or (number != 1 and dice.random() < 0.55)
    if item.kind == "choice":
        letters = LETTERS[: len(item.options)]
        told = item.answer if right else dice.choice([letter for letter in letters if letter != item.answer])
        other = dice.choice([letter for letter in letters if letter != told])
        text, strict = CHOICE[0] if number < 2 else dice.choice(CHOICE)
        words = {
            "L": told,
            "l": told.lower(),
            "M": other,
            "T": item.options[LETTERS.index(told)],
            "U": item.options[LETTERS.index(other)],
        }
        return Said(text.format(**words), told if strict == T else None)
    if item.kind == "yes_no":
        told = item.answer if right else {"yes": "no", "no": "yes"}[item.answer]
        text, strict = YES_NO[1] if number < 2 else dice.choice(YES_NO)
        read = {T: told, N: None, "yes": "yes"}
        return Said(text.format(y=told, Y=told.capitalize()), read[strict])
    if item.kind == "caption":
        text, named = dice.choice(CAPTIONS)
        return Said(text, json.dumps(named))
    if "references" in item.meta:
        reference = dice.choice(item.meta["references"])
        text = dice.choice(
            (dice.choice(VQA), reference, f"{reference}.", f"The {reference}", f"{reference}, I think")
        )
        return Said(text, text)
    text, strict_right = dice.choice(OPEN)
    return Said(
        text.format(A=item.answer if right else "99"), item.answer if strict_right and right else None
    )


def answered(items: Sequence[Item], replies: Sequence[Said]) -> list[Answered]:
    """The items with their replies."""
    return [Answered(item, (said.text,), cluster=item.id) for item, said in zip(items, replies, strict=True)]
