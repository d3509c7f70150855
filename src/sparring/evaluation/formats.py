"""CHAIR's files: COCO's annotations and captions, and the synonyms that its scores are counted with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.data.coco import CocoPicture, coco_pictures
from sparring.data.files import files_below
from sparring.data.items import Item, Records
from sparring.data.pictures import named_picture
from sparring.data.problems import Fault
from sparring.data.suites import field_of, only_file
from sparring.data.vstar import records_of
from sparring.evaluation.chair import Vocabulary

CAPTION = "Describe this image in detail."


def read_chair(path: Path, images: Path | None) -> Records:
    """CHAIR: a folder with COCO's `instances*.json`, the official `synonyms.txt`, and, where it is there,
    `captions*.json`; one caption a picture.

    The objects of a picture are those that were annotated, and those that its reference captions name.
    """
    vocabulary = Vocabulary.read(only_file(path, "synonyms.txt"))
    instances = only_file(path, "instances*.json")
    told: dict[str, set[str]] = defaultdict(set)
    for file in files_below(path, "captions*.json"):
        for annotation in field_of(file, "annotations", "image_id", "caption"):
            told[str(annotation["image_id"])] |= set(vocabulary.objects(annotation["caption"]))
    pictures = list(coco_pictures(instances))
    return records_of(instances, "image", pictures, lambda number, own: _caption(images or path, own, vocabulary, told))


def _caption(folder: Path, picture: CocoPicture, vocabulary: Vocabulary, told: Mapping[str, set[str]]) -> Item:
    if picture.file is None:
        raise Fault("missing key", "the picture has no file_name.")
    objects = {name for note in picture.notes for name in vocabulary.objects(note.name)} | told.get(picture.id, set())
    return Item(
        picture.id,
        "caption",
        CAPTION,
        "",
        pictures=(named_picture(folder, picture.file),),
        meta={"objects": sorted(objects)},
    )


def chair_resources(path: Path) -> dict[str, Any]:
    """What CHAIR's scores need beside the items: the lines of synonyms."""
    return {"synonyms": Vocabulary.read(only_file(path, "synonyms.txt")).lines}
