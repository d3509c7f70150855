"""What every source can do: name its records one after another, cheaply, and read some of them, pictures and all."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import ceil, floor
from pathlib import Path
from typing import Any

from PIL.Image import Image

from sparring.data.images import ImageError, decode_image
from sparring.data.questions import Picture, Problem, QuestionReader, picture_inside
from sparring.forge.records import Refused, Sample, Unit
from sparring.rl.seeds import derive_seed

BLOCK = 2**20


class Source(ABC):
    """A source of questions. `unit` is what its records are called in messages."""

    unit = "record"

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """path: the file or folder of the source. images: the folder that pictures are named from and must lie in; None: the source's own."""
        self.path = path
        self.images = (images or (path if path.is_dir() else path.parent)).resolve()

    @abstractmethod
    def payloads(self) -> Iterator[Any]:
        """What tells one record from the others, in order, in little memory."""

    @abstractmethod
    def record(self, unit: Unit, picture: Picture) -> tuple[bytes | dict[str, Any], bytes | None]:
        """(a record as `data.questions` describes it, as JSON text or parsed; the picture's file where the source carries it).

        picture: gets a picture by the name that the record has for it. Raises Refused.
        """

    @abstractmethod
    def files(self) -> Iterator[Path]:
        """The files that decide what the records are (pictures apart)."""

    def units(self) -> Iterator[Unit]:
        """All records, numbered from 1."""
        return (Unit(number, payload) for number, payload in enumerate(self.payloads(), start=1))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides the records: another one, and a forge cannot be continued."""
        digest = hashlib.sha256()
        for file in self.files():
            with open(file, "rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
        return digest.hexdigest()

    def read(self, units: Sequence[Unit]) -> list[Sample | list[Problem]]:
        """Every unit as a sample, or as what is wrong with it. Every picture is decoded once."""
        carried: dict[str, bytes] = {}
        pictures: dict[str, tuple[Path, Image]] = {}

        def picture(name: str) -> tuple[Path, Image]:
            if name not in pictures:
                if name in carried:
                    pictures[name] = self.path / name, decode_image(carried[name], name)
                else:
                    pictures[name] = picture_inside(self.images, self.path.name, name)
            return pictures[name]

        reader = QuestionReader(self.path, picture, self.unit)
        found: list[Sample | list[Problem]] = []
        for unit in units:
            before, known = len(reader.problems), len(reader.records)
            try:
                record, data = self.record(unit, picture)
            except (Refused, ImageError) as error:
                found.append([Problem(unit.number, None, error.reason, f"{self.path.name} {self.unit} {unit.number}: {error}")])
                continue
            if isinstance(record, bytes):
                reader.read(unit.number, record)
            else:
                if data is not None:
                    record["image"] = f"{self.unit} {unit.number}"
                    carried[record["image"]] = data
                reader.check(unit.number, record)
            if len(reader.records) > known:
                question = reader.records[-1]
                name = next(name for name, (path, _) in pictures.items() if path == question.image)
                found.append(Sample(unit.number, question, pictures[name][1]))
            else:
                found.append(reader.problems[before:])
        return found


def shuffled_options(right: str, wrong: Sequence[str], name: str) -> tuple[list[str], str]:
    """(options, letter of the right one) in an order that follows from the record's name."""
    options = sorted((right, *wrong), key=lambda option: derive_seed("options", name, option))
    return options, chr(65 + options.index(right))


def whole_box(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> list[int]:
    """A box of real numbers as whole pixels, rounded outwards; what reaches over the picture's border by a pixel or less is cut off."""

    def side(value: int, most: int) -> int:
        return min(max(value, 0), most) if -1 <= value <= most + 1 else value

    box = floor(x), floor(y), ceil(x + width), ceil(y + height)
    return [side(value, size[axis % 2]) for axis, value in enumerate(box)]
