"""Files as other systems write them: byte-order marks, endings in any case, what a Mac leaves beside a file,
a hub cache.

Texts are UTF-8, or what their byte-order mark says. Only a line feed ends a line: U+2028, U+0085 and their
like are characters of a text.
"""

from __future__ import annotations

import io
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from sparring.data.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Endings of picture files, in any case."""
WIDE = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
UTF8_MARK = b"\xef\xbb\xbf"


def open_text(path: Path) -> tuple[BinaryIO, bool]:
    """(a file's bytes as UTF-8 without byte-order mark, are these the very bytes of the file from the
    position read on?)."""
    file = path.open("rb")
    start = file.read(3)
    for mark, name in WIDE:
        if start.startswith(mark):
            with file:
                file.seek(0)
                try:
                    return io.BytesIO(file.read().decode(name).encode()), False
                except UnicodeError as error:
                    raise DataError(
                        f"{path}: says that it is UTF-16, and is not ({error}). Save it as UTF-8."
                    ) from error
    file.seek(3 if start == UTF8_MARK else 0)
    return file, True


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises DataError where it cannot be read or is no JSON."""
    try:
        return json.loads(path.read_bytes())  # finds out UTF-8, 16 and 32, with a mark or without
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no readable JSON ({error}).") from error


def is_litter(path: Path) -> bool:
    """A file that is not part of the data: hidden, or an AppleDouble half (`._name`, `__MACOSX/`)."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def files_below(folder: Path, *patterns: str) -> list[Path]:
    """The files below a folder that match one of the glob patterns, whatever the case of letters; sorted,
    without litter."""
    found = {
        path
        for pattern in patterns
        for path in folder.glob("".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in pattern))
        if path.is_file() and not is_litter(path.relative_to(folder))
    }
    return sorted(found)


def picture_beside(path: Path) -> Path | None:
    """The picture file of this path's stem, whatever its ending and that ending's case; None where there is
    none."""
    named = [path.with_name(path.name + suffix) for suffix in PICTURES]
    there = next((file for file in named if file.is_file()), None)
    return there or next((found for file in named if (found := _in_another_case(file))), None)


def _in_another_case(path: Path) -> Path | None:
    """The only file of the folder whose name is this path's but for the case of letters."""
    try:
        names = _names(path.parent, path.parent.stat().st_mtime_ns).get(path.name.lower(), ())
    except OSError:
        return None
    return path.with_name(names[0]) if len(names) == 1 and path.with_name(names[0]).is_file() else None


@lru_cache(maxsize=16)
def _names(folder: Path, stamp: int) -> dict[str, list[str]]:
    """Name in small letters -> the names of a folder that are written so."""
    found = defaultdict[str, list[str]](list)
    for name in os.listdir(folder):
        found[name.lower()].append(name)
    return dict(found)


def find_file(folder: Path, name: str) -> Path:
    """The path that a record names relative to a folder, as this disk spells it; what is named, where there
    is no file.

    Tried are the name as it is, with slashes for backslashes, in the two normal forms of Unicode (macOS
    decomposes letters with accents), and its last part in another case of letters (Windows and macOS tell
    none apart).
    """
    spellings = dict.fromkeys((name, name.replace("\\", "/")))
    spellings |= dict.fromkeys(
        unicodedata.normalize(form, one) for one in list(spellings) for form in ("NFC", "NFD")
    )
    for one in spellings:
        if (folder / one).is_file():
            return folder / one
    return next((found for one in spellings if (found := _in_another_case(folder / one))), folder / name)


def is_inside(path: Path, folder: Path) -> bool:
    """Does a resolved path lie in a resolved folder, or among the blobs of the hub cache that the folder is a
    snapshot of?

    The cache keeps `models--a--b/blobs/HASH` and links them from `models--a--b/snapshots/REVISION/...`.
    """
    if path.is_relative_to(folder):
        return True
    for parent in folder.parents:
        if parent.name == "snapshots":
            return path.is_relative_to(parent.parent / "blobs")
    return False


def lines_of(path: Path, longest: int) -> Iterator[tuple[int, int | None, bytes]]:
    """(number from 1, byte at which it begins or None, text) of every line that is not blank, without its
    line end (and without a byte-order mark, which files that were joined have in the middle).

    Of a line of more than `longest` bytes only the first `longest` + 1 are given. The byte is None in a file
    that had to be converted to UTF-8 first.
    """
    file, as_it_is = open_text(path)
    with file:
        number = 0
        offset = file.tell()
        while line := file.readline(longest + 1):
            number += 1
            begin, whole = offset, line
            while not whole.endswith(b"\n") and (whole := file.readline(longest)):
                pass  # the rest of a line that is too long
            offset = file.tell()
            if line.strip():
                yield number, begin if as_it_is else None, line.strip(b"\r\n").removeprefix(UTF8_MARK)


HALF_PAIR = re.compile("[\ud800-\udfff]")


def storable(text: str) -> str:
    """The text, with U+FFFD for every half of a surrogate pair: JSON can spell one, and neither UTF-8 nor
    SQLite nor Arrow can hold it.
    """
    return HALF_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)
