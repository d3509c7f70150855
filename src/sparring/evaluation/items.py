"""What an evaluation asks, as it is shown: items with their options in an order of our own, yes and no as
options."""

from __future__ import annotations

import random
import string
from dataclasses import replace

from sparring.data.items import YES_NO, Item, Kind, options_speak_of_others
from sparring.data.pictures import Picture, PictureFile, PictureInMemory
from sparring.data.records import LETTERS
from sparring.rl.seeds import derive_seed

__all__ = [
    "YES_NO",
    "Item",
    "Kind",
    "Picture",
    "PictureFile",
    "PictureInMemory",
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
    return replace(item, options=options, answer=LETTERS[order.index(string.ascii_uppercase.index(item.answer))])
