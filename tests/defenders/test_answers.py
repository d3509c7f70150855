"""Reading answers: the traps that released code fell into, and what must stay unread."""

from __future__ import annotations

import pytest

from sparring.defenders.answers import boxed, parse_answer, parse_yes_no

THREE = ("bottle", "blue", "a red car")
COLOURS = ("blue", "red", "dark red")
YES_NO = ("yes", "no")


@pytest.mark.parametrize(
    ("text", "options", "letter", "rule"),
    [
        # What released code read wrongly.
        ("The answer is a red car, option (C)", THREE, "C", "marked"),
        ("As the image shows, B", THREE, "B", "clause"),
        ("No doubt: yes.", YES_NO, "A", "clause"),
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
        ("I would take option A here", COLOURS, "A", "marked"),
        ("Yes, there is no cup on it", YES_NO, "A", "clause"),
        ("A car is seen so B it is", COLOURS, "B", "letter"),
        ("Between A and C: the answer is B.", COLOURS, "B", "stated"),
        ("The answer is B and A is too small", COLOURS, "B", "stated"),
        ("The answer is B, A is too small", COLOURS, "B", "stated"),
        ("It's not A or B, it is C", COLOURS, "C", "letter"),
        ("Option B, not option A", COLOURS, "B", "marked"),
        ("Is the answer A? No, the answer is B", COLOURS, "B", "stated"),
        ("It is dark red here", COLOURS, "C", "text"),
        ("It isn't blue, it is red", COLOURS, "B", "text"),
        ("There are 2 cups", ("1", "2", "12"), "B", "text"),
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
        ("B or C", COLOURS, "ambiguous_letter"),
        ("A and B", COLOURS, "ambiguous_letter"),
        ("The answer is A or B", COLOURS, "ambiguous_stated"),
        ("The answer is either A or B", COLOURS, "ambiguous_letter"),
        ("The answer is (A) or (B)", COLOURS, "ambiguous_stated"),
        ("Answer: A/B", COLOURS, "ambiguous_stated"),
        ("The answer is A, B.", COLOURS, "ambiguous_stated"),
        ("The answer: **A** & **C**", COLOURS, "ambiguous_stated"),
        ("option A or B", COLOURS, "ambiguous_marked"),
        ("option A or option B", COLOURS, "ambiguous_marked"),
        ("<answer>A</answer> no, <answer>B</answer>", COLOURS, "ambiguous_tag"),
        ("(A) is wrong and (B) is right", COLOURS, "ambiguous_marked"),
        ("The answer is A. The answer is B.", COLOURS, "ambiguous_stated"),
        ("Yes, no", YES_NO, "ambiguous_clause"),
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


def test_boxes_have_balanced_braces() -> None:
    assert boxed(r"\boxed{a{b}c} \boxed {d} \boxed{e") == ["a{b}c", "d"]


@pytest.mark.parametrize(
    ("text", "said", "rule"),
    [
        ("Yes.", "yes", "whole"),
        ("No doubt: yes.", "yes", "clause"),
        ("No doubt about it.", None, "unparsed"),
        (r"\boxed{No}", "no", "boxed"),
        (r"\boxed{maybe}", None, "ambiguous_boxed"),
        (r"\boxed{yes", None, "unfinished_box"),
        ("There is no dog, so the answer is **no**.", "no", "stated"),
        ("There is no dog", None, "unparsed"),
        ("Yes there is a dog", "yes", "begins"),
        ("no there is not", "no", "begins"),
        ("Yes and no", None, "ambiguous_begins"),
        ("Yes, and no, no.", None, "ambiguous_clause"),
        ("A.", None, "unparsed"),
        ("<think>yes", None, "unfinished_thought"),
        ("<think>no</think>Yes", "yes", "whole"),
    ],
)
def test_yes_and_no(text: str, said: str | None, rule: str) -> None:
    assert parse_yes_no(text) == (said, rule)
