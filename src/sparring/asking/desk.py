"""The desk that asks: batch by batch or many requests at a time, each question once, whatever happens in
between.

An endpoint keeps its answers itself, one by one. What a model on this machine answers may be kept here, under
a key of all that decides it: the pixels of the pictures, the prompt and how the reply was begun, the model
with its revision and the limits of its pictures, the settings of generation and the number of the try. Its
answers may differ in their last digits with what is asked beside them, so a batch is kept whole or not at
all, and in order: a run that was killed, or that several workers share, asks the very batches of any other.
Pictures of the next batch are decoded while the model answers; those of two batches a worker at most are in
memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from PIL.Image import Image

from sparring.asking.questions import letter_behind
from sparring.data.errors import DataError, ModelError, RefusedError, SparringError
from sparring.data.files import storable
from sparring.data.images import image_sha256
from sparring.data.items import Trouble
from sparring.data.pictures import Picture, PictureInMemory
from sparring.data.records import LETTERS
from sparring.engine.crew import Crew
from sparring.engine.device import is_of_the_machine
from sparring.models.vlms.answer_cache import AnswerCache, answer_key
from sparring.models.vlms.base import VLM, Reply, Sampling
from sparring.models.vlms.letters import Lettered
from sparring.models.vlms.traits import Traits
from sparring.seeds import derive_seed

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: a text about pictures. `id` names it.

    start: how the reply is begun for the model. options: the texts of options whose letters'
    log-probabilities are wanted at the answer; None where they are not.
    """

    id: str
    pictures: tuple[Picture, ...]
    prompt: str
    start: str = ""
    options: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came back: the reply behind how it was begun, or the trouble and its words.

    hashes, sizes: of the pictures as they were decoded, before any processor. logprobs: of the option letters
    at the answer; None where they were not asked for, or the reply names no letter of its own.
    """

    id: str
    text: str = ""
    trouble: Trouble | None = None
    error: str = ""
    tokens: int = 0
    finished: bool = True
    hashes: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A query with what is known of its pictures. images: None where its answer is known. error: they cannot
    be read.
    """

    query: Query
    hashes: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()
    images: tuple[Image, ...] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is asked of a batch: the queries at these places, about these images."""

    places: list[int]
    queries: list[Query]
    images: list[tuple[Image, ...]]
    sampling: Sampling


_Found = dict[str, Any] | ModelError
"""An answer as it is kept, or why there is none."""


def fetch(vlm: VLM, task: Task) -> dict[int, _Found]:
    """Place -> answer or error, as the model gives them. Where it breaks over a batch, which is no error of
    its own kinds, each query is asked by itself, and the one that it breaks over is refused.
    """
    if not task.places:
        return {}
    try:
        return _fetch(vlm, task)
    except Exception as error:
        if isinstance(error, SparringError) or is_of_the_machine(error):
            raise  # says nothing of any one query
        # Any other error of one query must not cost the others.
        if len(task.places) > 1:
            each = zip(task.places, task.queries, task.images, strict=True)
            alone = (Task([place], [query], [own], task.sampling) for place, query, own in each)
            return {place: own for one in alone for place, own in fetch(vlm, one).items()}
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {task.places[0]: RefusedError(f"{vlm.name} breaks over it: {words}")}


def _fetch(vlm: VLM, task: Task) -> dict[int, _Found]:
    queries = task.queries
    prompts, starts = [query.prompt for query in queries], [query.start for query in queries]
    begun = starts if any(starts) else ()
    wanted = [query.options for query in queries if query.options is not None]
    replies: Sequence[Reply | ModelError]
    if wanted:
        letters = [LETTERS[: len(options)] for options in wanted]
        replies = vlm.try_letters(
            task.images,
            prompts,
            letters,
            lambda i, text: letter_behind(starts[i], text, wanted[i]),
            task.sampling,
            starts=begun,
        )
    else:
        replies = vlm.try_each(task.images, prompts, task.sampling, numbers=task.places, starts=begun)
    return {
        place: reply if isinstance(reply, ModelError) else _record(reply)
        for place, reply in zip(task.places, replies, strict=True)
    }


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch on its way. asked, keys: what decides each answer, and its hash by place; nothing where answers
    are not kept here.
    """

    loaded: list[_Loaded]
    asked: list[dict[str, Any]]
    keys: dict[int, str]
    task: Task


@dataclass
class Desk:
    """Asks one model. crew: gives those who have it, when there is something to ask; an endpoint is asked by
    this process.

    sampling: how replies are drawn; its seed is the run's. batch: queries of one batch of a model on this
    machine. cache: keeps what such a model answers; None where the caller keeps it. identity: stands in the
    keys of answers, where it is not that of the traits. seen: is told of every picture that is decoded, with
    its hash. pictures: what is known of pictures, hash and size; desks may share it.
    """

    traits: Traits
    crew: Callable[[], Crew[VLM]]
    sampling: Sampling
    batch: int = 8
    cache: AnswerCache | None = None
    identity: Mapping[str, Any] | None = None
    seen: Callable[[Image, str], object] | None = None
    pictures: dict[Picture, tuple[str, Size]] = field(default_factory=dict)

    def ask(self, queries: Iterable[Query], *, trial: int = 0) -> Iterator[list[RawAnswer]]:
        """Answers in the order of the queries, batch by batch. trial: what was asked before is asked anew for
        every number.

        Errors: ModelError where an endpoint is taken to be down (see `EndpointVLM.try_each`), RunError when
        its budget is used up. All answers by then are kept.
        """
        yield from self.ask_batches(batches_of(queries, self.traits.at_once(self.batch)), trial=trial)

    def ask_batches(self, batches: Iterable[Sequence[Query]], *, trial: int = 0) -> Iterator[list[RawAnswer]]:
        """As `ask`, in these batches. Each is drawn from `batches` while the one before it is answered. Those
        of one batch have the same number of pictures, and want letters or not.
        """
        waiting, errors = deque[_Batch](), dict[str, ModelError]()

        def tasks() -> Iterator[Task]:
            for loaded in _ahead(batches, lambda batch: self._load(batch, trial)):
                known = {key for other in waiting for key in other.keys.values()} | errors.keys()
                waiting.append(self._batch(loaded, trial, known))
                yield waiting[-1].task

        rest = tasks()
        for task in rest:
            if task.places:
                for found in self.crew().map(fetch, chain([task], rest)):
                    yield self._answer(waiting.popleft(), found, errors)
            else:  # nobody is called for what is known
                yield self._answer(waiting.popleft(), {}, errors)

    # ---- pictures

    def _load(self, queries: Sequence[Query], trial: int) -> list[_Loaded]:
        decoded: dict[Any, Image] = {}
        loaded = [
            self._described(replace(query, prompt=storable(query.prompt)), decoded) for query in queries
        ]
        kept = self._kept
        if not loaded:
            return []
        if kept is not None and all(
            one.error or kept.get(key) is not None for one, key in self._keyed(loaded, trial)
        ):
            return loaded
        return [one if one.error else self._with_images(one, decoded) for one in loaded]

    def _described(self, query: Query, decoded: dict[Any, Image]) -> _Loaded:
        described = []
        try:
            for picture in query.pictures:
                # A picture in memory is not hashable, and another one may come to lie where it is.
                lasting = not isinstance(picture, PictureInMemory)
                facts = self.pictures.get(picture) if lasting else None
                if facts is None:
                    image = decoded.setdefault(picture if lasting else id(picture), picture.load())
                    facts = image_sha256(image), image.size
                    if lasting:
                        self.pictures[picture] = facts
                    if self.seen is not None:
                        self.seen(image, facts[0])
                described.append(facts)
        except DataError as error:
            return _Loaded(query, error=str(error))
        return _Loaded(query, tuple(digest for digest, _ in described), tuple(size for _, size in described))

    def _with_images(self, one: _Loaded, decoded: dict[Any, Image]) -> _Loaded:
        images = []
        for picture in one.query.pictures:
            name = id(picture) if isinstance(picture, PictureInMemory) else picture
            if name not in decoded:
                decoded[name] = picture.load()
            images.append(decoded[name])
        return replace(one, images=tuple(images))

    # ---- answers

    @property
    def _kept(self) -> AnswerCache | None:
        """Where answers are kept here, if they are."""
        return None if self.traits.keeps_answers else self.cache

    def _keyed(self, loaded: Sequence[_Loaded], trial: int) -> list[tuple[_Loaded, str]]:
        asked = self._asked(loaded, trial)
        return [(one, answer_key(own)) for one, own in zip(loaded, asked, strict=True)]

    def _asked(self, loaded: Sequence[_Loaded], trial: int) -> list[dict[str, Any]]:
        """What decides the answer to each query of a batch."""
        sampling = self.sampling
        seed = self._seed(loaded, trial)
        common: dict[str, Any] = dict(self.traits.identity if self.identity is None else self.identity)
        common["trial"] = trial
        how: dict[str, Any] = {"max_new_tokens": sampling.max_new_tokens, "temperature": sampling.temperature}
        asked = []
        for place, one in enumerate(loaded):
            own = how | (
                {"top_p": sampling.top_p, "seed": seed, "place": place} if sampling.temperature > 0 else {}
            )
            if sampling.temperature > 0 and sampling.top_k:
                own["top_k"] = sampling.top_k
            what = common | {"images": one.hashes, "prompt": one.query.prompt, "how": own}
            if one.query.start:
                what["start"] = one.query.start
            if one.query.options is not None:
                # The letter is looked for where the reply names an option, in words too.
                what["letters_of"] = list(one.query.options)
            asked.append(what)
        return asked

    def _seed(self, loaded: Sequence[_Loaded], trial: int) -> int:
        if self.sampling.temperature == 0 or not loaded:
            return 0
        return derive_seed(self.sampling.seed, "batch", loaded[0].query.id, trial)

    def _batch(self, loaded: Sequence[_Loaded], trial: int, known: Set[str]) -> _Batch:
        """What is to be asked of a batch: each thing once, and nothing that is kept. known: keys that have
        been asked in this round, whose answers may be on their way.
        """
        readable = [place for place, one in enumerate(loaded) if not one.error]
        asked, keys, cache = list[dict[str, Any]](), dict[int, str](), self._kept
        if cache is not None:
            asked = self._asked(loaded, trial)
            keys = {place: answer_key(asked[place]) for place in readable}
            first = {key: place for place, key in reversed(keys.items())}
            readable = sorted(first.values())
            missing = [place for place in readable if keys[place] not in known and not cache.get(keys[place])]
            if not missing or self.sampling.temperature == 0:
                readable = missing  # what is drawn depends on the place in the batch: all or nothing
        sampling = replace(self.sampling, seed=self._seed(loaded, trial), trial=trial)
        queries = [replace(loaded[place].query, pictures=()) for place in readable]
        images = [loaded[place].images or () for place in readable]
        task = Task(readable, queries, images, sampling)
        return _Batch([replace(one, images=None) for one in loaded], asked, keys, task)

    def _answer(
        self, batch: _Batch, found: Mapping[int, _Found], errors: dict[str, ModelError]
    ) -> list[RawAnswer]:
        """Keep what was found of a batch, place -> answer or error, and read all its answers. errors: by key,
        of this round; those of the batch are added.
        """
        cache = self._kept
        if cache is not None:
            fresh = {batch.keys[place]: (batch.asked[place], own) for place, own in found.items()}
            errors.update((key, own) for key, (_, own) in fresh.items() if isinstance(own, ModelError))
            answered = {
                key: (what, own) for key, (what, own) in fresh.items() if not isinstance(own, ModelError)
            }
            if answered:
                cache.put_all(str(batch.asked[0]["model"]), answered)
            kept = {place: cache.get(key) or errors.get(key) for place, key in batch.keys.items()}
            found = {place: own for place, own in kept.items() if own is not None}
        return [self._read(one, found.get(place)) for place, one in enumerate(batch.loaded)]

    def _read(self, one: _Loaded, answer: dict[str, Any] | ModelError | None) -> RawAnswer:
        if one.error:
            return RawAnswer(one.query.id, trouble="picture", error=one.error)
        common: dict[str, Any] = {"hashes": one.hashes, "sizes": one.sizes}
        if answer is None or isinstance(answer, ModelError):
            # What an endpoint refuses it may take another time, as other requests that came to nothing.
            refused = isinstance(answer, RefusedError) and self.traits.repeats_itself
            return RawAnswer(
                one.query.id, trouble="refused" if refused else "request", error=str(answer), **common
            )
        logprobs = answer.get("logprobs")
        if logprobs is not None:
            common["logprobs"] = tuple(-math.inf if value is None else value for value in logprobs)
        return RawAnswer(
            one.query.id, answer["text"], tokens=answer["tokens"], finished=answer["finished"], **common
        )


def _record(reply: Reply) -> dict[str, Any]:
    """A reply as it is kept; JSON has no infinity."""
    record = {"text": reply.text, "tokens": reply.tokens, "finished": reply.finished}
    if isinstance(reply, Lettered):
        logprobs = reply.logprobs
        return record | {
            "logprobs": None
            if logprobs is None
            else [None if value == -math.inf else value for value in logprobs]
        }
    return record


def batches_of(queries: Iterable[Query], size: int) -> Iterator[list[Query]]:
    """At most `size` queries in a row that have the same number of pictures, because processors take no
    mixture, and that all want letters or do not.
    """
    batch: list[Query] = []
    for query in queries:
        if batch and (len(batch) == size or _kind(query) != _kind(batch[0])):
            yield batch
            batch = []
        batch.append(query)
    if batch:
        yield batch


def _kind(query: Query) -> tuple[int, bool]:
    return len(query.pictures), query.options is None


def _ahead(
    batches: Iterable[Sequence[Query]], load: Callable[[Sequence[Query]], list[_Loaded]]
) -> Iterator[list[_Loaded]]:
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
