"""What becomes of an evaluation's pictures: small copies for the report, and whether the model was shown them
smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image, Resampling

THUMBNAIL = 320


class Thumbnails:
    """Small copies of the first pictures, by their hashes."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._kept: set[str] = set()

    def keep(self, image: Image, digest: str) -> None:
        """Write a small copy of a picture, unless there are enough."""
        if digest in self._kept or len(self._kept) >= self.most:
            return
        self._kept.add(digest)
        path = self.folder / f"{digest}.webp"
        if not path.exists():
            small = (
                image.copy()
                if max(image.size) <= THUMBNAIL
                else image.reduce(max(1, max(image.size) // (2 * THUMBNAIL)))
            )
            small.thumbnail((THUMBNAIL, THUMBNAIL), Resampling.BILINEAR)
            small.save(path, "WEBP", quality=80, method=0)


def was_reduced(size: tuple[int, int], limits: Mapping[str, Any]) -> bool | None:
    """Is a picture of this size made smaller before the model sees it? None where that is not known."""
    if "size" in limits:
        fixed = limits["size"]
        height, width = (
            fixed.get("height", fixed.get("shortest_edge")),
            fixed.get("width", fixed.get("shortest_edge")),
        )
        return None if not width or not height else bool(size[0] * size[1] > width * height)
    most = limits.get("max_area", limits.get("max_area_sent"))
    if most is None:
        return False if "max_area_sent" in limits else None
    return bool(size[0] * size[1] > most)
