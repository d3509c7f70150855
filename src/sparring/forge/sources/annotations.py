"""Sources that are annotations of pictures: V* folders, V*'s spatial-relation training file, COCO detection files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparring.data.errors import DataError
from sparring.data.questions import Picture
from sparring.forge.records import Refused, Unit
from sparring.forge.relations import Thing, relation_question
from sparring.forge.sources.base import Source, shuffled_options, whole_box

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
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


class VStar(Source):
    """A folder like V*Bench: pictures, each with a JSON file of its name beside it: question, options of which the first is right, target_object (names)
    and bbox ([x, y, width, height] each). The folder that a pair lies in is its category."""

    unit = "file"

    def payloads(self) -> Iterator[str]:
        for path in self.files():
            yield path.relative_to(self.path).as_posix()

    def files(self) -> Iterator[Path]:
        yield from sorted(path for path in self.path.rglob("*.json"))

    def record(self, unit: Unit, picture: Picture) -> tuple[dict[str, Any], None]:
        path = (self.path / unit.payload).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise Refused("file outside the folder", f"{unit.payload} leads out of the folder.")
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            names, boxes, options = note["target_object"], note["bbox"], note["options"]
            question, right, wrong = note["question"], options[0], options[1:]
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise Refused("broken annotation", f"{unit.payload}: no V* annotation ({error!r}).") from error
        stem = unit.payload.removesuffix(".json")
        image = next((stem + suffix for suffix in PICTURES if (self.path / (stem + suffix)).is_file()), stem + PICTURES[0])
        if not all(isinstance(option, str) for option in options):
            raise Refused("wrong type", f"{unit.payload}: options must be texts.")
        shown, letter = shuffled_options(right, wrong, stem)
        record = {"id": stem, "image": image, "question": question, "options": shown, "answer": letter}
        record["targets"] = _targets(names, boxes, picture(image)[1].size) if names else []
        if "/" in stem:
            record["category"] = Path(stem).parent.as_posix()
        return record, None


class VStarRelations(Source):
    """The spatial-relation file of V*'s training data (SEAL): a JSON list of {image, conversations, target_instances}; pictures in COCO and GQA folders.

    Its answers are free text. A question is made where the answer names one of four sides; the other option is the opposite side.
    """

    def payloads(self) -> Iterator[Any]:
        items = _json(self.path)
        if not isinstance(items, list):
            raise DataError(f"{self.path}: V*'s training files are JSON lists; this one holds {type(items).__name__}.")
        yield from items

    def files(self) -> Iterator[Path]:
        yield self.path

    def record(self, unit: Unit, picture: Picture) -> tuple[dict[str, Any], None]:
        try:
            item = unit.payload
            image, turns, instances = item["image"], item["conversations"], item["target_instances"]
            question, answer = (_TOKEN.sub("", turn["value"]).strip() for turn in turns[:2])
            names, boxes = [instance["name"] for instance in instances], [instance["bbox"] for instance in instances]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Refused("broken annotation", f"no spatial-relation record ({error!r}).") from error
        sides = {SIDES[word.replace("underneath", "under").replace("beneath", "under")] for word in map(str.lower, _SIDE.findall(answer))}
        if len(sides) != 1:
            raise Refused("answer names no side", f'its answer, "{answer[:80]}", names {len(sides)} sides; one is needed.')
        right, wrong = OPPOSITES[sides.pop()]
        name = str(item.get("id", item.get("question_id", unit.number)))
        options, letter = shuffled_options(right, [wrong], name)
        if not isinstance(image, str) or not image:
            raise Refused("wrong type", "image must be a text.")
        targets = _targets(names, boxes, picture(image)[1].size)
        return {
            "id": name,
            "image": image,
            "question": question,
            "options": options,
            "answer": letter,
            "targets": targets,
            "category": "relative_position",
        }, None


class Coco(Source):
    """A COCO detection file: images, annotations, categories. One made-up question of relative position a picture."""

    def payloads(self) -> Iterator[dict[str, Any]]:
        data = _json(self.path)
        try:
            names = {category["id"]: category["name"] for category in data["categories"]}
            objects: dict[Any, list[Any]] = {}
            for annotation in data["annotations"]:
                objects.setdefault(annotation["image_id"], []).append(annotation)
            pictures = data["images"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.path}: no COCO detection file: {error!r} is missing or of another kind.") from error
        for image in pictures:
            own = objects.get(image.get("id"), [])
            yield {
                "image": image,
                "objects": [(names.get(note.get("category_id")), note.get("bbox"), note.get("iscrowd", 0)) for note in own],
            }

    def files(self) -> Iterator[Path]:
        yield self.path

    def record(self, unit: Unit, picture: Picture) -> tuple[dict[str, Any], None]:
        image, objects = unit.payload["image"], unit.payload["objects"]
        file = image.get("file_name")
        if not isinstance(file, str) or not file:
            raise Refused("missing key", "the picture has no file_name.")
        size = picture(file)[1].size
        things = [
            Thing(str(name), box, bool(crowd)) for (name, _, crowd), box in zip(objects, _boxes([o[1] for o in objects], size), strict=True)
        ]
        name = str(image.get("id", unit.number))
        asked = relation_question(things, size, name)
        if asked is None:
            raise Refused("no clear pair", "no two objects, each the only one of its kind, stand clearly on one side of one another.")
        a, b, side, sides = asked
        options, letter = shuffled_options(side, [other for other in sides if other != side], name)
        return {
            "id": name,
            "image": file,
            "question": f"Where is the {a.name} relative to the {b.name}?",
            "options": options,
            "answer": letter,
            "targets": [{"name": thing.name, "box": list(thing.box)} for thing in (a, b)],
            "category": "relative_position",
        }, None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no readable JSON ({error}).") from error


def _targets(names: Sequence[Any], boxes: Sequence[Any], size: tuple[int, int]) -> list[dict[str, Any]]:
    if len(names) != len(boxes):
        raise Refused("names and boxes", f"{len(names)} names and {len(boxes)} boxes of targets: there must be as many.")
    return [{"name": name, "box": box} for name, box in zip(names, _boxes(boxes, size), strict=True)]


def _boxes(boxes: Sequence[Any], size: tuple[int, int]) -> list[list[int]]:
    """[x, y, width, height] as whole pixels [x0, y0, x1, y1]."""
    for box in boxes:
        if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) and abs(side) < 2**31 for side in box):
            raise Refused("wrong type", f"box {box} must be four numbers [x, y, width, height] in pixels.")
    return [whole_box(x, y, width, height, size) for x, y, width, height in boxes]
