"""Brings one request to an OpenAI-compatible endpoint and its answer back: with a deadline, again after a
fault, within a budget.

Tried again: connections that fail or are cut, a deadline that passes, HTTP 408, 409, 425, 429 and 5xx,
answers that are no chat completion, and replies that ended in an error or are empty without a reason. Given
up at once: every other 4xx (a wrong key, an unknown model, a field that the server does not take, a filter's
refusal), a model's refusal, and an account without quota.

The wait before try k is drawn from [d/2, d], d = first_wait * 2^k, at most `longest_wait`; a server's
Retry-After is waited for where it is longer.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from sparring.config import EndpointSettings
from sparring.data.errors import ModelError, RefusedError, RunError
from sparring.data.files import storable
from sparring.models.vlms.address import Address
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.orders import Order
from sparring.models.vlms.replies import FILTER_CODES, Fault, counted, is_completion, may_pass, told

LONGEST_RETRY_AFTER = 600.0  # a server that asks for more will not be back during this run
SPENT_TOKENS = ("prompt_tokens", "completion_tokens")
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")


class Courier:
    """Requests to one address. `failed` stops further tries of all requests under way, once one of them has
    been given up.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        address: Address,
        settings: EndpointSettings,
        cache: AnswerCache,
        key: str | None,
    ) -> None:
        self.client, self.address, self.settings, self.cache = client, address, settings, cache
        self.failed = False
        self._key = key
        # Jitter is there to keep clients apart, so it must not follow from a seed that they share.
        self._random = random.SystemRandom()

    async def fetch(
        self, body: Mapping[str, Any], read: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """What `read` makes of the answer to one chat-completion request; it raises Fault where the request
        is to be made again.

        Errors: ModelError when it is given up, RefusedError (one of these) where this question alone gets no
        reply, RunError when the budget is used up.
        """
        return await self._patiently(lambda: self._complete(body, read))

    async def tell(self, order: Order) -> None:
        """Have the server do something. Errors as for `fetch`."""
        await self._patiently(lambda: self._post(order))

    async def _patiently(self, attempt: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        tries = self.settings.retries + 1
        for number in range(tries):
            self._take_from_budget()
            try:
                async with asyncio.timeout(self.settings.deadline):
                    return await self._try(attempt)
            except TimeoutError:
                fault = Fault(f"no answer within {self.settings.deadline:g} s")
            except Fault as found:
                fault = found
            except RefusedError as error:
                self.cache.spend(str(self.address), failures=1)
                raise RefusedError(f"endpoint {self.address}: {self._scrubbed(str(error))}") from error
            except ModelError:
                self.cache.spend(str(self.address), failures=1)
                raise
            self.cache.spend(str(self.address), failures=1)
            if number + 1 == tries or self.failed:
                break
            await asyncio.sleep(self._wait(number, fault.retry_after))
        raise ModelError(
            f"endpoint {self.address}: given up after {number + 1} tries; the last one: "
            f"{self._scrubbed(str(fault))}. What was answered so far is kept: start again when the server is "
            f"well, or raise endpoint.retries or endpoint.deadline."
        )

    def _take_from_budget(self) -> None:
        """Count a request before it is made. A cut-off process counts it too, as the server may have answered
        it.
        """
        if not self.cache.take(str(self.address), self.settings.budget):
            raise RunError(
                f"endpoint {self.address}: the budget of {self.settings.budget} requests is used up. What "
                f"was answered is kept: raise endpoint.budget and start again to go on from there."
            )

    def _wait(self, number: int, retry_after: float) -> float:
        longest = min(self.settings.first_wait * 2.0**number, self.settings.longest_wait)
        drawn = longest * (0.5 + 0.5 * self._random.random())
        return drawn if retry_after <= drawn else retry_after + drawn - longest / 2

    async def _try(self, attempt: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        try:
            return await attempt()
        except openai.APIStatusError as error:
            message = f"HTTP {error.status_code}: {self._said(error)}"
            if error.code in FILTER_CODES:
                raise RefusedError(message) from error
            if error.code == "insufficient_quota" or not may_pass(error.status_code):
                raise ModelError(f"endpoint {self.address}: {message}{_advice(error)}") from error
            retry_after = _seconds(error.response.headers.get("retry-after"))
            if retry_after > LONGEST_RETRY_AFTER:
                raise ModelError(
                    f"endpoint {self.address}: HTTP {error.status_code}, and it asks to wait "
                    f"{retry_after:.0f} s. Start again then."
                ) from error
            raise Fault(message, retry_after) from error
        except openai.APIConnectionError as error:
            raise Fault(f"the connection failed ({error.__cause__ or error})") from error

    async def _complete(
        self, body: Mapping[str, Any], read: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        # The raw text is read here, because a broken one is a fault like others and must not raise what the
        # client library does.
        response = await self.client.chat.completions.with_raw_response.create(**body)
        answer = self._json(response.content)
        if isinstance(answer, dict):
            self.cache.spend(str(self.address), **{name: counted(answer, name) for name in SPENT_TOKENS})
        if not is_completion(answer):
            raise self._no_completion(answer)
        return read(answer)

    def _json(self, raw: bytes) -> Any:
        """The answer as JSON, without halves of surrogate pairs, which nothing that keeps it could hold."""
        try:
            return json.loads(storable(json.dumps(json.loads(raw), ensure_ascii=False)))
        # json.JSONDecodeError and UnicodeDecodeError among them
        except (ValueError, RecursionError) as error:
            begins = self._scrubbed(raw[:100].decode("utf-8", "replace"))
            raise Fault(f"the answer is no JSON ({error}); it begins {begins!r}") from error

    def _no_completion(self, answer: Any) -> Exception:
        """What to make of HTTP 200 with something else: an error object says itself whether it may pass."""
        error = answer.get("error") if isinstance(answer, dict) else None
        if not error:
            return Fault(f"the answer is no chat completion: {self._scrubbed(json.dumps(answer))[:200]}")
        words, code = told(error)
        if code in FILTER_CODES:
            return RefusedError(f"{code}: {words}")
        if isinstance(code, int) and not may_pass(code):
            return ModelError(f"endpoint {self.address}: HTTP 200 with error {code}: {self._scrubbed(words)}")
        return Fault(f"HTTP 200 with an error: {self._scrubbed(words)}")

    async def _post(self, order: Order) -> dict[str, Any]:
        url = self.address.url.removesuffix("/v1") + order.path
        try:
            answer = await self.client.post(url, body=dict(order.body), cast_to=str)
        except (openai.BadRequestError, openai.NotFoundError) as error:
            if order.done_before is None or order.done_before not in self._said(error):
                raise
            return {}
        # An empty or cut answer tells nothing, and asking again does no harm.
        if not order.done(answer):
            raise Fault(f"the answer is no success: {self._scrubbed(answer)[:200]}")
        return {}

    def _said(self, error: openai.APIStatusError) -> str:
        """What the server said, short, without the key should it have repeated it."""
        body = error.body
        message = body.get("message", body) if isinstance(body, dict) else body or error.message
        return self._scrubbed(str(message))[:500]

    def _scrubbed(self, text: str) -> str:
        return storable(text.replace(self._key, "***") if self._key else text)


def _advice(error: openai.APIStatusError) -> str:
    """Which setting says otherwise what the server does not take; nothing where that is not known."""
    if error.param in LIMIT_FIELDS:
        (other,) = (name for name in LIMIT_FIELDS if name != error.param)
        return f" Set limit_field={other} of this endpoint, as in defender.endpoint.limit_field."
    if error.param == "temperature":
        return (
            " This model cannot be asked greedily: serve another, or set another temperature where there "
            "is such a setting."
        )
    return ""


def _seconds(header: str | None) -> float:
    """Retry-After in seconds, given as a number or a date (RFC 9110, section 10.2.3); 0 where it says
    nothing.
    """
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time())
