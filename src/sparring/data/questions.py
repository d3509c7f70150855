"""Reading questions for a game, an attack, a probe or a fine-tuning, from any layout, checked whole before
anything is done with them.

This project's own layout is one JSON record a line:

    {"id": "kitchen-4", "image": "images/kitchen.png", "question": "Where is the cup relative to the sink?",
    "options": ["left", "right"],
     "answer": "A", "targets": [{"name": "cup", "box": [10, 20, 40, 60]}], "category": "position"}

`image` is relative to the file and stays inside its folder; boxes are half-open, in pixels of the upright
picture. `id`, `targets`, `category` and `reasoning` (a thought that leads to the answer, which supervised
fine-tuning learns from) may be left out.
"""

from __future__ import annotations

import atexit
import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from PIL.Image import Image

from sparring.data.errors import DataError, Fault, Problem, refuse
from sparring.data.images import ImageError, image_sha256, load_image
from sparring.data.items import YES_NO, Item, Record, Records
from sparring.data.layouts import find_layout
from sparring.data.pictures import Picture, PictureFile, PictureInMemory
from sparring.data.records import LETTERS, VisualQuestion
from sparring.data.vstar import spread
from sparring.data.words import plural


@dataclass(frozen=True, slots=True)
class Questions:
    """The records of a file, in its order, and what was dropped from it (nothing, unless bad records were
    to be skipped)."""

    path: Path
    records: list[VisualQuestion]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[VisualQuestion]:
        return iter(self.records)

    @property
    def dropped(self) -> int:
        """How many records were dropped. One record may have several problems."""
        return len({problem.line for problem in self.problems})

    def dropped_by_reason(self) -> dict[str, int]:
        """Reason -> records dropped for it, the most frequent first; a record counts once, under its first
        problem."""
        first: dict[int, str] = {}
        for problem in self.problems:
            first.setdefault(problem.line, problem.reason)
        return dict(Counter(first.values()).most_common())

    def by_category(self) -> dict[str, int]:
        """Category -> number of records; records without one are under "(none)"."""
        return dict(sorted(Counter(record.category or "(none)" for record in self.records).items()))

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked: ids, questions, options, answers, boxes. Pictures are told apart
        elsewhere, by their pixels."""
        digest = hashlib.sha256()
        for record in self.records:
            digest.update(
                repr(
                    (
                        record.id,
                        record.question,
                        record.options,
                        record.answer,
                        record.targets,
                        record.reasoning,
                    )
                ).encode()
            )
        return digest.hexdigest()


def read_questions(
    path: str | Path,
    *,
    skip_bad: bool = False,
    images: str | Path | None = None,
    folder: Path | None = None,
    layout: str = "auto",
) -> Questions:
    """Read and check questions in any layout: every record, every field, every picture, every box.

    images: the folder that pictures are named from; None: the data's own. folder: where pictures are written
    that the data carry inside them (base64, Parquet); None: a folder that goes with this process. With
    `skip_bad` bad records are left out and reported in the result's `problems`. Of records with the same id
    the first is kept. Raises DataError, listing the first 20 problems, if a record is bad (or, with
    `skip_bad`, if none is good); if the data are missing, empty or of no known layout.
    """
    path = Path(path)
    return check_questions(
        path, open_records(path, images, layout), folder or _passing_folder(), skip_bad=skip_bad
    )


def open_records(path: Path, images: str | Path | None = None, layout: str = "auto") -> Records:
    """The records of data in any layout, their options in an order that says nothing of the answer. Raises
    DataError."""
    if images is not None and not Path(images).is_dir():
        raise DataError(f"{images}: no such folder of pictures.")
    found = find_layout(path, layout)
    records = found.format.read(found.path, Path(images) if images is not None else None)
    if not found.format.first_is_right:
        return records
    return (replace(own, item=spread(own.item)) if own.item is not None else own for own in records)


def check_questions(
    path: Path, records: Iterable[Record], folder: Path, *, skip_bad: bool = False
) -> Questions:
    """The records as questions, each with its picture and boxes checked. folder: where carried pictures
    are written; see `read_questions`."""
    checker = QuestionChecker(path, folder)
    for record in records:
        checker.check(record)
    return checker.finish(skip_bad)


@cache
def _passing_folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="sparring-pictures-")
    atexit.register(folder.cleanup)
    return Path(folder.name).resolve()


class QuestionChecker:
    """Collects questions and problems, record by record. Every picture is decoded once."""

    def __init__(self, path: Path, folder: Path | None, *, keep: bool = False) -> None:
        """folder: where carried pictures are written; None: nowhere, and they are named by their place in
        the data. keep: decoded pictures."""
        self.path, self._folder, self._keep = path, folder, keep
        self.images: dict[Path, Image] = {}
        """The pictures by what questions call them, where they are to be kept."""
        self.records: list[VisualQuestion] = []
        self.problems: list[Problem] = []
        self._first: dict[str, int] = {}
        self._pictures: dict[object, tuple[Path, tuple[int, int]] | Fault] = {}

    def check(self, record: Record) -> VisualQuestion | None:
        """Keep a record as a question, or note what is wrong with it and return None."""
        if record.item is None:
            self.problems += record.problems
            return None
        before = len(self.problems)
        item = record.item
        if item.id in self._first:
            what = f"id was already given on {record.unit} {self._first[item.id]}. Ids are unique in a file."
            self._note(record, Fault("duplicate id", what))
        self._first.setdefault(item.id, record.number)
        for fault in _unfit(item):
            self._note(record, fault)
        size: tuple[int, int] | None = None
        path = Path()
        if len(item.pictures) == 1:
            try:
                path, size = self._picture(item.pictures[0])
            except Fault as fault:
                self._note(record, fault)
        for place, target in enumerate(item.targets):
            x0, y0, x1, y1 = target.box
            if size is not None and (x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1]):
                box = f'box {list(target.box)} of target "{target.name}" (targets[{place}])'
                what = f"{box} lies outside the image, which is {size[0]} x {size[1]} pixels."
                self._note(record, Fault("box outside the image", what))
        if len(self.problems) > before:
            return None
        options = YES_NO if item.kind == "yes_no" else item.options
        self.records.append(
            VisualQuestion(
                id=item.id,
                image=path,
                question=f"{item.hint}\n{item.question}" if item.hint else item.question,
                options=options,
                answer=LETTERS[YES_NO.index(item.answer)] if item.kind == "yes_no" else item.answer,
                targets=item.targets,
                category=item.category,
                reasoning=item.reasoning,
            )
        )
        return self.records[-1]

    def finish(self, skip_bad: bool) -> Questions:
        """What was read. Raises DataError, listing the first 20 problems, if a record is bad (or, with
        `skip_bad`, if none is good)."""
        if self.problems and not (skip_bad and self.records):
            raise refuse(self.path, self.problems, nothing_left=skip_bad)
        return Questions(self.path, self.records, tuple(self.problems))

    def _note(self, record: Record, fault: Fault) -> None:
        self.problems.append(
            fault.of(self.path, record.unit, record.number, record.item.id if record.item else None)
        )

    def _picture(self, picture: Picture) -> tuple[Path, tuple[int, int]]:
        key: object = id(picture) if isinstance(picture, PictureInMemory) else picture
        if key not in self._pictures:
            try:
                image = picture.load()  # before anything is written: what is no picture is not kept
                path = self._path_of(picture)
                self._pictures[key] = path, image.size
                if self._keep:
                    self.images[path] = image
            except ImageError as error:
                self._pictures[key] = Fault(error.reason, f"{error}.")
            except DataError as error:
                self._pictures[key] = Fault("image broken", f"{error}.")
        found = self._pictures[key]
        if isinstance(found, Fault):
            raise found
        return found

    def _path_of(self, picture: Picture) -> Path:
        if isinstance(picture, PictureFile):
            return picture.path.resolve()
        return (
            self.path / getattr(picture, "name", "picture")
            if self._folder is None
            else kept_picture(picture, self._folder)
        )


def _unfit(item: Item) -> Iterator[Fault]:
    """What keeps an item from being a question with options about one picture."""
    if item.kind == "caption":
        yield Fault("no options", "a caption, not an answer, is asked for; options are needed.")
    if item.kind == "open":
        yield Fault("no options", "its answer is free; options are needed, in options, choices, or A, B, ...")
    if not item.pictures:
        yield Fault("no picture", "there is no picture.")
    if len(item.pictures) > 1:
        yield Fault("several pictures", f"it is about {len(item.pictures)} pictures; one is needed.")
    # "Red" and "red " would be told apart by nobody who reads the Defender's reply.
    counts = Counter(option.strip().casefold() for option in item.options)
    twins = [option for option, count in counts.items() if count > 1]
    if twins and item.kind == "choice":
        yield Fault("duplicate option", f'options holds "{twins[0]}" twice.')


def kept_picture(picture: Picture, folder: Path) -> Path:
    """The file of a picture that data carry inside them: written below the folder byte for byte, once and
    whole, named by its contents."""
    data = picture.data()
    path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}{_suffix(data)}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(data)
        partial.replace(path)
    return path


def _suffix(data: bytes) -> str:
    """The ending of a picture's file, by its first bytes."""
    for start, suffix in (
        (b"\x89PNG", ".png"),
        (b"\xff\xd8", ".jpg"),
        (b"RIFF", ".webp"),
        (b"GIF8", ".gif"),
        (b"BM", ".bmp"),
    ):
        if data.startswith(start):
            return suffix
    return ".tif"


def split_held_out(
    questions: Sequence[VisualQuestion],
    count: int,
    seed: int,
    *,
    advice: str = "Lower data.held_out, add questions, or name a file with data.held_out_path.",
) -> tuple[list[VisualQuestion], list[VisualQuestion]]:
    """(train, held out), both in the order given. Questions about the same picture (by its pixels) stay
    together.

    `count` questions are held out; fewer, by less than the questions of one picture, where whole pictures do
    not add up to it. The split depends on the order of the questions, their pictures and `seed` alone. Raises
    DataError, with the advice, if fewer than `count` + 1 questions are there, or if nothing is left to train
    on.
    """
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(_keys(questions)):
        groups.setdefault(key, []).append(index)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    chosen: set[int] = set()
    for group in shuffled:
        if len(chosen) + len(group) <= count:
            chosen.update(group)
    if not chosen or len(chosen) == len(questions) or len(questions) <= count:
        raise DataError(
            f"{plural(len(questions), 'question')} about {plural(len(groups), 'picture')} are too few to "
            f"hold {count} out and train on the rest. {advice}"
        )
    held_out = [question for index, question in enumerate(questions) if index in chosen]
    return [question for index, question in enumerate(questions) if index not in chosen], held_out


def require_disjoint(
    train: Sequence[VisualQuestion],
    held_out: Sequence[VisualQuestion],
    *,
    advice: str = "leave data.held_out_path out and the split is made by picture.",
) -> None:
    """Raise DataError, with the advice, if a picture (by its pixels) or an id is in both."""
    twins = {question.id for question in train} & {question.id for question in held_out}
    if twins:
        raise DataError(
            f'id "{min(twins)}" is in both the training and the held-out file ({len(twins)} in all). Ids '
            f"are unique over both."
        )
    seen = dict(zip(_keys(train), train, strict=True))
    shared = [
        (seen[key], question) for key, question in zip(_keys(held_out), held_out, strict=True) if key in seen
    ]
    if shared:
        first, second = shared[0]
        raise DataError(
            f'questions "{first.id}" (training) and "{second.id}" (held out) show the same picture, '
            f"{second.image.name}; {len(shared)} held-out "
            f"questions are like that. Held-out pictures must be new: {advice}"
        )


def _keys(questions: Sequence[VisualQuestion]) -> list[str]:
    """The hash of every question's picture; each file is read once."""
    hashes: dict[Path, str] = {}
    for question in questions:
        if question.image not in hashes:
            hashes[question.image] = image_sha256(load_image(question.image))
    return [hashes[question.image] for question in questions]
