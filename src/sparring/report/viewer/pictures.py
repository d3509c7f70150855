"""Pictures for a browser: decoded here, within bounds, and coded anew; small ones kept on disk, made once.

No byte of a file that a ledger names goes to a browser as it is: what is not a picture is not shown.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image

from sparring.data.images import FORMATS, ImageError, load_image
from sparring.judging.kinds import classify, nobody
from sparring.report.gallery import SMALL, change_in_words, difference, in_the_light_of
from sparring.report.viewer.exhibits import Pair

Side = Literal["before", "after", "gap", "unlit"]
Size = Literal["thumb", "large"]
SIDES: Sequence[Side] = ("before", "after", "gap", "unlit")
THUMB = 256
"""Longer side, in pixels, of what is kept of a larger picture."""
LARGEST = 2048
"""Longer side of what is shown of a larger picture."""
LARGEST_UNLIT, LARGEST_TOLD = 640, 320
"""Longer sides at which the light of a picture is fitted, and at which a change is put into words."""
ROWS = 128
"""Rows of a picture that are compared at a time; a whole large one would take a hundred megabytes."""
UNUSED_DAYS = 30
OWN_NAME = re.compile(r"[0-9a-f]{32}")
_decoding, _comparing = threading.Semaphore(2), threading.Semaphore(1)
"""So many pictures are decoded, and compared, at a time: a large one takes some hundred megabytes."""


class Pictures:
    """Pictures as bytes with their type. cache: the folder of small ones, which may be removed any time."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def clean_up(self) -> None:
        """Remove small pictures that were made long ago: files under names that `_thumb` gives, nothing else
        that may lie in the folder."""
        oldest = time.time() - UNUSED_DAYS * 86_400
        for path in self.cache.glob("??/*.webp"):
            if not OWN_NAME.fullmatch(path.stem) or path.stem[:2] != path.parent.name:
                continue
            with suppress(FileNotFoundError):  # another viewer may clean up at the same moment
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def get(self, pair: Pair, side: Side, size: Size) -> tuple[bytes, str]:
        """(content, content type). ImageError where a file is gone, is no picture, or is too large."""
        path = pair.after if side == "after" else pair.before
        if path is None or (side in ("gap", "unlit") and pair.after is None):
            raise ImageError("image missing", "there is no such picture")
        if side in ("gap", "unlit"):
            with _comparing:
                return _png(_gap(pair, side))
        if size == "thumb":
            return self._thumb(path)
        with _decoding:
            return _png(_reduced(load_image(path), LARGEST))

    def _thumb(self, path: Path) -> tuple[bytes, str]:
        kept = self.cache / stamp(path)[:2] / f"{stamp(path)}.webp"
        if kept.is_file():
            return kept.read_bytes(), "image/webp"
        with _decoding:
            image = load_image(path)
            if max(image.size) <= SMALL:
                return _png(image)
            stream = io.BytesIO()
            _reduced(image, THUMB).save(stream, "WEBP", quality=82, method=2)
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Two tabs, or two viewers, may make the same one at a time.
        own = kept.with_name(f"{kept.stem}.{os.getpid()}-{threading.get_ident()}.partial")
        own.write_bytes(stream.getvalue())
        own.replace(kept)
        return stream.getvalue(), "image/webp"


def cache_folder() -> Path:
    """Where small pictures are kept if nothing else is said."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sparring" / "view"


def stamp(path: Path) -> str:
    """Names the content of a file without reading it: path, time and size. ImageError where it is gone."""
    try:
        found = path.stat()
    except OSError as error:
        raise ImageError("image missing", f"image {path.name} is not there") from error
    text = f"{path}\0{found.st_mtime_ns}\0{found.st_size}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def size_of(path: Path | None) -> tuple[int, int] | None:
    """(width, height) in pixels, by the head of the file; None where that cannot be read."""
    if path is None:
        return None
    try:
        return _size(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _size(path: Path, written: int) -> tuple[int, int] | None:
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Exception:  # noqa: BLE001  whatever a damaged head makes Pillow raise
        return None
    return width, height


def is_small(size: tuple[int, int] | None) -> bool:
    """The picture is shown pixel by pixel."""
    return size is not None and max(size) <= SMALL


def change(pair: Pair) -> tuple[str, str | None]:
    """(what differs, in words; the kind of the edit, where the pictures are small enough to tell at once)."""
    try:
        stamps = [stamp(path) for path in (pair.before, pair.after) if path is not None]
        return _change(pair, tuple(stamps))
    except ImageError as error:
        return str(error), None


@lru_cache(maxsize=1024)
def _change(pair: Pair, stamps: tuple[str, ...]) -> tuple[str, str | None]:
    with _comparing:
        before, after = _both(pair)
        if before.size != after.size:
            return f"the edit is {after.width} x {after.height} pixels, the picture before is not", None
        kind = classify([before], [after], nobody)[0].kind if max(before.size) <= 2 * SMALL else None
        return change_in_words(_reduced(before, LARGEST_TOLD), _reduced(after, LARGEST_TOLD)), kind


def _both(pair: Pair) -> tuple[Image.Image, Image.Image]:
    if pair.before is None or pair.after is None:
        raise ImageError("image missing", "there is only one picture")
    return load_image(pair.before), load_image(pair.after)


def _gap(pair: Pair, side: Side) -> Image.Image:
    longest = LARGEST if side == "gap" else LARGEST_UNLIT
    before, after = (_reduced(image, longest) for image in _both(pair))
    if after.size != before.size:
        after = after.resize(before.size, Image.Resampling.LANCZOS)
    if side == "unlit":
        return difference(in_the_light_of(before, after), after)
    whole = Image.new("RGB", before.size)
    for top in range(0, before.height, ROWS):
        strip = (0, top, before.width, min(top + ROWS, before.height))
        whole.paste(difference(before.crop(strip), after.crop(strip)), strip[:2])
    return whole


def _reduced(image: Image.Image, longest: int) -> Image.Image:
    if max(image.size) > longest:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return image


def _png(image: Image.Image) -> tuple[bytes, str]:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue(), "image/png"
