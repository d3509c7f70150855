"""The things of the embedded world: eleven groups of four look-alikes, each thing in six colours, all upright
and of one size.

Sprites are Fluent Emoji pictures (MIT, (c) Microsoft Corporation), cropped, at most 64 px; see
`assets/LICENSE`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ASSETS = Path(__file__).parent / "assets"
SIDE = 22  # longest side of a thing, pixels

GROUPS = (
    ("tomato", "peach", "melon", "mango"),
    ("cup", "mug", "glass", "goblet"),
    ("bucket", "basket", "bin", "jar"),
    ("dog", "fox", "wolf", "cat"),
    ("bus", "van", "trolley", "truck"),
    ("football", "basketball", "volleyball", "baseball"),
    ("clock", "stopwatch", "timer", "compass"),
    ("guitar", "banjo", "violin", "trumpet"),
    ("hat", "cap", "helmet", "bell"),
    ("handbag", "purse", "briefcase", "backpack"),
    ("pencil", "pen", "crayon", "syringe"),
)
"""Things of one group differ plainly for a person; who has never had to tell them apart mixes them up."""
NAMES = tuple(name for group in GROUPS for name in group)

PLURALS = {
    "tomato": "tomatoes", "peach": "peaches", "mango": "mangoes", "glass": "glasses", "fox": "foxes", "wolf": "wolves", "bus": "buses",
    "stopwatch": "stopwatches", "compass": "compasses",
}  # fmt: skip

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 44),
    "yellow": (246, 204, 32),
    "green": (44, 160, 62),
    "blue": (40, 98, 226),
    "purple": (150, 58, 206),
    "white": (208, 208, 216),
}


def plural(name: str) -> str:
    """The plural of a thing's name."""
    return PLURALS.get(name, name + "s")


@cache
def lookalikes(name: str) -> tuple[str, ...]:
    """The other names of its group."""
    return next(tuple(other for other in group if other != name) for group in GROUPS if name in group)


@cache
def sprite(name: str, color: str) -> Image.Image:
    """The thing in that colour: premultiplied RGBa, longest side `SIDE` px.

    The picture's light and shade is kept: its luminance runs from a dark shade of the colour, over the
    colour, to a highlight. A trace of its first colours keeps its parts apart.
    """
    with Image.open(ASSETS / "sprites" / f"{name}.webp") as source:
        picture = np.asarray(source.convert("RGBA"), dtype=np.float32) / 255
    alpha = picture[..., 3]
    light = picture[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    low, high = np.percentile(light[alpha > 0.5], [3, 97])
    light = np.clip((light - low) / max(high - low, 0.15), 0, 1) * 0.8 + 0.15
    tone = np.array(COLORS[color], dtype=np.float32) / 255
    dark, bright, middle = 0.28 * tone, 0.45 * tone + 0.55, 0.62
    shade = np.where(
        (light < middle)[..., None],
        dark + (tone - dark) * (light / middle)[..., None],
        tone + (bright - tone) * ((light - middle) / (1 - middle))[..., None],
    )
    rgb = 0.88 * shade + 0.12 * picture[..., :3]
    rgba: NDArray[np.uint8] = (np.dstack([rgb * alpha[..., None], alpha]) * 255 + 0.5).astype(np.uint8)
    full = Image.frombytes("RGBa", (rgba.shape[1], rgba.shape[0]), rgba.tobytes())
    scale = SIDE / max(full.size)
    shape = (max(2, round(full.width * scale)), max(2, round(full.height * scale)))
    small = full.resize(shape, resample=Image.Resampling.BOX)
    visible = small.getchannel("a").point(lambda a: 255 if a > 40 else 0).getbbox()
    return small.crop(visible) if visible else small
