"""Pictures where they are: in a file, in a cell of a table, in memory; decoded when they are asked for.

One rule says what a record's field of pictures means, in every layout (`pictures_in`):

    null, an empty text, "nan"              no picture
    bytes                                   the bytes of a picture's file
    {"bytes": ..., "path": ...}             its bytes; where they are null, the file at that path
    a list of these                         several pictures
    "data:image/png;base64,..."             the picture in it
    base64                                  likewise; a text of more than 64 characters that is no file's path
    any other text                          a path relative to the data's folder, which it may not leave
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from PIL.Image import Image

from sparring.data.files import find_file, is_inside
from sparring.data.images import ImageError, decode_image, load_image

REFERENCE = 64
"""A text of at most so many characters is no picture in base64."""
LONGEST_NAME = 1024
BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
FIELDS = ("image", "images", *(f"image{mark}{number}" for mark in ("_", "") for number in range(21)))
"""Where a record has its pictures; of these all that are not empty count, in this order ..."""
OTHER_FIELDS = ("image_path", "image_paths", "decoded_image", "img", "picture", "jpg", "png", "file_name")
"""... or, where all are, the first of these that is not."""


class Picture(Protocol):
    """A picture that is somewhere: in a file, in a row of a table, in memory."""

    def load(self) -> Image:
        """Decode it. Errors: DataError (ImageError) where it cannot be read."""

    def data(self) -> bytes:
        """The bytes of its file. Raises DataError where they cannot be had."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture in a file of its own."""

    path: Path

    def load(self) -> Image:
        return load_image(self.path)

    def data(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class PictureInMemory:
    """A picture that somebody made: an edit, a scene."""

    image: Image

    def load(self) -> Image:
        return self.image

    def data(self) -> bytes:
        stream = io.BytesIO()
        self.image.save(stream, "PNG")
        return stream.getvalue()


@dataclass(frozen=True, slots=True)
class PictureBytes:
    """The bytes of a picture's file, held in memory because they stand in a file of texts."""

    coded: bytes
    name: str = field(compare=False)

    def load(self) -> Image:
        return decode_image(self.coded, self.name)

    def data(self) -> bytes:
        return self.coded


def carried(path: Path) -> PictureBytes:
    """The picture of a file, not decoded, which no longer needs the file: it goes to another process as it is
    on the disk. Raises ImageError where it cannot be read.
    """
    try:
        return PictureBytes(path.read_bytes(), path.name)
    except OSError as error:
        raise ImageError("image missing", f"image {path} cannot be read ({error.strerror})") from error


def shown(picture: Image | Picture) -> Image:
    """The picture, decoded where it is not yet."""
    return picture if isinstance(picture, Image) else picture.load()


class Cells(Protocol):
    """A file of records of which single cells can be read again."""

    def cell(self, row: int, column: str) -> Any:
        """What stands there."""


@dataclass(frozen=True, slots=True)
class PictureInCell:
    """A picture in a cell of a table, by row and column; `place` where the cell holds several. The cell is
    read when it is asked for."""

    cells: Cells
    row: int
    column: str
    place: int
    name: str = field(compare=False, repr=False)

    def load(self) -> Image:
        return decode_image(self.data(), self.name)

    def data(self) -> bytes:
        found = [
            held for held in held_in(self.cells.cell(self.row, self.column), self.name) if held is not None
        ]
        coded = found[self.place]
        if isinstance(coded, bytes):
            return coded
        return decoded(coded, self.name)


def is_empty(value: Any) -> bool:
    """Nothing is there: null, an empty text or list, or the "nan" of pandas."""
    if isinstance(value, str):
        return value.strip() in ("", "nan", "NaN")
    if isinstance(value, list | tuple | dict | bytes):
        return not value
    return value is None or bool(value != value)


def held_in(value: Any, name: str) -> Iterator[bytes | str]:
    """What a field of pictures holds, one after another: bytes, or a text (a path or a coded picture).
    Raises ImageError."""
    if is_empty(value):
        return
    if isinstance(value, list | tuple):
        for place, part in enumerate(value, start=1):
            yield from held_in(part, f"{name} {place}" if len(value) > 1 else name)
    elif isinstance(value, Mapping):
        known = [value[key] for key in ("bytes", "path", "url", "image_url") if not is_empty(value.get(key))]
        if not known and not {"bytes", "path", "url"} & value.keys():
            raise ImageError(
                "not an image", f"{name} holds an object with {', '.join(value)}; a picture has bytes or path"
            )
        yield from held_in(known[0] if known else None, name)
    elif isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        # Some writers mark no column as text.
        yield raw.decode() if raw.isascii() and b"\0" not in raw else raw
    elif isinstance(value, str):
        yield value.strip()
    else:
        raise ImageError("not an image", f"{name} holds {type(value).__name__}, no picture")


def is_coded(text: str) -> bool:
    """Is a text a picture in base64 or a data URI, and no path?"""
    if _is_data_uri(text):
        return True
    ends = "".join(
        (
            text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME // 2] + text[-LONGEST_NAME // 2 :]
        ).split()
    )
    return len(text) > REFERENCE and BASE64.fullmatch(ends) is not None


def _is_data_uri(text: str) -> bool:
    return text[:5].lower() == "data:"


def decoded(text: str, name: str) -> bytes:
    """The bytes of base64, or of a data URI. Raises ImageError."""
    coded = "".join((unquote(text.partition(",")[2]) if _is_data_uri(text) else text).split())
    try:
        return base64.b64decode(
            coded.replace("-", "+").replace("_", "/") + "=" * (-len(coded) % 4), validate=True
        )
    except (binascii.Error, ValueError) as error:
        raise ImageError("broken base64", f"{name} is no picture in base64 ({error})") from error


def pictures_in(
    value: Any, folder: Path, name: str, cell: Callable[[int], Picture] | None = None
) -> tuple[Picture, ...]:
    """The pictures of a field, by the rule above.

    folder: that paths are relative to. name: of the record and field, for messages. cell: gets the picture of
    that place from where it lies; None: coded pictures stay in memory. Raises ImageError, naming what cannot
    be one.
    """
    found = list[Picture]()
    for place, held in enumerate(held_in(value, name)):
        if isinstance(held, str) and not (is_coded(held) and not _is_file(folder, held)):
            found.append(named_picture(folder, held))
        elif cell is not None:
            found.append(cell(place))
        else:
            found.append(PictureBytes(held if isinstance(held, bytes) else decoded(held, name), name))
    return tuple(found)


def pictures_of(
    record: Mapping[str, Any],
    folder: Path,
    name: str,
    cell: Callable[[str, int], Picture] | None = None,
    also: Sequence[str] = (),
) -> tuple[Picture, ...]:
    """The pictures of a record, from the fields that hold them. also: further fields, looked at last, all
    together. Raises ImageError."""

    def read(key: str) -> tuple[Picture, ...]:
        from_cell = None if cell is None else (lambda place: cell(key, place))
        return pictures_in(record.get(key), folder, f"{name} {key}", from_cell)

    faults = list[ImageError]()
    for keys in (FIELDS, *((key,) for key in OTHER_FIELDS), tuple(also)):
        try:
            if found := tuple(picture for key in keys if key in record for picture in read(key)):
                return found
        except ImageError as error:
            faults.append(error)  # a path that is of no use here may stand beside the picture itself
    if faults:
        raise faults[0]
    return ()


def named_picture(folder: Path, name: str) -> PictureFile:
    """The picture that a record names relative to a folder. Raises ImageError where it is not there, or
    outside.

    Outside is what an absolute path, dots or a symbolic link lead out of the folder to; the links of a hub
    cache do not.
    """
    if re.match(r"(https?|ftp|s3|gs|hf)://", name):
        raise ImageError(
            "image missing", f'image "{name[:80]}" is an address; pictures are not fetched. Download it'
        )
    short = name if len(name) <= 200 else f"{name[:80]}..."
    root = folder.resolve()
    try:
        if "\0" in name:
            raise ValueError("a null character")
        found = find_file(root, name)
        path = found.resolve()  # follows links: one inside the folder that points out of it is refused too
        there = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long for the disk, a link that leads to itself
        why = getattr(error, "strerror", None) or str(error)[:80]
        raise ImageError("image missing", f"image {name[:80]} cannot be looked up ({why})") from error
    if not is_inside(path, root):
        what = "is an absolute path out of" if Path(name).is_absolute() else "leaves"
        raise ImageError(
            "image outside the folder", f'image "{short}" {what} the folder {folder}. Copy it into the folder'
        )
    if not there:
        raise ImageError(
            "image missing",
            f'image "{short}" is not there (looked for in {folder}). Name the folder of the pictures with '
            f"--images",
        )
    return PictureFile(path)


def _is_file(folder: Path, name: str) -> bool:
    try:
        return len(name) <= LONGEST_NAME and (folder / name).is_file()
    except (OSError, ValueError):
        return False
