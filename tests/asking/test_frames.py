"""Answers that are only quoted, taken back or supposed; plain answers that look like them; and the place of
the letter that answers.
"""

from __future__ import annotations

import pytest

from sparring.asking.answers import parse_answer, parse_yes_no
from sparring.asking.questions import letter_place

CARS = ("blue", "red", "dark red", "green")
PLAIN = ("red", "blue", "green", "yellow")
NUMBERS = ("3", "5", "9", "12")
TIMES = ("3:15", "4:15", "5:15", "6:15")


@pytest.mark.parametrize(
    "options", [CARS, PLAIN, NUMBERS, TIMES, ("left", "right", "above", "below")], ids=str
)
@pytest.mark.parametrize(
    "text",
    [
        # What is seen in the picture says nothing of the answer.
        "The sign says STOP, so the answer is B.",
        'The speech bubble says "hi" and the correct answer is B.',
        'The text reads "Exit," which means the answer is B.',
        'The sign reads "Bank," indicating that the correct answer is B.',
        "A student writes on the board: the answer is B.",
        "The man thinks the answer is B.",
        "The picture suggests the answer is B.",
        "It can be said that the answer is B.",
        "As I said, the answer is B",
        "As you said, the answer is B.",
        "As the caption says, the answer is B.",
        "That said, the answer is B.",
        "As you can see, the answer is B",
        "You can see that the answer is B.",
        "Of the clues, most suggest the answer is B.",
        "Based on the description in the question, the answer is B",
        "The hint says to look at the table, and the answer is B.",
        "After some thought the answer is B.",
        "One may conclude that the answer is B.",
        # A hedge that nothing is put against.
        "At first glance, the answer is B.",
        "My initial impression was right: the answer is B.",
        "Most people would say B.",
        "It seems that the answer is B, but I am not sure.",
        "It seems that the answer is B, but not A.",
        "It seems that the answer is B. A looks close. However, it is blurry.",
        "The image suggests that the answer is B, although it is blurry.",
        "According to the graph, the answer is B. However, the exact value is hard to read.",
        "I thought about it, and the answer is B.",
        # A condition that may well be met, and whoever has to choose.
        "If we take a closer look, the answer is B",
        "If I had to choose, B",
        "If I had to choose, the answer would be B.",
        "If I were to guess, I would say B.",
        "If viewed from the front, the answer is B.",
        "If north is up, the correct answer is B.",
        "If I understand the question correctly, the answer is B.",
        "If the picture is real, then the answer would be B.",
        "If it were so, there would be a shadow, but there is none, so the answer would be B.",
        "Even if it were dark, the answer would be B.",
        "The answer is B if you ignore the shadow.",
        "If it were up to me, the answer would be B.",
        "So the answer would be B.",
    ],
)  # fmt: skip
def test_plain_answers_are_read(text: str, options: tuple[str, ...]) -> None:
    assert parse_answer(text, options)[0] == "B"


@pytest.mark.parametrize(
    ("text", "options", "letter"),
    [
        ("The woman reads a red book: answer B.", PLAIN, "B"),
        ("The sign says speed limit 5 and the answer is C.", NUMBERS, "C"),
        ("The meter reads 5: the answer is C.", NUMBERS, "C"),
        ("The meter reads 5 (answer C).", NUMBERS, "C"),
        ("The scale reads 3 with 2 left: answer B.", NUMBERS, "B"),
        ("The figure states 5 and the answer is B.", NUMBERS, "B"),
        ("Initially there were 5 and then 4 were added, which gives answer C.", NUMBERS, "C"),
        ("There were initially 5 birds and the answer is A.", NUMBERS, "A"),
        ("If the radius is 3, then the answer is B.", NUMBERS, "B"),
        ("If we apply the Pythagorean theorem, we get 5, and the answer is B.", NUMBERS, "B"),
        ("The clock reads 3:15 now and one hour later the answer is B.", TIMES, "B"),
        ("The car was originally red, and the answer is B.", PLAIN, "B"),
        ("The person in the red shirt says hello and the answer is B.", PLAIN, "B"),
        ("It seems that the answer is B (the red car is behind), but I am not sure.", CARS, "B"),
        ("The car is actually red, so the answer is B", CARS, "B"),
        ("The answer is B, which is actually in front of the blue car.", CARS, "B"),
        ("The answer is B. There are actually 3 red and 2 blue birds.", NUMBERS, "B"),
        ("My answer is B, though some say the answer is C.", CARS, "B"),
        ("Many say A, but I choose B.", CARS, "B"),
        ("It appears the answer is no, though it may be hidden.", (), "no"),
        ("It seems the answer is yes, but there is no way to be sure.", (), "yes"),
    ],
)
def test_plain_answers_with_other_words_are_read(text: str, options: tuple[str, ...], letter: str) -> None:
    assert (parse_answer(text, options) if options else parse_yes_no(text))[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        # Told of others.
        ("You said the answer is B.", None),
        ("The caption says the answer is blue, but the picture shows a red car.", None),
        ("I was told the answer is blue. Looking at the picture, the car is red.", None),
        ("The hint suggests the answer is A. However, the car in the picture is red (B).", None),
        ('The hint says, "The correct answer is A". It is near the blue car.', None),
        ("The hint says:\n\nThe answer is A", None),
        ("The caption wrongly claims that the best option is A.", None),
        ("Some say A.", None),
        ("They think it is A, and the car is blue.", None),
        ("A blue car is seen, and the caption says the answer is C.", None),
        ("The caption says the answer is A, but the answer is B.", "B"),
        ("The user thinks the answer is A, but B is correct.", "B"),
        # Taken back.
        ("At first glance the answer is A, but it is actually B.", "B"),
        ("At first glance the answer is A.\n\nHowever, the car is red.", None),
        ("Some would say B, but C fits better.", "C"),
        ("Initially I thought the answer was A, but the body of the car is red.", None),
        ("At first, I would say A. On closer look, however, the car is red.", None),
        ("It seems that the answer is B, although the car in the mirror is blue.", None),
        ("It is tempting to say A, but it is red.", "B"),
        ("I was going to say A, but actually it is red.", None),
        ("My first guess was A, but the car is red.", None),
        ("The answer is A, but it is actually B.", None),
        # Supposed.
        ("If the car were blue, the answer would be A.", None),
        ("If the car had been parked, the answer would have been blue.", None),
        ("The answer would be A if the car were blue.", None),
        ("Were the car blue, the answer would be B.", None),
        ("Had it been blue, then the answer would be A.", None),
    ],
)
def test_what_is_not_the_speakers_own_is_not_read(text: str, letter: str | None) -> None:
    assert parse_answer(text, CARS)[0] == letter


def test_what_stands_before_a_supposed_answer_is_not_read() -> None:
    assert parse_answer("Were the car red, the answer would be B.", PLAIN)[0] is None


@pytest.mark.parametrize(
    ("text", "letter", "before"),
    [
        ("B. The car is blue, so the answer is B.", "B", ""),
        ("B\n\nExplanation: The car is in front of the wall. Therefore, the correct answer is B.", "B", ""),
        ("A is a car. B is a dog. The answer is A.", "A", "A is a car. B is a dog. The answer is "),
        ("A. car\nB. dog\nThe answer is A.", "A", "A. car\nB. dog\nThe answer is "),
        ("Option B shows a car. I choose B, since B fits.", "B", "Option B shows a car. I choose "),
        ("The answer is B. Again: the answer is B.", "B", "The answer is "),
    ],
)
def test_the_letter_that_answers(text: str, letter: str, before: str) -> None:
    assert letter_place(text, ("one", "two", "three")) == len(before)
    assert text[len(before)] == letter
