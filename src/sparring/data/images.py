"""Safe loading of pictures: bounded in size, decoded whole, upright, RGB.

Only raster formats that Pillow decodes by itself are read: nothing that starts another program (EPS) or that has no fixed size (SVG).
Colour profiles are ignored.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sparring.data.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 64 * 2**20
"""Width times height above which a file is refused before it is decoded. An 8K picture has 33 million pixels."""

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

    Raises DataError, whose `reason` is "image missing", "image too large", "not an image" or "image broken".
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError("image missing", f"image {path.name} is not there (looked for {path})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large or odd files; what matters is checked here
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError(
                        "image too large", f"image {path.name} says it is {width} x {height} pixels; at most {MAX_PIXELS} are read"
                    )
                image.verify()  # checksums; leaves the object unusable, hence the second open
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image too large", f"image {path.name} is too large: at most {MAX_PIXELS} pixels are read") from error
    except UnidentifiedImageError as error:
        raise ImageError("not an image", f"image {path.name} is no picture in one of the formats {', '.join(FORMATS)}") from error
    except PermissionError as error:
        raise ImageError("image missing", f"image {path.name} may not be read ({error.strerror})") from error
    except _BROKEN as error:
        raise ImageError("image broken", f"image {path.name} is truncated or damaged ({error})") from error


class ImageError(DataError):
    """A picture that cannot be used. `reason` sorts it: missing, too large, not an image, broken."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys to 255 instead of scaling them.
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(grey, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed brightness range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    # A copy, so that the result owns its pixels and keeps no file or metadata (an EXIF orientation that was already applied).
    return Image.fromarray(np.array(image.convert("RGB")))


def image_sha256(image: Image.Image) -> str:
    """SHA-256 of size and RGB pixels: equal for two files that show the same picture, whatever their format or metadata."""
    rgb = image.convert("RGB")
    digest = hashlib.sha256(struct.pack("<II", *rgb.size))
    digest.update(rgb.tobytes())
    return digest.hexdigest()
