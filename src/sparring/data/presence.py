"""Annotated pictures and yes-no probes about what is in them, in the way of POPE (Li et al. 2023, arXiv
2305.10355).

Of each picture objects that are there are asked about ("yes"), and as many that are not ("no"). Absent ones
are drawn at random from all annotated names; or are the most frequent names of the whole set ("popular"); or
those that most often stand beside the object asked about just before ("adversarial"). Where the latter two
run out of names, a random absent one is taken.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparring.data.coco import CocoPicture, coco_pictures, usable_box
from sparring.data.errors import DataError, Fault
from sparring.data.images import ImageError, upright_size
from sparring.data.pictures import named_picture
from sparring.data.records import Target, VisualQuestion
from sparring.data.text_tables import read_table, table_kind

Negatives = Literal["random", "popular", "adversarial"]
NEGATIVES: tuple[Negatives, ...] = ("random", "popular", "adversarial")
YES, NO = "yes", "no"


@dataclass(frozen=True, slots=True)
class Annotated:
    """A picture and what is in it; an object's boxes may be unknown. Names that are not listed count as
    absent."""

    image: Path
    objects: tuple[str, ...]
    targets: tuple[Target, ...] = ()


def read_annotations(path: str | Path, images: str | Path | None = None) -> list[Annotated]:
    """Annotated pictures from JSON lines {"image": ..., "objects": [names]}, or from a COCO detection file
    (`instances_*.json`), with boxes.

    Pictures are named relative to `images`, or to the file's folder. Raises DataError, naming the line or key
    that is missing.
    """
    path = Path(path)
    folder = Path(images) if images is not None else path.parent
    if table_kind(path) != "lines":
        return [_annotated(folder, picture) for picture in coco_pictures(path)]
    found = []
    for number, record in read_table(path, images=folder).records():
        try:
            if isinstance(record, Fault):
                raise record
            objects = tuple(dict.fromkeys(str(name) for name in record["objects"]))
            found.append(Annotated(named_picture(folder, str(record["image"])).path, objects))
        except (KeyError, TypeError) as error:
            raise DataError(
                f'{path} line {number}: needs "image" and "objects", a list of names ({error!r}).'
            ) from error
        except (Fault, ImageError) as error:
            raise DataError(f"{path} line {number}: {error}") from error
    return found


def _annotated(folder: Path, picture: CocoPicture) -> Annotated:
    if picture.file is None:
        raise DataError(f"image {picture.id} has no file_name.")
    path = named_picture(folder, picture.file).path
    size = upright_size(path)
    boxes = [(note.name, usable_box(note, size)) for note in picture.notes]
    return Annotated(
        path,
        tuple(dict.fromkeys(name for name, _ in boxes)),
        tuple(Target(name, box) for name, box in boxes if box is not None),
    )


def presence_probes(
    pictures: Sequence[Annotated], negatives: Negatives, *, per_picture: int = 3, seed: int = 0
) -> list[VisualQuestion]:
    """`per_picture` present and as many absent objects of every picture, in turns, as yes-no questions;
    category: the kind of negatives.

    A picture with fewer objects gives as many of each as it has. Ids are "NEGATIVES-PICTURE-NUMBER". What is
    drawn follows from the seed, the kind and the picture's number alone. Raises DataError where a picture
    leaves no name that is absent from it.
    """
    counts = Counter(name for picture in pictures for name in picture.objects)
    names = sorted(counts)
    popular = sorted(names, key=lambda name: (-counts[name], name))
    beside = _beside(pictures)
    found = []
    for number, picture in enumerate(pictures):
        rng = random.Random(f"{seed}/{negatives}/{number}")
        present = list(picture.objects)
        rng.shuffle(present)
        taken: set[str] = set()
        for place, name in enumerate(present[:per_picture]):
            ranked = {"random": (), "popular": popular, "adversarial": beside[name]}[negatives]
            absent = next(
                (other for other in ranked if other not in taken and other not in picture.objects), None
            )
            if absent is None:
                free = [other for other in names if other not in taken and other not in picture.objects]
                if not free:
                    raise DataError(
                        f"{picture.image.name}: every annotated name is in it or was asked already, so no "
                        f"absent object is left. Ask for fewer objects a picture, or annotate more pictures."
                    )
                absent = rng.choice(free)
            taken.add(absent)
            for half, (asked, answer) in enumerate(((name, "A"), (absent, "B"))):
                targets = tuple(target for target in picture.targets if target.name == asked)
                identity = f"{negatives}-{number:06d}-{2 * place + half}"
                found.append(
                    VisualQuestion(
                        identity,
                        picture.image,
                        presence_question(asked),
                        (YES, NO),
                        answer,
                        targets,
                        negatives,
                    )
                )
    return found


def _beside(pictures: Sequence[Annotated]) -> dict[str, list[str]]:
    """Name -> the names that share a picture with it, the most frequent first, ties by name."""
    together: dict[str, Counter[str]] = defaultdict(Counter)
    for picture in pictures:
        for name in picture.objects:
            together[name].update(other for other in picture.objects if other != name)
    return defaultdict(
        list, {name: sorted(own, key=lambda other: (-own[other], other)) for name, own in together.items()}
    )


def presence_question(name: str) -> str:
    """POPE's wording; "an" before a vowel letter."""
    return f"Is there a{'n' if name[:1].lower() in 'aeiou' else ''} {name} in the picture?"
