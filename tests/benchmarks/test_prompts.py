"""How items are put into words."""

from pathlib import Path
from typing import get_args

import pytest

from small_eval import settings_of
from sparring.benchmarks.items import Answered, Item, with_yes_no_options
from sparring.benchmarks.profiles import rule_of
from sparring.benchmarks.questions import Style, render_item
from sparring.config import DefenderSettings
from sparring.data.errors import RecipeError

TEMPLATE = DefenderSettings(model="m").prompt
CHOICE = Item("q", "choice", "What is {question}?", "A", ("{options}", "blue"), hint="Look.")
YES_NO = Item("q", "yes_no", "Is it there?", "yes")


def test_vlmevalkits_prompt() -> None:
    said = render_item(CHOICE, "vlmevalkit", TEMPLATE)
    assert (
        said == "Hint: Look.\nQuestion: What is {question}?\nOptions:\nA. {options}\nB. blue\nPlease select "
        "the correct answer from the options above. \n"
    )
    assert render_item(YES_NO, "vlmevalkit", TEMPLATE) == "Is it there? Please answer yes or no."
    asked = Item("q", "yes_no", "Is it there? Please answer yes or no.", "yes")
    assert render_item(asked, "vlmevalkit", TEMPLATE) == asked.question


def test_ours_and_the_direct_one() -> None:
    assert render_item(CHOICE, "boxed", TEMPLATE).startswith(
        "Look.\nWhat is {question}?\nOptions:\nA. {options}\nB. blue\nThink"
    )
    assert render_item(CHOICE, "boxed", TEMPLATE).endswith("\\boxed{}.")
    assert render_item(YES_NO, "boxed", TEMPLATE).endswith("put yes or no in \\boxed{}.")
    assert render_item(CHOICE, "direct", TEMPLATE).endswith(
        "\nA. {options}\nB. blue\nAnswer with the option's letter from the given choices directly."
    )


def test_a_prompt_that_cannot_be_filled_in_is_an_error_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match=r"defender\.prompt .* cannot be filled in.*write \{\{ and \}\}"):
        render_item(CHOICE, "boxed", "{question}\n{options}\nPut the letter in \\boxed{}")
    with pytest.raises(RecipeError, match=r"(?s)must hold \{question\}.*must hold \{options\}"):
        settings_of(Path("q.jsonl"), "m", defender__prompt="Look.")


@pytest.mark.parametrize("style", get_args(Style))
def test_every_kind_has_its_words(style: str) -> None:
    for kind in ("yes_no", "open", "caption"):
        said = render_item(Item("q", kind, "What {A}?", "x"), style, TEMPLATE)  # type: ignore[arg-type]
        assert "What {A}?" in said
        assert "{question}" not in said


def test_yes_and_no_as_options_are_asked_and_read_as_letters() -> None:
    shown = with_yes_no_options(YES_NO)
    assert render_item(shown, "options", TEMPLATE).startswith("Is it there?\nOptions:\nA. yes\nB. no\nThink")
    assert render_item(CHOICE, "options", TEMPLATE) == render_item(CHOICE, "boxed", TEMPLATE)
    replies = {"\\boxed{A}": "yes", "\\boxed{B. no}": "no", "No.": "no", "\\boxed{no}": "no", "?": None}
    for reply, strict in replies.items():
        assert rule_of("sparring", "pope").read([Answered(shown, (reply,))], {})[0].said == strict, reply
    # Other harnesses know the words alone.
    assert rule_of("aot", "pope").read([Answered(shown, ("\\boxed{A}",))], {})[0].said is None
    assert rule_of("sparring", "pope").read([Answered(YES_NO, ("\\boxed{A}",))], {})[0].said is None
