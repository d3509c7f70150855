"""Safe loading of pictures: bounded in size, decoded whole, upright, RGB as a screen shows it (sRGB), 8 bits a channel.

Only raster formats that Pillow decodes by itself are read: nothing that starts another program (EPS) or that has no fixed size (SVG).
What a file is, its first bytes say, not its name. Of an animation or a file of several pictures the first is read.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from sparring.data.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 64 * 2**20
"""Width times height above which a file is refused before it is decoded. An 8K picture has 33 million pixels."""

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
    """The picture of a file: RGB, upright (EXIF orientation applied), alpha laid on white, decoded to the last byte.

    Colours under an embedded ICC profile are converted to sRGB; a profile that is damaged or made for another kind of pixels is ignored, as
    viewers do. 16-bit channels keep their upper 8 bits.
    Raises DataError, whose `reason` is "image missing", "image too large", "not an image" or "image broken".
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError("image missing", f"image {path.name} is not there (looked for {path})")
    return _read(path, path.name)


def decode_image(data: bytes, name: str) -> Image.Image:
    """As `load_image`, of a file's bytes; `name` is what errors call it."""
    return _read(io.BytesIO(data), name)


def _read(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large or odd files; what matters is checked here
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError("image too large", f"image {name} says it is {width} x {height} pixels; at most {MAX_PIXELS} are read")
                image.verify()  # checksums; leaves the object unusable, hence the second open
            if isinstance(file, io.BytesIO):
                file = io.BytesIO(file.getvalue())
            with Image.open(file, formats=FORMATS) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image too large", f"image {name} is too large: at most {MAX_PIXELS} pixels are read") from error
    except UnidentifiedImageError as error:
        raise ImageError("not an image", f"image {name} is no picture in one of the formats {', '.join(FORMATS)}") from error
    except PermissionError as error:
        raise ImageError("image missing", f"image {name} may not be read ({error.strerror})") from error
    except _BROKEN as error:
        raise ImageError("image broken", f"image {name} is truncated or damaged ({error})") from error


class ImageError(DataError):
    """A picture that cannot be used. `reason` sorts it: missing, too large, not an image, broken."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys to 255 instead of scaling them.
        grey = np.asarray(image).astype(np.int64)
        image = Image.fromarray((np.clip(grey, 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed brightness range")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    opaque = image.convert(KINDS.get(image.mode, "RGB"))
    rgb = _to_srgb(opaque, profile) if profile else opaque.convert("RGB")
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, (255, 255, 255)), alpha)
    # A copy, so that the result owns its pixels and keeps no file or metadata (an EXIF orientation that was already applied).
    return Image.fromarray(np.array(rgb))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A picture of mode L, RGB or CMYK in sRGB, as RGB."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), SRGB, image.mode, "RGB", flags=_FLAGS[image.mode]
        )
        probe = _PROBES[image.mode]
        shown = np.asarray(ImageCms.applyTransform(probe, transform))
        # Pictures that say they are sRGB keep every pixel, so that they are the same picture as without a profile.
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
    """SHA-256 of size and RGB pixels: equal for two files that show the same picture, whatever their format or metadata."""
    rgb = image.convert("RGB")
    digest = hashlib.sha256(struct.pack("<II", *rgb.size))
    digest.update(rgb.tobytes())
    return digest.hexdigest()
