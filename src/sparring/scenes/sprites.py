"""The objects of the embedded world: forty household things, each in six colours.

Sprites are Fluent Emoji pictures (MIT, (c) Microsoft Corporation), cropped, at most 96 px; see
`assets/LICENSE`.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ASSETS = Path(__file__).parent / "assets"
SPRITE = 64  # longest side of a sprite before it is placed, pixels

NAMES = (  # noqa: SIM905 (a list of forty literals is harder to read)
    "phone bottle cup teapot clock key umbrella backpack chair candle "
    "bulb scissors hammer guitar trumpet drum bell camera television laptop "
    "pencil book envelope box basket bucket broom ladder magnet bear "
    "ball trophy crown hat shirt shoe glasses balloon gift kite"
).split()

PLURALS = {"box": "boxes", "scissors": "scissors", "glasses": "glasses", "brush": "brushes"}

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 44),
    "yellow": (246, 204, 32),
    "green": (44, 160, 62),
    "blue": (40, 98, 226),
    "purple": (150, 58, 206),
    "white": (236, 236, 242),
}


def plural(name: str) -> str:
    """The plural of an object's name."""
    return PLURALS.get(name, name + "s")


@cache
def tinted(name: str, color: str) -> Image.Image:
    """The sprite of `name` in `color`: an RGBA picture, longest side `SPRITE` px, alpha premultiplied ("RGBa"
    mode).

    The sprite's own light and shade is kept: its luminance runs from a dark shade of the colour, over the
    colour, to a highlight.
    """
    with Image.open(ASSETS / "sprites" / f"{name}.webp") as source:
        picture = source.convert("RGBA")
    picture.thumbnail((SPRITE, SPRITE), Image.Resampling.LANCZOS)
    sprite = np.asarray(picture, dtype=np.float32) / 255
    alpha = sprite[..., 3]
    light = sprite[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    low, high = np.percentile(light[alpha > 0.5], [3, 97])
    light = np.clip((light - low) / max(high - low, 0.15), 0, 1) * 0.8 + 0.15
    tone = np.array(COLORS[color], dtype=np.float32) / 255
    dark, bright = 0.28 * tone, 0.45 * tone + 0.55
    middle = 0.62
    shade = np.where(
        (light < middle)[..., None],
        dark + (tone - dark) * (light / middle)[..., None],
        tone + (bright - tone) * ((light - middle) / (1 - middle))[..., None],
    )
    own = 0.12  # a trace of the sprite's own colours keeps its parts apart
    rgb = (1 - own) * shade + own * sprite[..., :3]
    rgba: NDArray[np.uint8] = (np.dstack([rgb * alpha[..., None], alpha]) * 255 + 0.5).astype(np.uint8)
    return Image.frombytes("RGBa", (rgba.shape[1], rgba.shape[0]), rgba.tobytes())


@lru_cache(maxsize=1024)
def placed(name: str, color: str, size: float, angle: float, mirror: bool) -> Image.Image:
    """One instance: longest side about `size` px before it is turned by `angle` degrees; premultiplied RGBa,
    cropped to what is visible.
    """
    sprite = tinted(name, color)
    if mirror:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = sprite.rotate(angle, resample=Image.Resampling.BILINEAR, expand=True)
    scale = size / max(sprite.size)
    shape = (max(2, round(turned.width * scale)), max(2, round(turned.height * scale)))
    small = turned.resize(shape, resample=Image.Resampling.BOX, reducing_gap=None)
    visible = small.getchannel("a").point(lambda a: 255 if a > 40 else 0).getbbox()
    return small.crop(visible) if visible else small
