"""A judge model as `look` of `kinds.py`: asked beside a cut-out of each region which object is in its
middle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from PIL.Image import Image

from sparring.config import KindSettings
from sparring.data.records import Box, Target
from sparring.models.vlms.base import Sampling, ask_each_once
from sparring.models.vlms.local import LocalVLM

NAME_TOKENS = 16
# An empty bottle is an object.
_NOTHING = re.compile(
    r"\b(?:nothing|none|no object|only background|just background)\b"
    r"|\bempty (?:background|space|area|region|sky|wall|spot|street|picture|image)\b"
    r"|^(?:(?:background|space|area) is )?empty$"
)
_FILLER = re.compile(r"^(?:there is|there's|it is|it's|this is|i see)\s+|^(?:a|an|the|some)\s+")


class ModelLook:
    """Names one object a region; its box is the region's. Used on changed regions only, so what it calls a
    thing matters less than that it is one.
    """

    def __init__(self, judge: LocalVLM, settings: KindSettings = KindSettings(), *, batch: int = 128) -> None:
        self.judge, self.settings, self.batch = judge, settings, batch

    def __call__(self, images: Sequence[Image], boxes: Sequence[Box]) -> list[list[Target]]:
        """See `kinds.Look`."""
        if not images:
            return []
        parts = [cut_out(image, box, self.settings.margin) for image, box in zip(images, boxes, strict=True)]
        prompts = [self.settings.object_prompt] * len(parts)
        replies = ask_each_once(self.judge, parts, prompts, Sampling(NAME_TOKENS, batch=self.batch))
        # A cut-out that the judge does not take (a strip of a few pixels) is one in which it names nothing.
        names = [None if reply is None else parse_object(reply.text) for reply in replies]
        return [[] if name is None else [Target(name, box)] for name, box in zip(names, boxes, strict=True)]


def cut_out(image: Image, box: Box, margin: float) -> Image:
    """The box with so large a share of its size around it, as far as the picture goes."""
    x0, y0, x1, y1 = box
    dx, dy = round(margin * (x1 - x0)), round(margin * (y1 - y0))
    return image.convert("RGB").crop(
        (max(0, x0 - dx), max(0, y0 - dy), min(image.width, x1 + dx), min(image.height, y1 + dy))
    )


def parse_object(reply: str) -> str | None:
    """The object that a reply names: its first sentence, in lower case, without article; None for "nothing"
    and for an empty reply.
    """
    text = re.split(r"[.\n,;!]", reply.strip().lower(), maxsplit=1)[0].strip()
    while (shorter := _FILLER.sub("", text)) != text:
        text = shorter
    return None if not text or _NOTHING.search(text) else text
