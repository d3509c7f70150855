"""COCO detection files: pictures, and what is annotated in them. One bad annotation costs itself, not its
picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.data.choices import check_text
from sparring.data.errors import DataError, Fault
from sparring.data.files import read_json
from sparring.data.images import upright_size
from sparring.data.items import Item, Records
from sparring.data.pictures import named_picture
from sparring.data.records import Target
from sparring.data.tables import four_numbers
from sparring.data.vstar import Thing, records_of, relation_question, spread_options, whole_box


@dataclass(frozen=True, slots=True)
class Note:
    """One annotated object: its name, its box [x, y, width, height] in pixels, which may be of no use, and
    whether it is a crowd."""

    name: str
    box: Any
    crowd: bool


@dataclass(frozen=True, slots=True)
class CocoPicture:
    """A picture of a detection file. file: its name, None where it has none. notes: its objects whose
    category has a name."""

    id: str
    file: str | None
    notes: tuple[Note, ...]


def is_coco(whole: Any) -> bool:
    """Is a parsed file one of detections?"""
    return isinstance(whole, dict) and {"images", "annotations"} <= whole.keys()


def coco_pictures(path: Path, whole: Any = None) -> Iterator[CocoPicture]:
    """The pictures of a detection file. whole: the file, where it is parsed already.

    Ids are compared by `id_key`. An object of a category that is not listed, or has no name, is not told.
    Raises DataError where the file is of another kind.
    """
    whole = read_json(path) if whole is None else whole
    try:
        categories, annotations, images = (whole[name] for name in ("categories", "annotations", "images"))
        names = {
            id_key(category["id"]): category["name"].strip()
            for category in categories
            if isinstance(category, dict)
            and "id" in category
            and isinstance(category.get("name"), str)
            and category["name"].strip()
        }
        notes = defaultdict[str, list[Note]](list)
        for note in (own for own in annotations if isinstance(own, dict)):
            if (name := names.get(id_key(note.get("category_id")))) is not None:
                notes[id_key(note.get("image_id"))].append(
                    Note(
                        name,
                        note.get("bbox"),
                        id_key(note.get("iscrowd", 0)) not in ("0", "None", "False", ""),
                    )
                )
        for number, image in enumerate((own if isinstance(own, dict) else {} for own in images), start=1):
            file = image.get("file_name")
            own = notes.get(id_key(image["id"]), []) if "id" in image else []
            identity = str(image.get("id", number))
            yield CocoPicture(identity, file if isinstance(file, str) and file.strip() else None, tuple(own))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no COCO detection file: {error!r} is missing or of another kind. It needs images, "
            f"annotations and categories."
        ) from error


def id_key(value: Any) -> str:
    """An id as text, however it is written: 7, 7.0, "7" and "000007" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return str(int(text)) if text.isascii() and text.isdigit() else text


def usable_box(note: Note, size: tuple[int, int] | None) -> tuple[int, int, int, int] | None:
    """An object's box in whole pixels [x0, y0, x1, y1]; None where it has none, an empty one, or one that
    leaves the picture."""
    sides = four_numbers(note.box)
    if sides is None:
        return None
    x0, y0, x1, y1 = whole_box(sides[0], sides[1], sides[2], sides[3], size)
    if x1 <= x0 or y1 <= y0 or (size is not None and (x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1])):
        return None
    return x0, y0, x1, y1


def read_coco(path: Path, images: Path | None = None) -> Records:
    """One made-up question of relative position a picture, about two objects that are each the only one of
    their kind in it."""
    folder = images or path.parent
    return records_of(
        path, "record", list(coco_pictures(path)), lambda number, picture: _question(folder, picture)
    )


def _question(folder: Path, picture: CocoPicture) -> Item:
    if picture.file is None:
        raise Fault("missing key", "the picture has no file_name.")
    held = named_picture(folder, picture.file)
    size = upright_size(held.path)
    if size is None:
        raise Fault("image broken", f"image {picture.file} has no size that can be read.")
    # What has no usable box is there nevertheless: of its kind nothing is asked, as of a crowd's.
    boxes = [(note, usable_box(note, size)) for note in picture.notes]
    things = [Thing(note.name, list(box or (0, 0, 0, 0)), note.crowd or box is None) for note, box in boxes]
    check_text("id", picture.id)
    asked = relation_question(things, size, picture.id)
    if asked is None:
        raise Fault(
            "no clear pair",
            "no two objects, each the only one of its kind, stand clearly on one side of one another.",
        )
    a, b, side, sides = asked
    options, letter = spread_options(side, sides, picture.id)
    return Item(
        id=picture.id,
        kind="choice",
        question=f"Where is the {a.name} relative to the {b.name}?",
        answer=letter,
        options=tuple(options),
        pictures=(held,),
        category="relative_position",
        targets=tuple(
            Target(thing.name, (thing.box[0], thing.box[1], thing.box[2], thing.box[3])) for thing in (a, b)
        ),
    )
