"""Asking a model: batch by batch or many requests at a time, each question once, whatever happens in between.

Every answer is kept under a key of all that decides it: the pixels of its pictures, the rendered prompt, the model with its revision, the pixel
limits, the settings of generation and the trial. A batch of a local model is kept whole or not at all, so that a run that was killed asks the same batches
as one that was not. Pictures of the next batch are decoded while the model answers; no more than two batches are in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image, Resampling

from sparring.benchmarks.items import Picture, PictureInMemory, Trouble
from sparring.data.errors import DataError, ModelError, RefusedError
from sparring.data.files import storable
from sparring.data.images import image_sha256
from sparring.models.vlms.answer_cache import AnswerCache, answer_key
from sparring.models.vlms.base import VLM, Sampling
from sparring.models.vlms.endpoint import EndpointVLM
from sparring.seeds import derive_seed

WINDOW = 4
"""Requests handed to an endpoint at a time, as a multiple of those that may be under way."""
THUMBNAIL = 320


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: a text about pictures. `id` names it; two queries with the same pictures and text are asked once."""

    id: str
    pictures: tuple[Picture, ...]
    prompt: str


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came back: the reply, or the trouble and its words. hashes, sizes: of the pictures as they were decoded, before any processor."""

    id: str
    text: str = ""
    trouble: Trouble | None = None
    error: str = ""
    tokens: int = 0
    finished: bool = True
    hashes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Loaded:
    query: Query
    images: tuple[Image, ...]
    hashes: tuple[str, ...]
    error: str = ""


@dataclass
class Harness:
    """A model with the cache of its answers. identity: what is asked, as `model_identity` tells it. batch: queries of one batch of a local model.

    thumbnails: folder and number of small copies of pictures that are kept.
    """

    vlm: VLM
    cache: AnswerCache
    identity: dict[str, Any]
    sampling: Sampling
    batch: int = 8
    thumbnails: tuple[Path, int] | None = None
    _kept: set[str] = field(default_factory=set)

    def ask(self, queries: Iterable[Query], *, trial: int = 0) -> Iterator[list[RawAnswer]]:
        """Answers in the order of the queries, batch by batch.

        Errors: ModelError where an endpoint is taken to be down (see `EndpointVLM.try_each`); RunError when
        its budget is used up. All answers by then are kept.
        """
        size = self.vlm.settings.concurrency * WINDOW if isinstance(self.vlm, EndpointVLM) else self.batch
        for loaded in _ahead(_batches(queries, size), self._load):
            yield self._answer(loaded, trial)

    def _load(self, queries: Sequence[Query]) -> list[_Loaded]:
        shown: dict[Any, tuple[Image, str]] = {}
        loaded = []
        for query in queries:
            # Images are not hashable; what is elsewhere is told by where it is.
            query = replace(query, prompt=storable(query.prompt))
            names = [id(picture) if isinstance(picture, PictureInMemory) else picture for picture in query.pictures]
            try:
                for name, picture in zip(names, query.pictures, strict=True):
                    if name not in shown:
                        image = picture.load()
                        shown[name] = image, image_sha256(image)
                        self._keep_thumbnail(*shown[name])
                own = [shown[name] for name in names]
            except DataError as error:
                loaded.append(_Loaded(query, (), (), str(error)))
            else:
                loaded.append(_Loaded(query, tuple(image for image, _ in own), tuple(digest for _, digest in own)))
        return loaded

    def _keep_thumbnail(self, image: Image, digest: str) -> None:
        if self.thumbnails is None or digest in self._kept or len(self._kept) >= self.thumbnails[1]:
            return
        self._kept.add(digest)
        path = self.thumbnails[0] / f"{digest}.webp"
        if not path.exists():
            small = image.copy() if max(image.size) <= THUMBNAIL else image.reduce(max(1, max(image.size) // (2 * THUMBNAIL)))
            small.thumbnail((THUMBNAIL, THUMBNAIL), Resampling.BILINEAR)
            small.save(path, "WEBP", quality=80, method=0)

    def _answer(self, loaded: Sequence[_Loaded], trial: int) -> list[RawAnswer]:
        seed = derive_seed(self.sampling.seed, "batch", loaded[0].query.id, trial) if self.sampling.temperature > 0 else 0
        asked = [self._asked(one, seed, place, trial) for place, one in enumerate(loaded)]
        keys = [answer_key(what) for what in asked]
        known = {key: self.cache.get(key) for key, one in zip(keys, loaded, strict=True) if not one.error}
        first: dict[str, int] = {}
        for place, (key, one) in enumerate(zip(keys, loaded, strict=True)):
            if not one.error:
                first.setdefault(key, place)
        missing = [place for key, place in first.items() if known[key] is None]
        if missing and self.sampling.temperature > 0 and not isinstance(self.vlm, EndpointVLM):
            missing = list(first.values())  # what is drawn depends on the place in the batch
        errors: dict[str, ModelError] = {}
        if missing:
            answers = self._fetch(missing, loaded, keys, seed, trial, errors)
            self.cache.put_all(str(self.identity["model"]), {key: (asked[first[key]], answer) for key, answer in answers.items()})
            known |= answers
        return [self._read(one, key, known.get(key), errors) for one, key in zip(loaded, keys, strict=True)]

    def _fetch(
        self, places: Sequence[int], loaded: Sequence[_Loaded], keys: Sequence[str], seed: int, trial: int, errors: dict[str, ModelError]
    ) -> dict[str, dict[str, Any]]:
        """Key -> answer of the queries at these places; `errors` takes what was given up."""
        answers = {}
        for place, reply in zip(places, self._replies([loaded[place] for place in places], seed, places, trial), strict=True):
            if isinstance(reply, ModelError):
                errors[keys[place]] = reply
            else:
                answers[keys[place]] = {"text": reply.text, "tokens": reply.tokens, "finished": reply.finished}
        return answers

    def _asked(self, one: _Loaded, seed: int, place: int, trial: int) -> dict[str, Any]:
        how = {"max_new_tokens": self.sampling.max_new_tokens, "temperature": self.sampling.temperature}
        if self.sampling.temperature > 0:
            how |= {"top_p": self.sampling.top_p, "seed": seed, "place": place}
        elif not isinstance(self.vlm, EndpointVLM):
            trial = 0  # a local model says the same again
        return {"images": one.hashes, "prompt": one.query.prompt, "how": how, "trial": trial, **self.identity}

    def _replies(self, loaded: Sequence[_Loaded], seed: int, places: Sequence[int], trial: int) -> Sequence[Any]:
        return self.vlm.try_each(
            [one.images for one in loaded],
            [one.query.prompt for one in loaded],
            replace(self.sampling, seed=seed, batch=self.batch, trial=trial),
            numbers=places,
        )

    def _read(self, one: _Loaded, key: str, answer: dict[str, Any] | None, errors: dict[str, ModelError]) -> RawAnswer:
        sizes = tuple(image.size for image in one.images)
        if one.error:
            return RawAnswer(one.query.id, trouble="picture", error=one.error)
        if answer is None:
            local = isinstance(errors[key], RefusedError) and not isinstance(self.vlm, EndpointVLM)
            trouble: Trouble = "refused" if local else "request"
            return RawAnswer(one.query.id, trouble=trouble, error=str(errors[key]), hashes=one.hashes, sizes=sizes)
        return RawAnswer(one.query.id, answer["text"], tokens=answer["tokens"], finished=answer["finished"], hashes=one.hashes, sizes=sizes)


def _batches(queries: Iterable[Query], size: int) -> Iterator[list[Query]]:
    """At most `size` queries in a row that have the same number of pictures: processors take no mixture."""
    batch: list[Query] = []
    for query in queries:
        if batch and (len(batch) == size or len(query.pictures) != len(batch[0].pictures)):
            yield batch
            batch = []
        batch.append(query)
    if batch:
        yield batch


def _ahead(batches: Iterable[list[Query]], load: Any) -> Iterator[list[_Loaded]]:
    """Loaded batches; the next one is loaded by a thread while this one is worked on."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = None
        for batch in batches:
            following = pool.submit(load, batch)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


# ---- who was asked


def model_identity(vlm: VLM, spec: str, *, revision: str | None, pixels: dict[str, Any], dtype: str) -> dict[str, Any]:
    """What stands in every answer's key for the model: its name and revision, its number type, the limits of its pictures.

    The revision of a local model is the SHA-256 of all its files; an endpoint's is what the user says.
    """
    if isinstance(vlm, EndpointVLM):
        return {"model": str(vlm.address), "revision": revision, "pixels": pixels, "extra_body": vlm.settings.extra_body}
    folder = getattr(vlm, "folder", None)
    return {"model": Path(spec).name, "revision": folder_sha256(folder) if folder else revision, "pixels": pixels, "dtype": dtype}


def folder_sha256(folder: Path) -> str:
    """SHA-256 of the names and contents of a checkpoint's files."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in (".json", ".safetensors", ".jinja", ".txt", ".model"):
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def pixel_limits(vlm: VLM) -> dict[str, Any]:
    """How pictures are resized before the model sees them: areas between which they are kept, a fixed size, or what an endpoint is sent."""
    if isinstance(vlm, EndpointVLM):
        return {"max_area_sent": vlm.max_pixels, "server": "decides by itself what it makes of them"}
    processor = getattr(getattr(vlm, "processor", None), "image_processor", None)
    size = dict(processor.size) if processor is not None else {}
    size = {name: value for name, value in size.items() if value is not None}
    if hasattr(processor, "merge_size") and {"shortest_edge", "longest_edge"} <= set(size):
        return {"min_area": size["shortest_edge"], "max_area": size["longest_edge"]}
    return {"size": size}


def was_reduced(size: tuple[int, int], limits: dict[str, Any]) -> bool | None:
    """Is a picture of this size made smaller before the model sees it? None where that is not known."""
    if "size" in limits:
        fixed = limits["size"]
        height, width = fixed.get("height", fixed.get("shortest_edge")), fixed.get("width", fixed.get("shortest_edge"))
        return None if not width or not height else bool(size[0] * size[1] > width * height)
    most = limits.get("max_area", limits.get("max_area_sent"))
    if most is None:
        return False if "max_area_sent" in limits else None
    return bool(size[0] * size[1] > most)
