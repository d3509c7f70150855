"""Static distractors: a cut-out pasted onto free space (`add`), or beside the picture on a widened canvas
(`insert`).

Nobody is trained and nobody is asked. A cut-out never covers a protected box, and is never an object that
the question, its options or its targets name: its file's name says what it shows ("alarm_clock.webp").
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sparring.attackers.rivals.base import OneByOne, generator
from sparring.config import PasteSettings
from sparring.data.errors import DataError
from sparring.data.images import FORMATS, MAX_PIXELS
from sparring.data.records import Box, VisualQuestion

BUNDLED = Path(str(files("sparring").joinpath("attackers/rivals/cut_outs")))
PLACES = 64  # random places tried at each size
SHRINK = (1.0, 0.75, 0.5, 0.35)  # shares of the wanted size that are tried in turn until one has a free place
MARGIN = 0.02  # of the shorter side, kept free around protected boxes


class Paste(OneByOne):
    """`add` keeps the picture's size. `insert` widens the canvas on the right or at the bottom, so that boxes
    stay where they are.
    """

    def __init__(self, settings: PasteSettings, name: str | None = None) -> None:
        """Raises DataError where the folder holds no cut-out."""
        super().__init__(name or f"paste:{settings.mode}")
        self.settings, self.keeps_size = settings, settings.mode == "add"
        self.folder = Path(settings.folder) if settings.folder else BUNDLED
        self.files = tuple(
            sorted(path for path in self.folder.glob("*") if path.suffix.lower() in (".webp", ".png"))
        )
        if not self.files:
            raise DataError(
                f"{self.folder}: no cut-outs there. Name a folder of RGBA pictures (.png, .webp), each file "
                f"named after its object."
            )

    def _edit_one(self, question: VisualQuestion, image: Image.Image, seed: int) -> tuple[Image.Image, str]:
        rng = generator(seed)
        able = [path for path in self.files if not mentions(question, object_name(path))]
        if not able:
            raise DataError(
                f'question "{question.id}" names every object among the cut-outs in {self.folder}: add others'
            )
        path = able[int(rng.integers(len(able)))]
        cutout, name = read_cutout(path), object_name(path)
        size = self.settings.size * min(image.size)
        if self.settings.mode == "insert":
            return insert(image, cutout, size, rng), f"{name} on a widened canvas"
        boxes = [target.box for target in question.targets]
        for share in SHRINK:
            scaled = fit(cutout, size * share)
            corner = free_place(image, scaled.size, boxes, rng)
            if corner is not None:
                edited = image.copy()
                edited.paste(scaled, corner, scaled)
                x, y = corner
                return edited, f"{name} at {[x, y, x + scaled.width, y + scaled.height]}"
        return image, f"nothing: no free place for a {name} beside the protected boxes"


def insert(image: Image.Image, cutout: Image.Image, size: float, rng: np.random.Generator) -> Image.Image:
    """The picture on a canvas with a strip more, on the right or at the bottom, in the border's mean colour,
    with the cut-out in its middle.
    """
    scaled = fit(cutout, size)
    wide = bool(rng.integers(2))
    pixels = np.asarray(image)
    color = (pixels[:, -1] if wide else pixels[-1]).mean(0).round().astype(int)
    strip = round(1.2 * (scaled.width if wide else scaled.height))
    canvas = Image.new(
        "RGB",
        (image.width + strip, image.height) if wide else (image.width, image.height + strip),
        tuple(color.tolist()),
    )
    canvas.paste(image, (0, 0))
    across = int(
        rng.integers(max(1, (image.height - scaled.height) if wide else (image.width - scaled.width)))
    )
    along = (image.width if wide else image.height) + (strip - (scaled.width if wide else scaled.height)) // 2
    canvas.paste(scaled, (along, across) if wide else (across, along), scaled)
    return canvas


def free_place(
    image: Image.Image, size: tuple[int, int], boxes: list[Box], rng: np.random.Generator
) -> tuple[int, int] | None:
    """The top left corner of the calmest of some random places that touch no box, or None when none was free.

    Objects that nobody boxed are unknown: the place whose pixels vary least is the likeliest to be free.
    """
    width, height = size
    if width > image.width or height > image.height:
        return None
    margin = round(MARGIN * min(image.size))
    pixels = np.asarray(image.convert("L"), dtype=np.float32)
    best: tuple[float, tuple[int, int]] | None = None
    for _ in range(PLACES):
        x, y = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        if all(
            x + width + margin <= x0 or x1 + margin <= x or y + height + margin <= y0 or y1 + margin <= y
            for x0, y0, x1, y1 in boxes
        ):
            calm = float(pixels[y : y + height, x : x + width].std())
            if best is None or calm < best[0]:
                best = calm, (x, y)
    return None if best is None else best[1]


def fit(cutout: Image.Image, size: float) -> Image.Image:
    """The cut-out with its longer side `size` pixels long."""
    scale = size / max(cutout.size)
    return cutout.resize(
        (max(1, round(cutout.width * scale)), max(1, round(cutout.height * scale))), Image.Resampling.LANCZOS
    )


def object_name(path: Path) -> str:
    """What a cut-out's file shows, in words."""
    return re.sub(r"[_\-\d]+", " ", path.stem).strip().lower()


def mentions(question: VisualQuestion, name: str) -> bool:
    """The question, one of its options or targets names this object, or a word of it, in singular or
    plural.
    """
    text = " ".join(
        [question.question, *question.options, *(target.name for target in question.targets)]
    ).lower()
    words = {
        form
        for word in re.findall(r"[^\W\d_]+", text)
        for form in (word, word.removesuffix("s"), word.removesuffix("es"))
    }
    return any(
        form in words
        for word in name.split()
        for form in (word, word.removesuffix("s"), word.removesuffix("es"))
    )


@lru_cache(maxsize=256)
def read_cutout(path: Path) -> Image.Image:
    """An RGBA picture cropped to what is visible of it. Raises DataError where it cannot be read, is too
    large, opaque or invisible.
    """
    try:
        with Image.open(path, formats=FORMATS) as source:
            if source.width * source.height > MAX_PIXELS or not source.has_transparency_data:
                raise DataError(
                    f"cut-out {path}: it is too large or has no transparent part; cut-outs are RGBA pictures"
                )
            rgba = source.convert("RGBA")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cut-out {path} is no readable picture ({error})") from error
    visible = rgba.getchannel("A").point(lambda a: 255 if a > 40 else 0).getbbox()
    if visible is None:
        raise DataError(f"cut-out {path}: nothing of it is visible")
    return rgba.crop(visible)
