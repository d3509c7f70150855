"""V*: the benchmark's folders of pairs of JSON and picture, and the spatial-relation file of its training
data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from pathlib import Path
from typing import Any

from sparring.data.choices import check_text, options_of
from sparring.data.errors import DataError, Fault
from sparring.data.files import PICTURES, files_below, picture_beside, read_json
from sparring.data.images import ImageError, upright_size
from sparring.data.items import Item, Record, Records, options_speak_of_others
from sparring.data.pictures import PictureFile, named_picture
from sparring.data.records import LETTERS, Target
from sparring.data.rows import targets_of
from sparring.data.tables import four_numbers
from sparring.seeds import derive_seed

ALL_SIDES = ("left", "right", "above", "below")
SMALLEST = 0.001
"""Share of the picture that an object must cover to be asked about."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An annotated object: its box [x0, y0, x1, y1] in pixels; a crowd is never asked about."""

    name: str
    box: list[int]
    crowd: bool = False


def relation_question(
    things: Sequence[Thing], size: tuple[int, int], name: str
) -> tuple[Thing, Thing, str, tuple[str, ...]] | None:
    """(a, b, the side of b on which a is, all sides), drawn by the record's name; None where no pair is
    clear.

    Both are the only objects of their kind in the picture, and neither is tiny.
    """
    kinds = Counter(thing.name for thing in things)
    least = SMALLEST * size[0] * size[1]
    able = [
        t
        for t in things
        if kinds[t.name] == 1 and not t.crowd and (t.box[2] - t.box[0]) * (t.box[3] - t.box[1]) >= least
    ]
    pairs = [(a, b, side) for a in able for b in able if a is not b and (side := side_of(a.box, b.box))]
    if not pairs:
        return None
    return *pairs[derive_seed("relation", name) % len(pairs)], ALL_SIDES


def side_of(a: Sequence[int], b: Sequence[int]) -> str | None:
    """Where box a is as seen from box b; None where that is not plain: beyond it along one axis, and beside
    it along the other.

    Along the other axis one box's middle must lie within the other box, so that no second side would be right
    as well.
    """
    for axis, (before, after) in enumerate((("left", "right"), ("above", "below"))):
        other = 1 - axis
        middles = [(box[other] + box[other + 2]) / 2 for box in (a, b)]
        beside = b[other] <= middles[0] < b[other + 2] or a[other] <= middles[1] < a[other + 2]
        if beside and a[axis + 2] <= b[axis]:
            return before
        if beside and b[axis + 2] <= a[axis]:
            return after
    return None


OPPOSITES = {
    "left": ("left side", "right side"),
    "right": ("right side", "left side"),
    "above": ("above", "below"),
    "below": ("below", "above"),
}
SIDES = {
    "left": "left",
    "right": "right",
    "above": "above",
    "top": "above",
    "over": "above",
    "below": "below",
    "under": "below",
    "bottom": "below",
}
_SIDE = re.compile(rf"\b(?:{'|'.join((*SIDES, 'underneath', 'beneath'))})\b", re.IGNORECASE)
_TOKEN = re.compile(r"<[a-z_]+>")


def vstar_files(folder: Path) -> list[Path]:
    """The JSON files of a folder of pairs."""
    return files_below(folder, "**/*.json")


def read_vstar(folder: Path, images: Path | None = None) -> Records:
    """A folder like V*Bench: pictures, each with a JSON file of its name beside it: question, options of
    which the first is right, target_object (names) and bbox ([x, y, width, height] each). The folder that
    a pair lies in is its category."""
    files = vstar_files(folder)
    if not files:
        raise DataError(f"{folder}: V*Bench is a folder of pairs of .json and picture; there is none in it.")
    return records_of(folder, "file", files, lambda number, file: _pair(folder, file))


def records_of(
    path: Path, unit: str, payloads: Sequence[Any], read: Callable[[int, Any], Item]
) -> Iterator[Record]:
    """Records of what `read` makes of each payload; what raises Fault or ImageError is a problem."""
    seen = dict[str, int]()
    for number, payload in enumerate(payloads, start=1):
        try:
            item = read(number, payload)
            check_text("id", item.id)
            if item.id in seen:
                raise Fault(
                    "duplicate id",
                    f'id "{item.id}" was already given on {unit} {seen[item.id]}. Ids are unique in a file.',
                )
            seen[item.id] = number
            yield Record(number, item, unit=unit)
        except Fault as fault:
            yield Record(number, None, (fault.of(path, unit, number),), unit)
        except ImageError as error:
            yield Record(number, None, (Fault(error.reason, f"{error}.").of(path, unit, number),), unit)


def _pair(folder: Path, file: Path) -> Item:
    name = file.relative_to(folder).as_posix()
    if not file.resolve().is_relative_to(folder.resolve()) and file.is_symlink():
        named_picture(folder, name)  # raises where the link leaves the folder and its hub cache
    try:
        note = read_json(file)
    except DataError as error:
        raise Fault("broken annotation", f"{name}: no V* annotation ({error})") from error
    if not isinstance(note, dict):
        raise Fault("broken annotation", f"{name}: no V* annotation: it must be an object, {{...}}.")
    for field in ("question", "options", "target_object", "bbox"):
        if field not in note:
            raise Fault(
                "broken annotation",
                f'{name}: vstar needs the field "{field}", which is missing. The file has {", ".join(note)}.',
            )
    if not isinstance(note["question"], str):
        raise Fault("wrong type", f"{name}: question must be a text.")
    question, options = options_of(
        {"question": check_text("question", note["question"]), "options": note["options"]}
    )
    if not 2 <= len(options.texts) <= len(LETTERS):
        raise Fault(
            "number of options",
            f"{name}: options holds {len(options.texts)}; there must be 2 to {len(LETTERS)}.",
        )
    stem = file.with_name(file.name[: -len(file.suffix)])
    picture = picture_beside(stem)
    if picture is None:
        raise Fault(
            "image missing", f"{name}: there is no picture of that name beside it ({', '.join(PICTURES)})."
        )
    held = named_picture(folder, picture.relative_to(folder).as_posix())
    identity = stem.relative_to(folder)
    return Item(
        id=identity.as_posix(),
        kind="choice",
        question=question,
        answer="A",
        options=options.texts,
        pictures=(held,),
        category=identity.parent.as_posix() if identity.parent != Path() else None,
        targets=boxed_targets(note["target_object"], note["bbox"], held),
    )


def spread(item: Item) -> Item:
    """The item with its options in an order that follows from its id: in V*'s files the first is always
    right.

    Options that speak of others stay where they are.
    """
    if item.kind != "choice" or options_speak_of_others(item.options):
        return item
    options, answer = spread_options(item.options[LETTERS.index(item.answer)], item.options, item.id)
    return replace(item, options=tuple(options), answer=answer)


def spread_options(right: str, options: Sequence[str], name: str) -> tuple[list[str], str]:
    """(options, letter of the right one) in an order that follows from the record's name."""
    ordered = sorted(options, key=lambda option: derive_seed("options", name, option))
    return ordered, LETTERS[ordered.index(right)]


def read_relations(path: Path, images: Path | None = None) -> Records:
    """The spatial-relation file of V*'s training data (SEAL): a JSON list of {image, conversations,
    target_instances}; pictures in COCO and GQA folders. Its answers are free text. A question is made
    where the answer names one of four sides; the other option is the opposite side."""
    items = read_json(path)
    if not isinstance(items, list):
        raise DataError(f"{path}: V*'s training files are JSON lists; this one holds {type(items).__name__}.")
    folder = images or path.parent
    return records_of(path, "record", items, lambda number, item: _relation(folder, number, item))


def _relation(folder: Path, number: int, item: Any) -> Item:
    try:
        image, turns, instances = item["image"], item["conversations"], item["target_instances"]
        question, answer = (_TOKEN.sub("", turn["value"]).strip() for turn in turns[:2])
        names, boxes = (
            [instance["name"] for instance in instances],
            [instance["bbox"] for instance in instances],
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Fault("broken annotation", f"no spatial-relation record ({error!r}).") from error
    words = (
        word.replace("underneath", "under").replace("beneath", "under")
        for word in map(str.lower, _SIDE.findall(answer))
    )
    sides = {SIDES[word] for word in words}
    if len(sides) != 1:
        raise Fault(
            "answer names no side", f'its answer, "{answer[:80]}", names {len(sides)} sides; one is needed.'
        )
    right, wrong = OPPOSITES[sides.pop()]
    name = check_text("id", str(item.get("id", item.get("question_id", number))))
    if not isinstance(image, str) or not image:
        raise Fault("wrong type", "image must be a text.")
    held = named_picture(folder, image)
    options, letter = spread_options(right, [right, wrong], name)
    return Item(
        id=name,
        kind="choice",
        question=check_text("question", question),
        answer=letter,
        options=tuple(options),
        pictures=(held,),
        category="relative_position",
        targets=boxed_targets(names, boxes, held),
    )


def boxed_targets(names: Any, boxes: Any, picture: PictureFile) -> tuple[Target, ...]:
    """Targets of names and boxes [x, y, width, height] in pixels, rounded outwards. Raises Fault where
    they do not belong together."""
    if not isinstance(names, list) or not isinstance(boxes, list) or len(names) != len(boxes):
        counts = [str(len(own)) if isinstance(own, list) else "no list of" for own in (names, boxes)]
        raise Fault(
            "names and boxes", f"{counts[0]} names and {counts[1]} boxes of targets: there must be as many."
        )
    sides = [four_numbers(box) for box in boxes]
    for box, own in zip(boxes, sides, strict=True):
        if own is None:
            raise Fault(
                "wrong type", f"box {str(box)[:60]} must be four numbers [x, y, width, height] in pixels."
            )
    if not names:
        return ()
    size = upright_size(picture.path)
    whole = [whole_box(own[0], own[1], own[2], own[3], size) for own in sides if own is not None]
    return targets_of([{"name": name, "box": box} for name, box in zip(names, whole, strict=True)])


def whole_box(x: float, y: float, width: float, height: float, size: tuple[int, int] | None) -> list[int]:
    """A box of real numbers as whole pixels, rounded outwards; what reaches over the picture's border by a
    pixel or less is cut off."""

    def side(value: int, most: int) -> int:
        return min(max(value, 0), most) if -1 <= value <= most + 1 else value

    box = floor(x), floor(y), ceil(x + width), ceil(y + height)
    return [side(value, size[axis % 2]) if size else value for axis, value in enumerate(box)]
