"""What of a benchmark is asked, in which order, and in which words."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparring.asking.prompts import filled
from sparring.benchmarks.items import Item, Kind, shuffled_options, with_yes_no_options
from sparring.benchmarks.layouts import Benchmark, read_benchmark_records
from sparring.config import EvalSettings
from sparring.data.errors import DataError
from sparring.data.items import Record
from sparring.data.questions import Questions, check_questions
from sparring.seeds import derive_seed


def shuffles(settings: EvalSettings, benchmark: Benchmark) -> bool:
    """Are options put in an order of our own?"""
    return benchmark.shuffle if settings.shuffle is None else settings.shuffle


def chosen_items(
    settings: EvalSettings, benchmark: Benchmark, data: Path
) -> tuple[list[Item], dict[str, int]]:
    """The benchmark's items, or `limit` of them, drawn by the seed and left in their order; with options as
    they are to be shown.

    And reason -> bad records that were dropped, where the settings want that; else they raise DataError.
    """
    images = Path(settings.images) if settings.images else None
    items, dropped = draw_items(
        benchmark,
        data,
        images,
        limit=settings.limit,
        seed=settings.seed,
        shuffle=shuffles(settings, benchmark),
        skip_bad=settings.skip_bad_records,
    )
    return [with_yes_no_options(item) for item in items] if settings.prompt == "options" else items, dropped


def draw_items(
    benchmark: Benchmark,
    data: Path,
    images: Path | None,
    *,
    limit: int | None,
    seed: int,
    shuffle: bool,
    skip_bad: bool = False,
) -> tuple[list[Item], dict[str, int]]:
    """The benchmark's items, or `limit` of them, drawn by the seed and left in their order; and reason -> bad
    records that were dropped. shuffle: options in an order that follows from the seed.
    """
    records = read_benchmark_records(benchmark, data, images, skip_bad=skip_bad)
    items = [record.item for record in records if record.item is not None]
    dropped = Counter(record.problems[0].reason for record in records if record.problems)
    return drawn(items, limit=limit, seed=seed, shuffle=shuffle), dict(dropped)


def drawn(items: list[Item], *, limit: int | None, seed: int, shuffle: bool) -> list[Item]:
    """The items, or `limit` of them, drawn by the seed and left in their order; their options, where wanted,
    in an order of the seed's.

    HallusionBench's are drawn set by set, as many as fit the limit and one at least: a figure, or a pair of
    questions, of which some are not asked is all right more often.
    """
    if limit is not None:
        groups = defaultdict[str, list[str]](list)
        for item in items:
            groups[_set_of(item)].append(item.id)
        kept = set[str]()
        for name in sorted(groups, key=lambda name: derive_seed(seed, "limit", name)):
            if kept and len(kept) + len(groups[name]) > limit:
                break
            kept.update(groups[name])
        items = [item for item in items if item.id in kept]
    return [shuffled_options(item, seed) for item in items] if shuffle else items


def _set_of(item: Item) -> str:
    """What is asked together with an item; its id where it is asked alone. A set has the same number in both
    categories of HallusionBench, which some profiles do not tell apart."""
    return f"{item.meta['subcategory']}/{item.meta['set']}" if "set" in item.meta else item.id


def data_sha256(items: Sequence[Item]) -> str:
    """SHA-256 of what is asked: ids, questions, options as shown, answers. Pictures are told apart by the
    answers' keys."""
    lines = (
        json.dumps([item.id, item.kind, item.question, list(item.options), item.answer]) for item in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


Style = Literal["boxed", "options", "direct", "vlmevalkit"]
TEMPLATES: dict[Style, dict[Kind, str]] = {
    # Of options the Defender's own prompt (`defender.prompt`), whose default asks for a box too.
    "boxed": {
        "choice": "",
        "yes_no": "{question}\nThink briefly, then put yes or no in \\boxed{}.",
        "open": "{question}\nThink briefly, then put the answer in \\boxed{}.",
        "caption": "{question}",
    },
    # As "boxed", but yes and no are options of the Defender's own prompt: for a Defender that knows no other
    # questions than those with options.
    "options": {
        "choice": "",
        "yes_no": "",
        "open": "{question}\nThink briefly, then put the answer in \\boxed{}.",
        "caption": "{question}",
    },
    "direct": {
        "choice": "{question}\n{options}\nAnswer with the option's letter from the given choices directly.",
        "yes_no": "{question}\nAnswer the question using a single word or phrase.",
        "open": "{question}\nAnswer the question using a single word or phrase.",
        "caption": "{question}",
    },
    "vlmevalkit": {
        "choice": "{hint}Question: {question}\nOptions:\n{options}\nPlease select the correct answer from "
        "the options above. \n",
        "yes_no": "{question} Please answer yes or no.",
        "open": "{hint}Question: {question}\n",
        "caption": "{question}",
    },
}
ASKED_ALREADY = "please answer yes or no."


def render_item(item: Item, style: Style, template: str) -> str:
    """What is asked beside the item's pictures. template: of questions with options in the styles "boxed" and
    "options", with doubled braces as in recipes; RecipeError where it cannot be filled in.
    """
    options = "\n".join(
        f"{letter}. {option}" for letter, option in zip(item.letters, item.options, strict=True)
    )
    if not TEMPLATES[style][item.kind]:
        question = f"{item.hint}\n{item.question}" if item.hint else item.question
        return filled(template, "defender.prompt", question=question, options=options)
    text = TEMPLATES[style][item.kind]
    if style == "vlmevalkit" and item.kind == "yes_no" and ASKED_ALREADY in item.question.lower():
        text = "{question}"
    hint = f"Hint: {item.hint}\n" if item.hint else ""
    question = f"{item.hint}\n{item.question}" if item.hint and "{hint}" not in text else item.question
    # One pass, so that braces in a question stay as they are.
    parts = {"{question}": question, "{options}": options, "{hint}": hint}
    return "".join(parts.get(part, part) for part in _split(text))


def _split(text: str) -> list[str]:
    """A template in pieces: placeholders and what stands between them."""
    pieces = [text]
    for name in ("{question}", "{options}", "{hint}"):
        pieces = [part for piece in pieces for part in _around(piece, name)]
    return pieces


def _around(piece: str, name: str) -> list[str]:
    before, found, after = piece.partition(name)
    return [before, name, after] if found else [piece]


@dataclass(frozen=True, slots=True)
class SuiteQuestions:
    """Questions, and what was left out of the suite: reason -> items."""

    questions: Questions
    left_out: Mapping[str, int]


def questions_of(
    items: Sequence[Item], source: Path, folder: Path, *, skip_bad: bool = False
) -> SuiteQuestions:
    """The items as questions, in their order, each checked as a line of a JSONL file is: options, picture,
    boxes inside it.

    source: the suite's data, for messages. folder: where pictures are written that the data carry inside them
    (base64, Parquet): byte for byte, each once and whole, named by their contents, and not again where they
    are there. Raises DataError if no item can be used, or one is damaged and `skip_bad` is not set.
    """
    left_out = Counter(reason for item in items if (reason := unusable(item)))
    usable = [item for item in items if unusable(item) is None]
    if not usable:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise DataError(
            f"{source}: none of its {len(items)} items can be probed ({reasons}). A probe needs questions "
            f"with options about one picture; `sparring eval` takes the others."
        )
    records = (Record(number, item, unit="item") for number, item in enumerate(usable, start=1))
    return SuiteQuestions(check_questions(source, records, folder, skip_bad=skip_bad), dict(left_out))


def unusable(item: Item) -> str | None:
    """Why an item is no question with options about one picture; None where it is."""
    if item.kind == "caption":
        return "a caption, not an answer, is asked for"
    if item.kind == "open":
        return "the answer is free, without options"
    if len(item.pictures) != 1:
        return "several pictures" if item.pictures else "no picture"
    return None
