"""What an evaluation asks, as it is shown: items with their options in an order of our own, yes and no as
options."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sparring.data.items import YES_NO, Item, Kind, Trouble, options_speak_of_others
from sparring.data.pictures import Picture, PictureFile, PictureInMemory
from sparring.data.records import LETTERS
from sparring.seeds import derive_seed

__all__ = [
    "YES_NO",
    "Item",
    "Kind",
    "Picture",
    "PictureFile",
    "PictureInMemory",
    "Trouble",
    "shuffled_options",
    "with_yes_no_options",
]


def with_yes_no_options(item: Item) -> Item:
    """A yes-no question with its two words as options A and B; other kinds as they are."""
    return replace(item, options=YES_NO) if item.kind == "yes_no" else item


def shuffled_options(item: Item, seed: int) -> Item:
    """The item with its options in an order that follows from the seed and the item's id alone.

    Other kinds, and questions one of whose options speaks of others ("None of the above"), stay as they are.
    """
    if item.kind != "choice" or options_speak_of_others(item.options):
        return item
    order = list(range(len(item.options)))
    random.Random(derive_seed(seed, "options", item.id)).shuffle(order)
    options = tuple(item.options[place] for place in order)
    return replace(
        item, options=options, answer=LETTERS[order.index(string.ascii_uppercase.index(item.answer))]
    )


Status = Literal["read", "unparsed", "error", "left_out"]


@dataclass(frozen=True, slots=True)
class Answered:
    """An item as it was shown and its raw replies, one a trial; none where it could not be asked.

    trouble: why not; `error` says it in words. later_trouble: why a later trial has no reply, where the first
    has. cluster: what items share that are no independent evidence: the hash of their pictures. judge_asked,
    judge_reply: was a judge model asked what the first reply says, and what it said (None: nothing came
    back).
    """

    item: Item
    replies: tuple[str, ...] = ()
    trouble: Trouble | None = None
    error: str = ""
    cluster: str = ""
    prompt: str = ""
    tokens: int = 0
    finished: bool = True
    sizes: tuple[tuple[int, int], ...] = ()
    judge_asked: bool = False
    judge_reply: str | None = None
    later_trouble: Trouble | None = None

    @property
    def reply(self) -> str:
        """The first reply."""
        return self.replies[0] if self.replies else ""


@dataclass(frozen=True, slots=True)
class Mark:
    """One item under one profile.

    said: the option's letter, "yes" or "no", or the text that was read; None where nothing was. score: from
    0 to 1. status: "unparsed" means that the profile's rule found no answer (some profiles guess then:
    `said` is the guess); "left_out" that the item is not in the denominator.
    """

    said: str | None
    score: float
    rule: str = ""
    status: Status = "read"
    detail: Mapping[str, Any] = field(default_factory=dict)


Marked = tuple[Answered, Mark]
Read = Callable[[Sequence[Answered], Mapping[str, Any]], list[Mark]]
"""How a profile reads the answers to a suite, with what scores need beside the items."""


def judged(answered: Answered, said: str | None, rule: str = "", *, status: Status | None = None) -> Mark:
    """The mark of an answer that is right where it equals the item's."""
    return Mark(
        said,
        float(said is not None and said == answered.item.answer),
        rule,
        status or ("read" if said is not None else "unparsed"),
    )


def failed(answered: Answered, *, leave_out: Sequence[Trouble] = ()) -> Mark | None:
    """The mark of an item that could not be asked: wrong, or left out of the denominator; None where it was
    asked.
    """
    if answered.trouble is None:
        return None
    return Mark(None, 0.0, answered.trouble, "left_out" if answered.trouble in leave_out else "error")


def each(read: Callable[[Answered], str | None], name: str) -> Read:
    """A rule that reads every reply by itself."""
    return lambda answered, resources: [failed(one) or judged(one, read(one), name) for one in answered]
