"""Reading answers: the traps that released code fell into, what must stay unread, and replies that were
marked by hand.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sparring.asking.answers import boxed, parse_answer, parse_yes_no, split_thought

THREE = ("bottle", "blue", "a red car")
SIDES = ("AB", "BC", "CD", "DA")
COLOURS = ("blue", "red", "dark red")
YES_NO = ("yes", "no")


@pytest.mark.parametrize(
    ("text", "options", "letter", "rule"),
    [
        # What released code read wrongly.
        ("The answer is a red car, option (C)", THREE, "C", "stated"),
        ("As the image shows, B", THREE, "B", "last"),
        ("No doubt: yes.", YES_NO, "A", "last"),
        (r"\boxed{B. red}", COLOURS, "B", "boxed"),
        ("Yes.", YES_NO, "A", "whole"),
        # Boxes.
        (r"a long thought \boxed{B}", THREE, "B", "boxed"),
        (r"\boxed{red}", COLOURS, "B", "boxed"),
        (r"\boxed{(b)}", COLOURS, "B", "boxed"),
        (r"\boxed{B) red}", COLOURS, "B", "boxed"),
        (r"\boxed{B red}", COLOURS, "B", "boxed"),
        (r"\boxed{\text{B}}", COLOURS, "B", "boxed"),
        (r"$\boxed{B}$. Check: \boxed{B}", COLOURS, "B", "boxed"),
        (r"In \boxed{} goes \boxed{C}", COLOURS, "C", "boxed"),
        (r"Not (A) nor (C), so \boxed{B}", COLOURS, "B", "boxed"),
        # Whole replies.
        ("b", COLOURS, "B", "whole"),
        ("**(B) red**", COLOURS, "B", "whole"),
        (" C. Dark  red.\n", COLOURS, "C", "whole"),
        # In sentences.
        ("Of A and C: the answer is **B**.", COLOURS, "B", "stated"),
        ("Answer: (c)", COLOURS, "C", "stated"),
        ("I would take option A here", COLOURS, "A", "stated"),
        ("Yes, there is no cup on it", YES_NO, "A", "first"),
        ("A car is seen so B it is", COLOURS, "B", "last"),
        ("Between A and C: the answer is B.", COLOURS, "B", "stated"),
        ("The answer is B and A is too small", COLOURS, "B", "stated"),
        ("The answer is B, A is too small", COLOURS, "B", "stated"),
        ("It's not A or B, it is C", COLOURS, "C", "last"),
        ("Option B, not option A", COLOURS, "B", "first"),
        ("Is the answer A? No, the answer is B", COLOURS, "B", "stated"),
        ("(A) is wrong and (B) is right", COLOURS, "B", "last"),
        ("It is dark red here", COLOURS, "C", "whole"),
        ("It isn't blue, it is red", COLOURS, "B", "last"),
        ("There are 2 cups", ("1", "2", "12"), "B", "text"),
        # Texts of neighbouring letters are no letters.
        (r"\boxed{CD}", SIDES, "C", "boxed"),
        ("The answer is BC.", SIDES, "B", "stated"),
        # Thoughts and tags.
        (r"<think>\boxed{A} or B?</think> The answer is C.", COLOURS, "C", "stated"),
        ("<think>A</think><answer>B</answer>", COLOURS, "B", "whole"),
        (r"<answer>B</answer> or <answer>\boxed{B. red}</answer>", COLOURS, "B", "boxed"),
    ],
)
def test_reads(text: str, options: tuple[str, ...], letter: str, rule: str) -> None:
    assert parse_answer(text, options) == (letter, rule)


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        (r"\boxed{A} no, \boxed{B}", COLOURS, "ambiguous_boxed"),
        (r"\boxed{B. blue}", COLOURS, "ambiguous_boxed"),
        (r"\boxed{D} so B", COLOURS, "ambiguous_boxed"),
        (r"\boxed{A or B}", COLOURS, "ambiguous_boxed"),
        (r"The answer is \boxed{B", COLOURS, "unfinished_box"),
        ("<think>It is B", COLOURS, "unfinished_thought"),
        ("B or C", COLOURS, "ambiguous_whole"),
        ("A and B", COLOURS, "ambiguous_whole"),
        ("The answer is A or B", COLOURS, "ambiguous_stated"),
        ("The answer is either A or B", COLOURS, "ambiguous_stated"),
        ("The answer is (A) or (B)", COLOURS, "ambiguous_stated"),
        ("Answer: A/B", COLOURS, "ambiguous_stated"),
        ("The answer is A, B.", COLOURS, "ambiguous_stated"),
        ("The answer: **A** & **C**", COLOURS, "ambiguous_stated"),
        ("option A or B", COLOURS, "ambiguous_whole"),
        ("option A or option B", COLOURS, "ambiguous_whole"),
        ("<answer>A</answer> no, <answer>B</answer>", COLOURS, "ambiguous_tag"),
        ("The answer is A. The answer is B.", COLOURS, "ambiguous_stated"),
        ("The answer is A. Wait, actually it's B.", COLOURS, "ambiguous_stated"),
        ("Answer: A\nHmm, on closer look it is red.", COLOURS, "ambiguous_stated"),
        ("The answer is A. Sorry, I meant (B).", COLOURS, "ambiguous_stated"),
        ("Yes, no", YES_NO, "ambiguous_whole"),
        ("red beside blue", COLOURS, "ambiguous_text"),
        ("The answer is not B", COLOURS, "unparsed"),
        ("It isn't red", COLOURS, "unparsed"),
        ("The answer is a bird", COLOURS, "unparsed"),
        ("A cat", COLOURS, "unparsed"),
        ("I see it, e.g. a.", COLOURS, "unparsed"),
        ("D", COLOURS, "unparsed"),
        ("bluebird", COLOURS, "unparsed"),
        ("", COLOURS, "unparsed"),
    ],
)
def test_leaves_unread(text: str, options: tuple[str, ...], why: str) -> None:
    assert parse_answer(text, options) == (None, why)


@pytest.mark.parametrize("options", [("A is closer", "B is closer"), ("B is closer", "A is closer")])
def test_a_is_a_name_where_options_differ_in_a_letter_alone(options: tuple[str, ...]) -> None:
    """BLINK's options of relative depth: an article says nothing, the name of a point everything."""
    for place, text in enumerate(options):
        assert parse_answer(text, options) == ("AB"[place], "whole")
        assert parse_answer(f"Point {text} to the camera.", options) == ("AB"[place], "text")
    said = "Point B, in the foreground, is closer to the camera."
    assert parse_answer(said, options)[0] is None


def test_boxes_have_balanced_braces() -> None:
    assert boxed(r"\boxed{a{b}c} \boxed {d} \boxed{e") == ["a{b}c", "d"]


@pytest.mark.parametrize(
    ("text", "said", "rule"),
    [
        ("Yes.", "yes", "whole"),
        ("No doubt: yes.", "yes", "last"),
        ("No doubt about it.", None, "unparsed"),
        (r"\boxed{No}", "no", "boxed"),
        (r"\boxed{maybe}", None, "ambiguous_boxed"),
        (r"\boxed{yes", None, "unfinished_box"),
        ("There is no dog, so the answer is **no**.", "no", "stated"),
        ("There is no dog", None, "unparsed"),
        ("Yes there is a dog", "yes", "first"),
        ("no there is not", "no", "first"),
        ("Yes and no", None, "ambiguous_whole"),
        ("Yes, and no, no.", None, "ambiguous_first"),
        ("A.", None, "unparsed"),
        ("<think>yes", None, "unfinished_thought"),
        ("<think>no</think>Yes", "yes", "whole"),
    ],
)
def test_yes_and_no(text: str, said: str | None, rule: str) -> None:
    assert parse_yes_no(text) == (said, rule)


def marked() -> list[tuple[str, tuple[str, ...], str | None]]:
    """Replies as models write them, with what each says, marked by hand; without options the question is
    one of yes or no.
    """
    lines = Path(__file__).parents[1].joinpath("marked_replies.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["reply"], tuple(row["options"]), row["read"]) for row in rows]


def test_marked_replies() -> None:
    """A wrong reading is worse than none: none is wrong, and few are unread."""
    rows = marked()
    assert len(rows) >= 1200
    read = [
        (parse_answer(reply, options) if options else parse_yes_no(reply))[0] for reply, options, _ in rows
    ]
    wrong = [
        (*row, said) for row, said in zip(rows, read, strict=True) if said is not None and said != row[2]
    ]
    unread = [row for row, said in zip(rows, read, strict=True) if said is None and row[2] is not None]
    assert wrong == []
    assert len(unread) <= 0.03 * len(rows), unread


def test_marked_replies_within_a_thought_and_long_talk() -> None:
    """A thought before a reply changes nothing; long talk that names no option leaves a statement at the
    end what it is.
    """
    talk = "We look at the table near the window. " * 40
    for reply, options, _ in marked():
        if (
            options
            and not reply.lstrip().startswith(("<", "\u25c1"))
            and "</think>" not in reply
            and "think" not in reply.lower()
        ):
            thought = f"<think>Hm, (A) or (B)?</think>\n{reply}"
            assert parse_answer(thought, options) == parse_answer(reply, options), reply
    for options in (COLOURS, THREE):
        assert parse_answer(f"{talk}So the answer is B.", options) == ("B", "stated")
        assert parse_answer(f"{talk}\n\nB", options) == ("B", "last")
        assert parse_answer(f"B\n\n{talk}", options) == ("B", "first")
        assert parse_answer(f"{talk}Final answer:\n\nB\n\n", options) == ("B", "stated")
        assert parse_answer(f"The answer is A. {talk}The answer is B.", options) == (None, "ambiguous_stated")


@pytest.mark.parametrize(
    "unit",
    ["\\boxed{", "B ", "(A) ", "A or B ", "not ", "answer is ", "\n", " ", "the red cup is red and ", "<answer>", "<think>", "option A ",
     "The answer is B. ", "}", "[", "*", "_", "- ", "1. ", "\\text{", "A. blue\n", '"answer": ', "U.", "x", "\u9009", "it's "],
)  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    """100,000 characters of repetition; the bar, 50 ms, is that of `benchmarks/parser.py`: here is room
    for a busy machine.
    """
    text = (unit * 100_000)[:100_000]
    begun = time.process_time()
    parse_answer(text, COLOURS)
    parse_answer(f"B. {text} so B", COLOURS)
    parse_yes_no(text)
    boxed(text)
    assert time.process_time() - begun < 0.5


def test_what_only_looks_like_a_box_is_a_statement() -> None:
    """The reward is for the form that the prompt asks for."""
    for text in (r"\fbox{B}", "boxed{B}", r"\fbox{}boxed{B}"):
        assert parse_answer(text, COLOURS) == ("B", "stated")
    assert parse_answer("<|begin_of_box|>B<|end_of_box|>", COLOURS)[0] == "B"
    assert parse_answer(r"\boxed{\text{B}}", COLOURS) == ("B", "boxed")


@pytest.mark.parametrize(
    ("text", "thought", "after"),
    [
        ("B", "", "B"),
        ("<think>a</think>b", "a", "b"),
        ("a</think>b", "a", "b"),
        ("<think>a", "a", None),
        ("<think>a</think><think>b</think>c", "a</think><think>b", "c"),
        ("<think>a</think>b<think>c", "c", None),
        ("<Thinking>a</Thinking>b", "a", "b"),
        ("\u25c1think\u25b7a\u25c1/think\u25b7b", "a", "b"),
    ],
)
def test_thoughts_in_tags(text: str, thought: str, after: str | None) -> None:
    assert split_thought(text) == (thought, after)


OPTION_SETS = (
    ("blue", "red", "dark red", "green"),
    ("left", "right", "above", "below"),
    ("1", "2", "3", "4"),
    ("Vitamin C", "Vitamin A", "Vitamin B", "Vitamin D"),
    ("Point B", "Point A", "Point D", "Point C"),
    ("yes", "no", "cannot be determined"),
    ("No", "Yes"),
    ("one", "two", "three", "four"),
    ("I see a cat", "I see a dog", "Nothing", "Both a cat and a dog"),
    ("red and blue", "red", "blue", "green"),
    ("3.5", "35", "0.35", "350"),
    ("True", "False"),
    ("He is right", "He is wrong", "She is right", "She is wrong"),
    ("None of the above", "All of the above", "Only A", "Only B"),
    ("x", "y", "z", "w"),
    ("Paris, France", "London, UK", "Rome, Italy", "Bonn, Germany"),
    ("New York", "York", "New Jersey", "Jersey City"),
    ("no hat", "one hat", "two hats", "three hats"),
    ("cup", "plate", "fork", "knife", "spoon"),
)
CHOOSES = (
    "{L}", "({L})", "{L}.", "{l}", "**{L}**", "{L}. {T}", "({L}) {T}", "{L}: {T}", "{L} - {T}", "{T}", "{T}.", "{T} ({L})", "The answer is {L}.",
    "The answer is {L}. {T}", "The correct answer is **{L}. {T}**", "Answer: {L}", "Answer: {T}", "Option {L}: {T}", "option ({L})",
    "I would choose option {L}.", "\\boxed{{{L}}}", "\\boxed{{{T}}}", "\\boxed{{\\text{{{L}. {T}}}}}", "<answer>{T}</answer>",
    '{{"answer": "{L}"}}', "So the answer is {L}, not {M}.", "Not {M} but {L}", "{L}\n\n{M} is wrong.", "Option {M} is wrong. " "Option " "{L} is " "correct.",
    "{M}? No. {L}? Yes.", "I considered ({M}), but the answer is {L}.", "Therefore, the answer " "is:\n\n{L}. {T}", "\u7b54\u6848\uff1a{L}",
    "{L} is the correct answer.", "Among the options, {L} fits best.", "<think>{M} maybe? {U}</think>{L}", "Looking at it, {L}", "It's {L}.",
)  # fmt: skip
CHOOSES_NOTHING = (
    "{L} or {M}", "{L} and {M}", "The answer is {L} or {M}.", "not {L}", "Option {L} is wrong.", "It is not {L}.", "{L} is incorrect.", "Is it {L}?",
    "\\boxed{{{L}}} or \\boxed{{{M}}}", "The answer is {L}. No, the answer is {M}.", "{L}. {U}", "Answer: {L}/{M}", "It can't be {L} " "or {M}.",
    "I doubt it is {L}.", "The answer is not {L}.",
)  # fmt: skip


@pytest.mark.parametrize("options", OPTION_SETS, ids=str)
def test_replies_that_are_built_from_any_options(options: tuple[str, ...]) -> None:
    """None is read wrongly, whatever the options are called; few are unread."""
    letters, unread, count = "ABCDE"[: len(options)], list[str](), 0
    for place, other in ((i, j) for i in range(len(options)) for j in range(len(options)) if i != j):
        words = {
            "L": letters[place],
            "l": letters[place].lower(),
            "T": options[place],
            "M": letters[other],
            "U": options[other],
        }
        for form in CHOOSES:
            count += 1
            reply = form.format(**words)
            said, rule = parse_answer(reply, options)
            assert said in (letters[place], None), (reply, said, rule)
            unread += [reply] if said is None else []
        for form in CHOOSES_NOTHING:
            reply = form.format(**words)
            assert parse_answer(reply, options)[0] is None, reply
    assert len(unread) <= 0.03 * count, unread
