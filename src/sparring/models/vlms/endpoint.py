"""Vision-language models behind an OpenAI-compatible endpoint: vLLM, SGLang, `transformers serve`, a hosted
model.

Asked through chat completions, one request a reply, several at a time. Every picture is sent as a PNG, so
that the server sees the very pixels. A greedy reply is asked for once however many are wanted; sampled ones
have seeds of their own, which servers follow as far as they can. Probabilities of given texts need a server
that scores prompts (vLLM's `prompt_logprobs`).

Inside, this is asyncio; outside it is plain. One event loop in a thread of its own serves all endpoints of a
process, so that connections last from call to call, and so that a caller may be inside an event loop itself
(a notebook).
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import openai
import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from sparring.config import EndpointSettings
from sparring.data.errors import DataError, ModelError, RefusedError, SparringError
from sparring.models.vlms.address import parse_address
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.base import Pictures, Sampling, each_picture
from sparring.models.vlms.courier import Courier
from sparring.models.vlms.letters import Lettered, Locate, endpoint_letters
from sparring.models.vlms.orders import Order
from sparring.models.vlms.requests import Job, Requests, how_of
from sparring.models.vlms.traits import EndpointTraits
from sparring.seeds import derive_seed

Result = TypeVar("Result")
NO_KEY = "none"  # what local servers are sent: the client library insists on a key
GIVEN_UP = 32
"""Requests given up in a row after which an endpoint is taken to be down."""


@dataclass(frozen=True, slots=True)
class EndpointReply:
    """One reply: its text, its tokens as the server counted them, and whether it ended by itself.

    pieces: where log-probabilities were asked for, every token's text with the likeliest tokens at its place
    and their log-probabilities.
    """

    text: str
    tokens: int
    finished: bool
    pieces: Sequence[tuple[str, Mapping[str, float]]] = ()


class EndpointVLM:
    """A vision-language model that a server runs. It can be asked, not trained."""

    def __init__(
        self,
        spec: str,
        settings: EndpointSettings,
        *,
        cache: Path | None = None,
        max_pixels: int | None = None,
        device: torch.device = torch.device("cpu"),
    ) -> None:
        """spec: `http://host:port/v1#model`. cache: the SQLite file of its answers; without one they last as
        long as this object.

        max_pixels: pictures of a larger area are scaled down before they are sent. Raises ModelError for a
        spec that is none.
        """
        self.address = parse_address(spec)
        self.settings = settings
        self.name = self.address.model
        self.device = device
        self.max_pixels = max_pixels
        self.cache = AnswerCache(cache)
        self.traits = EndpointTraits(self.address, settings, max_pixels=max_pixels)
        self._requests = Requests(self.address, settings)
        self._key = _key(settings.key_variable)
        self._given_up = 0

    # ---- asking

    def generate(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        starts: Sequence[str] = (),
    ) -> list[list[EndpointReply]]:
        """See `VLM.generate`. top_k needs a server that knows it (vLLM, SGLang). The seed of reply j to
        prompt i follows from (seed, its number, j). `batch` bounds nothing here: `endpoint.concurrency`
        requests are under way.

        starts: sent as an unfinished turn of the assistant (as vLLM and SGLang take it); "" for nothing.
        Errors: ModelError when a request is given up, RunError when the budget is used up; RefusedError,
        with the places, once all others are answered. What was answered is in the cache.
        """
        if len(images) != len(prompts):
            raise DataError(f"{len(images)} pictures and {len(prompts)} prompts: there must be as many")
        if starts and len(starts) != len(prompts):
            raise DataError(
                f"{len(starts)} beginnings of replies for {len(prompts)} prompts: there must be as many"
            )
        jobs: list[list[Job]] = []
        for i, (pictures, prompt) in enumerate(zip(images, prompts, strict=True)):
            shown, how = self._shown(pictures), how_of(sampling, starts[i] if starts else "")
            places = range(sampling.n)
            drawn = [
                how | _seed(sampling, sampling.number(i), j) if sampling.temperature > 0 else how
                for j in places
            ]
            jobs.append([self._requests.job(shown, prompt, one) for one in drawn])
        refused: dict[str, ModelError] = {}
        answers = self._answer([job for own in jobs for job in own], refused, only=RefusedError)
        _raise_refused([[refused[job.key] for job in own if job.key in refused] for own in jobs])
        return [[EndpointReply(**answers[job.key]) for job in own] for own in jobs]

    def try_each(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        numbers: Sequence[int] = (),
        starts: Sequence[str] = (),
        top_logprobs: int = 0,
    ) -> list[EndpointReply | ModelError]:
        """One reply to every prompt, or the error with which its request was given up; the others are asked
        all the same. Otherwise as `generate`.

        numbers: of the prompts, from which their seeds follow where the temperature is above 0; 0, 1, ... if
        left out. top_logprobs: of every token, so many of the likeliest at its place are asked for
        (`pieces`); servers give 20 at most. Errors: ModelError where the endpoint is taken to be down: it
        never answered anything, or not for many requests in a row; RunError when the budget is used up.
        Questions that it refuses, one by one, do not count for that.
        """
        jobs = []
        for i, (pictures, prompt) in enumerate(zip(images, prompts, strict=True)):
            how = how_of(sampling, starts[i] if starts else "")
            if top_logprobs:
                how["top_logprobs"] = top_logprobs
            if sampling.temperature > 0:
                how |= _seed(sampling, numbers[i] if numbers else i)
            jobs.append(self._requests.job(self._shown(pictures), prompt, how))
        failed: dict[str, ModelError] = {}
        answers = self._answer(jobs, failed)
        return [failed[job.key] if job.key in failed else EndpointReply(**answers[job.key]) for job in jobs]

    def try_letters(
        self,
        images: Sequence[Pictures],
        prompts: Sequence[str],
        letters: Sequence[Sequence[str]],
        locate: Locate,
        sampling: Sampling,
        *,
        starts: Sequence[str] = (),
    ) -> list[Lettered | ModelError]:
        """See `VLM.try_letters`: as the server tells the likeliest tokens at the answer. A letter that is not
        among them has probability 0. Raises ModelError where it does not tell them.
        """
        return endpoint_letters(self, images, prompts, letters, locate, sampling, starts=starts)

    def _watch(self, failed: Mapping[str, ModelError], *, answered: bool) -> None:
        """Tell an endpoint that is down from questions that get no reply. Raises ModelError."""
        lost = [error for error in failed.values() if not isinstance(error, RefusedError)]
        self._given_up = 0 if answered or not lost else self._given_up + len(lost)
        if self._given_up >= GIVEN_UP or (self._given_up and not self.cache.knows(str(self.address))):
            raise ModelError(
                f"none of {self._given_up} requests in a row was answered; the last one: {lost[-1]}"
            )

    def option_probabilities(
        self, images: Sequence[Pictures], prompts: Sequence[str], answers: Sequence[str], *, batch: int = 128
    ) -> Tensor:
        """probability_P (float32) of each given text as the reply to its prompt, length-normalised: exp(mean
        log-probability of its tokens).

        The text is put as the beginning of the assistant's turn, and its tokens are those at the end of the
        prompt that the server scored. Errors as for `generate`; ModelError where the server does not score
        prompts.
        """
        if not len(images) == len(prompts) == len(answers) or not all(answers):
            raise DataError(
                f"{len(images)} pictures, {len(prompts)} prompts and {len(answers)} texts: as many are "
                f"needed, and no empty text"
            )
        jobs = [
            self._requests.job(self._shown(image), prompt, {"scored": text})
            for image, prompt, text in zip(images, prompts, answers, strict=True)
        ]
        refused: dict[str, ModelError] = {}
        try:
            found = self._answer(jobs, refused, only=RefusedError)
            _raise_refused([[refused[job.key]] if job.key in refused else [] for job in jobs])
        except ModelError as error:
            places = error.places if isinstance(error, RefusedError) else {}
            message = (
                f"{error} Asked was the probability of a text, which needs a server that scores prompts, "
                f"such as vLLM; judge.dense_weight=0 does without."
            )
            raise (RefusedError(message, places) if places else ModelError(message)) from error
        return torch.tensor([found[job.key]["probability"] for job in jobs], dtype=torch.float32)

    def resting(self) -> AbstractContextManager[None]:
        """Nothing: its weights are elsewhere."""
        return nullcontext()

    def spending(self) -> dict[str, float]:
        """What this address has cost since its cache was begun: requests, failures, tokens, and the price
        where prices are set.
        """
        spent: dict[str, float] = dict(self.cache.spent(str(self.address)))
        prices = self.settings.price_per_million
        if prices is not None:
            spent["cost"] = (
                spent["prompt_tokens"] * prices.prompt + spent["completion_tokens"] * prices.completion
            ) / 1e6
        return spent

    def sample(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        how: Mapping[str, Any],
        numbers: Sequence[int] = (),
    ) -> list[list[dict[str, Any]]]:
        """n replies to every prompt: text, finished, token_ids and logprobs of each.

        how: see `orders.how_to_ask`. numbers: as for `try_each`. Every reply has a seed, at any temperature.
        Errors as for `generate`; ModelError where the server does not tell tokens and log-probabilities.
        """
        asked, own = how_of(sampling) | dict(how), numbers or range(len(prompts))
        jobs = [
            [
                self._requests.job(self._shown(image), prompt, asked | _seed(sampling, number, j))
                for j in range(sampling.n)
            ]
            for number, image, prompt in zip(own, images, prompts, strict=True)
        ]
        answers = self._answer([job for own in jobs for job in own])
        return [[answers[job.key] for job in own] for own in jobs]

    def tell(self, order: Order) -> None:
        """See `Courier.tell`."""
        _run(Courier(self._client, self.address, self.settings, self.cache, self._key).tell(order))

    # ---- requests

    def _shown(self, pictures: Pictures) -> list[Image]:
        """The pictures that the server is shown."""
        return [self._reduced(image) for image in each_picture(pictures)]

    def _reduced(self, rgb: Image) -> Image:
        if self.max_pixels is None or rgb.width * rgb.height <= self.max_pixels:
            return rgb
        scale = math.sqrt(self.max_pixels / (rgb.width * rgb.height))
        return rgb.resize(
            (max(1, int(rgb.width * scale)), max(1, int(rgb.height * scale))), Resampling.LANCZOS
        )

    def _answer(
        self,
        jobs: Sequence[Job],
        failed: dict[str, ModelError] | None = None,
        only: type[ModelError] = ModelError,
    ) -> dict[str, dict[str, Any]]:
        """Key -> answer of every job, from the cache where it is known; of jobs with the same key one is
        asked.

        failed: takes the errors of that kind (only) of requests that are given up, by their keys; any other
        error is raised, the first one.
        """
        wanted = {job.key: job for job in jobs}
        known = {key: self.cache.get(key) for key in wanted}
        missing = [wanted[key] for key, answer in known.items() if answer is None]
        if missing:
            _run(self._ask(missing, failed, only))
            if failed is not None:
                self._watch(failed, answered=len(failed) < len(missing))
            known |= {job.key: self.cache.get(job.key) for job in missing}
        return {key: answer for key, answer in known.items() if answer is not None}

    async def _ask(
        self, jobs: Sequence[Job], failed: dict[str, ModelError] | None, only: type[ModelError]
    ) -> None:
        """Ask the server and keep the answers. After an error that is raised no new request is begun, and
        those under way may still come back.
        """
        courier = Courier(self._client, self.address, self.settings, self.cache, self._key)
        queue, errors = iter(jobs), list[SparringError]()

        async def work() -> None:
            for job in queue:
                try:
                    self.cache.put(
                        job.key, str(self.address), job.asked, await courier.fetch(job.body(), job.read)
                    )
                except SparringError as error:
                    if failed is not None and isinstance(error, only):
                        failed[job.key] = error
                        continue
                    errors.append(error)
                    courier.failed = True
                except BaseException:
                    courier.failed = True  # nobody would wait for what the others asked from here on
                    raise
                if courier.failed:
                    return

        await asyncio.gather(*(work() for _ in range(min(self.settings.concurrency, len(jobs)))))
        if errors:
            raise errors[0]

    @cached_property
    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=self.address.url,
            api_key=self._key or NO_KEY,
            max_retries=0,
            timeout=self.settings.deadline,
            # Otherwise the client library takes both from its own environment variables and tells them to
            # whatever server this is.
            default_headers={"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()},
        )


def _seed(sampling: Sampling, *place: int) -> dict[str, int]:
    return {"seed": derive_seed(sampling.seed, *place) % 2**31}


def _raise_refused(errors: Sequence[Sequence[ModelError]]) -> None:
    """Raises RefusedError, with the places, where there is any; errors: of each prompt its requests'."""
    places = {i: str(own[0]) for i, own in enumerate(errors) if own}
    if places:
        more = f" and {len(places) - 1} more of {len(errors)} prompts" if len(places) > 1 else ""
        raise RefusedError(next(iter(places.values())) + more, places)


def _key(variable: str) -> str | None:
    """The API key in that environment variable; None where there is none. Raises ModelError for one that no
    request can carry.
    """
    key = os.environ.get(variable, "").strip()
    if not all("!" <= sign <= "~" for sign in key):
        raise ModelError(
            f"the environment variable {variable} holds no API key: it has spaces, or signs beyond ASCII. "
            f"Set it anew."
        )
    return key or None


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop that serves this process's endpoints, in a thread that ends with it."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="endpoints", daemon=True).start()
    return loop


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:  # stopped by hand: nothing more is to be asked
        future.cancel()
        raise
