"""Safe loading of pictures: bounded in size, decoded whole, upright, RGB as a screen shows it (sRGB), 8 bits
a channel.

Only raster formats that Pillow decodes by itself are read: nothing that starts another program (EPS) or that
has no fixed size (SVG). What a file is, its first bytes say, not its name. Of an animation or a file of
several pictures the first is read.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 64 * 2**20
"""Width times height above which a file is refused before it is decoded. An 8K picture has 33 million
pixels."""

LARGEST_PROFILE = 2**24
"""Bytes of a compressed text or colour profile in a PNG that are read; Pillow's own limit of 1 MB refuses
the profiles of presses."""
PngImagePlugin.MAX_TEXT_CHUNK = LARGEST_PROFILE

SAMPLE_FORMAT = 339
"""The TIFF tag that says whether numbers have signs."""
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
KINDS = {"L": "L", "LA": "L", "1": "L", "CMYK": "CMYK"}
"""Pillow's mode -> the kind of pixels that a colour profile speaks of; every other mode is shown as RGB."""
_LEVELS = np.arange(0, 256, 51, dtype=np.uint8)
_PROBES = {
    "L": Image.fromarray(np.arange(256, dtype=np.uint8)[None]),
    "RGB": Image.fromarray(np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), axis=-1).reshape(1, -1, 3)),
    "CMYK": Image.frombytes("CMYK", (256, 1), bytes(range(256)) * 4),
}
"""Colours by which a profile is told from sRGB."""
_FLAGS = {"L": ImageCms.Flags.NOOPTIMIZE, "RGB": ImageCms.Flags.NONE, "CMYK": ImageCms.Flags.NONE}
"""What littlecms makes of a grey curve to be quick is 10 levels wrong in the shadows."""

# What Pillow raises on damaged files, found by cutting and flipping bytes of every format above.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    MemoryError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
)


def load_image(path: str | Path) -> Image.Image:
    """The picture of a file: RGB, upright (EXIF orientation applied), alpha laid on white, decoded to the
    last byte.

    Colours under an embedded ICC profile are converted to sRGB; a profile that is damaged or made for another
    kind of pixels is ignored, as viewers do. 16-bit channels keep their upper 8 bits. Grey levels of a TIFF
    whose range its format leaves open (32 bits, signed, floating point, or nothing above 255 in wide pixels)
    are taken to be of the smallest range that holds them: 1 (of fractions), 255, 65,535, 2^32; of fractions
    above 65,535 their own largest. Raises DataError, whose `reason` is "image missing", "image too large",
    "not an image" or "image broken".
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError("image missing", f"image {path.name} is not there (looked for {path})")
    return _load(lambda: path, path.name)


def decode_image(data: bytes, name: str) -> Image.Image:
    """The picture of a file's bytes, as `load_image` reads it; `name` stands for it in errors."""
    return _load(lambda: io.BytesIO(data), name)


def upright_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of a picture as it is shown, from the head of its file; None where that cannot be
    read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                exif = image.getexif()  # a PNG is read whole for it
                width, height = image.size
                # Pillow tells its size as it is shown already; its tags, as it is kept
                if image.format == "TIFF":
                    width, height = exif.get(256, width), exif.get(257, height)
                return (height, width) if exif.get(0x0112, 1) in (5, 6, 7, 8) else (width, height)
    except (*_BROKEN, Image.DecompressionBombError):
        return None


def _load(source: Callable[[], Path | io.BytesIO], name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of large or odd files; what matters is checked here
            warnings.simplefilter("ignore")
            try:
                return _decoded(source, name)
            except ValueError as error:
                if "MAX_TEXT" not in str(error):
                    raise
                found = source()
                data = _without_texts(found.read_bytes() if isinstance(found, Path) else found.read())
                return _decoded(lambda: io.BytesIO(data), name)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            "image too large", f"image {name} is too large: at most {MAX_PIXELS} pixels are read"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            "not an image", f"image {name} is no picture in one of the formats {', '.join(FORMATS)}"
        ) from error
    except PermissionError as error:
        raise ImageError("image missing", f"image {name} may not be read ({error.strerror})") from error
    except _BROKEN as error:
        raise ImageError("image broken", f"image {name} is truncated or damaged ({error})") from error


def _decoded(source: Callable[[], Path | io.BytesIO], name: str) -> Image.Image:
    with Image.open(source(), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(
                "image too large",
                f"image {name} says it is {width} x {height} pixels; at most {MAX_PIXELS} are read",
            )
        image.verify()  # checksums; leaves the object unusable, hence the second open
    with Image.open(source(), formats=FORMATS) as image:
        raw = str(image.tile[0][3]) if image.tile else ""
        image.load()
        if raw.startswith("RGB;16") and isinstance(image.info.get("transparency"), tuple):
            # Pillow keeps the upper 8 bits of the colours and all 16 of the one that is transparent.
            image.info["transparency"] = tuple(level >> 8 for level in image.info["transparency"])
        tiff = image.format == "TIFF"
        unsigned = tiff and getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, (1,)) in (1, (1,))
        return _to_rgb(ImageOps.exif_transpose(image), tiff=tiff, unsigned=unsigned)


def _without_texts(data: bytes) -> bytes:
    """A PNG without its texts, which are no pixels."""
    kept, place = [data[:8]], 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        chunk = data[place : place + 12 + length]
        place += 12 + length
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            kept.append(chunk)
    return b"".join(kept)


class ImageError(DataError):
    """A picture that cannot be used. `reason` sorts it: missing, too large, not an image, broken."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _to_rgb(image: Image.Image, *, tiff: bool, unsigned: bool) -> Image.Image:
    profile = image.info.get("icc_profile")
    alpha = (
        image.convert("RGBA").getchannel("A")
        if image.has_transparency_data and not image.mode.startswith("I")
        else None
    )
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips deep greys to 255 instead of scaling them.
        levels = np.asarray(image)
        if unsigned and levels.dtype == np.int32:
            levels = levels.view(np.uint32)  # Pillow reads both as signed
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            alpha = Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8))
        image = Image.fromarray(_eight_bits(levels, open_range=tiff or image.mode in ("I", "F")))
    opaque = image.convert(KINDS.get(image.mode, "RGB"))
    rgb = _to_srgb(opaque, profile) if profile else opaque.convert("RGB")
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, (255, 255, 255)), alpha)
    # A copy, so that the result owns its pixels and keeps no file or metadata (an EXIF orientation that was
    # already applied).
    return Image.fromarray(np.array(rgb))


def _eight_bits(levels: NDArray[Any], *, open_range: bool) -> NDArray[np.uint8]:
    """Deep greys as 8 bits. open_range: their format does not say what is white, so the levels do; else
    white is 65,535."""
    if levels.dtype.kind == "f":
        if not np.isfinite(levels).all():
            raise ValueError("floating-point pixels that are no numbers")
        levels = np.clip(levels, 0, None).astype(np.float64)
        most = float(levels.max(initial=0))
        white = next((range_ for range_ in (1, 255, 65535) if most <= range_), most)
        return np.asarray(np.round(levels * (255 / white)), dtype=np.uint8)
    whole = np.clip(levels.astype(np.int64), 0, None)
    most = int(whole.max(initial=0))
    bits = 8 if open_range and most < 256 else 16 if most < 65536 else 32
    return np.asarray(np.clip(whole >> (bits - 8), 0, 255), dtype=np.uint8)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A picture of mode L, RGB or CMYK in sRGB, as RGB."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), SRGB, image.mode, "RGB", flags=_FLAGS[image.mode]
        )
        probe = _PROBES[image.mode]
        shown = np.asarray(ImageCms.applyTransform(probe, transform))
        # Pictures that say they are sRGB keep every pixel, so that they are the same picture as without a
        # profile.
        if np.abs(shown.astype(np.int64) - np.asarray(probe.convert("RGB"))).max() <= 1:
            return image.convert("RGB")
        if image.mode == "L":
            return Image.fromarray(shown[0][np.asarray(image)])  # the probe is all greys that there are
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")
    assert converted is not None  # None is for conversions in place
    return converted


def image_sha256(image: Image.Image) -> str:
    """SHA-256 of size and RGB pixels: equal for two files that show the same picture, whatever their
    format or metadata."""
    rgb = image.convert("RGB")
    digest = hashlib.sha256(struct.pack("<II", *rgb.size))
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def pictures_of(questions: Sequence[VisualQuestion]) -> list[Image.Image]:
    """The questions' clean pictures, each file read once."""
    pictures = {path: load_image(path) for path in {question.image for question in questions}}
    return [pictures[question.image] for question in questions]
