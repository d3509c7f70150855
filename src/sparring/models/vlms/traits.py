"""What is known of a model without asking it, and without its weights in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from sparring.config import EndpointSettings
from sparring.models.vlms.address import Address

WINDOW = 4
"""Requests handed to an endpoint at a time, as a multiple of those that may be under way."""
TELLING = (".json", ".safetensors", ".jinja", ".txt", ".model")


class Traits(Protocol):
    """How a model is best asked, and what its answers depend on beside the question."""

    @property
    def repeats_itself(self) -> bool:
        """Greedy, it says the same again to the same question, and refuses the same again."""

    @property
    def keeps_answers(self) -> bool:
        """What it answered is kept one by one, and never asked of it again: nobody else need keep it."""

    @property
    def gives_gradients(self) -> bool:
        """Its weights are in this process: it can be trained, and tells log-probabilities and gradients."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells its answers from those of any other model, or of the same one shown smaller pictures."""

    @property
    def pixels(self) -> Mapping[str, Any]:
        """How pictures are resized before it sees them: areas between which they are kept, a fixed size, or
        what an endpoint is sent.
        """

    def at_once(self, batch: int) -> int:
        """How many questions one call is best given, where a model on this machine would be given `batch`."""


class LocalTraits:
    """Of a model on this machine. folder, processor: where its files are and what prepares its pictures,
    called for when they are needed; without a folder it has no revision.
    """

    repeats_itself, keeps_answers, gives_gradients = True, False, True

    def __init__(
        self, name: str, dtype: str, *, folder: Callable[[], Path | None], processor: Callable[[], Any]
    ) -> None:
        self.name, self.dtype = name, dtype
        self._folder, self._processor = folder, processor

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Its name, the SHA-256 of its files, the limits of its pictures, its number type."""
        folder = self._folder()
        revision = None if folder is None else folder_sha256(folder)
        return {"model": self.name, "revision": revision, "pixels": dict(self.pixels), "dtype": self.dtype}

    @cached_property
    def pixels(self) -> Mapping[str, Any]:
        """`min_area` and `max_area`, or `size`."""
        processor = getattr(self._processor(), "image_processor", None)
        size = dict(processor.size) if processor is not None else {}
        size = {name: value for name, value in size.items() if value is not None}
        if hasattr(processor, "merge_size") and {"shortest_edge", "longest_edge"} <= set(size):
            return {"min_area": size["shortest_edge"], "max_area": size["longest_edge"]}
        return {"size": size}

    def at_once(self, batch: int) -> int:
        return batch


class EndpointTraits:
    """Of a model behind an endpoint. Its answers are kept by `EndpointVLM`, under keys that hold the very
    pixels.
    """

    repeats_itself, keeps_answers, gives_gradients = False, True, False

    def __init__(self, address: Address, settings: EndpointSettings, *, max_pixels: int | None) -> None:
        self.address, self.settings, self.max_pixels = address, settings, max_pixels

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its address, and what is added to every request."""
        return {"model": str(self.address), "extra_body": self.settings.extra_body}

    @property
    def pixels(self) -> Mapping[str, Any]:
        """`max_area_sent`."""
        return {"max_area_sent": self.max_pixels, "server": "decides by itself what it makes of them"}

    def at_once(self, batch: int) -> int:
        return self.settings.concurrency * WINDOW


def folder_sha256(folder: Path) -> str:
    """SHA-256 of the names and contents of a checkpoint's files."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in TELLING:
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
