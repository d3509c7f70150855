"""What one request asks of an endpoint: its key, its body, and what is read from the answer to it."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from sparring.config import EndpointSettings
from sparring.data.errors import ModelError
from sparring.data.files import storable
from sparring.data.images import image_sha256
from sparring.models.vlms.address import Address
from sparring.models.vlms.answer_cache import answer_key
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.replies import counted, read_pieces, read_reply

ROUNDING = 1e-3
"""How far above 0 a log-probability may be, by rounding."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request that may have to be made: its key, what is asked in words, its body once it is needed, and
    what reads the answer.
    """

    key: str
    asked: Mapping[str, Any]
    body: Callable[[], dict[str, Any]]
    read: Callable[[dict[str, Any]], dict[str, Any]]


def how_of(sampling: Sampling, start: str = "") -> dict[str, Any]:
    """The settings that stand in a request's key, without its seed; start: what the reply is begun with."""
    how: dict[str, Any] = {
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_new_tokens,
        "top_p": sampling.top_p,
    }
    return how | {
        name: value
        for name, value in (("trial", sampling.trial), ("top_k", sampling.top_k), ("start", start))
        if value
    }


class Requests:
    """Writes the requests to one address, and reads its answers."""

    def __init__(self, address: Address, settings: EndpointSettings) -> None:
        self.address, self.settings = address, settings

    def job(self, images: Sequence[Image], prompt: str, how: Mapping[str, Any]) -> Job:
        """The request for a text about these pictures; how: see `how_of`, with `seed`, `top_logprobs`,
        `tokens` (a reply with its tokens: True, or the field by which the server is asked for their numbers),
        `model` or `lora_path` (who is asked), `weights` (of which name; not sent), or `scored` alone (how
        likely that text is as the reply).
        """
        prompt = storable(prompt)
        hashes = [image_sha256(image) for image in images]
        asked = {
            "url": self.address.url,
            "model": self.address.model,
            # One picture by itself, so that answers of before are found.
            "image": hashes[0] if len(hashes) == 1 else hashes,
            "prompt": prompt,
            "how": dict(how),
            "extra_body": self.settings.extra_body,
        }
        return Job(
            answer_key(asked),
            asked,
            lambda: self._body(images, prompt, how),
            lambda answer: self._read(answer, how),
        )

    def _body(self, images: Sequence[Image], prompt: str, how: Mapping[str, Any]) -> dict[str, Any]:
        shown = [{"type": "image_url", "image_url": {"url": _data_uri(image)}} for image in images]
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}
        ]
        common: dict[str, Any] = {"model": how.get("model", self.address.model), "messages": turns}
        start = how.get("scored", how.get("start"))
        own_turn: dict[str, Any] = {}
        if start is not None:
            turns.append({"role": "assistant", "content": start})
            own_turn = {"add_generation_prompt": False, "continue_final_message": True}
        if "scored" in how:
            scoring = {"prompt_logprobs": 0} | own_turn
            return common | {
                "max_tokens": 1,
                "temperature": 0.0,
                "extra_body": scoring | self.settings.extra_body,
            }
        limit = {self.settings.limit_field: how["max_new_tokens"]}
        sampling = {name: how[name] for name in ("temperature", "seed", "top_logprobs") if name in how}
        if "top_logprobs" in how:
            sampling["logprobs"] = True
        if how["top_p"] < 1:
            sampling["top_p"] = how["top_p"]
        further = {"top_k": how["top_k"]} if "top_k" in how else {}
        if "tokens" in how:
            sampling["logprobs"] = True
            further["return_tokens_as_token_ids" if how["tokens"] is True else str(how["tokens"])] = True
        if "lora_path" in how:
            further["lora_path"] = how["lora_path"]
        return common | limit | sampling | {"extra_body": own_turn | further | self.settings.extra_body}

    def _read(self, answer: dict[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
        if "scored" in how:
            return {"probability": self._probability(answer, str(how["scored"]))}
        if "tokens" in how:
            return self._tokens(answer)
        return self._reply(answer) | ({"pieces": read_pieces(answer)} if "top_logprobs" in how else {})

    def _reply(self, answer: dict[str, Any]) -> dict[str, Any]:
        """See `read_reply`; where a thought stands in for the reply, the user is told, once."""
        reply = read_reply(answer)
        field = reply.pop("from", None)
        if field is not None and reply["finished"]:
            warnings.warn(
                f"endpoint {self.address}: replies come without content, and what stands in their field "
                f"{field} is read as the reply. If the model does think first, raise max_new_tokens or "
                f"serve it without its reasoning parser.",
                stacklevel=2,
            )
        return reply

    def _tokens(self, answer: dict[str, Any]) -> dict[str, Any]:
        """A reply with its tokens, whose numbers stand beside it, or in the answer as "token_id:17"."""
        choice = answer["choices"][0]
        try:
            content: Any = (choice.get("logprobs") or {}).get("content")
            logprobs = [_logprob(entry["logprob"]) for entry in content]
            beside = choice.get("token_ids")
            told = [entry["token"] for entry in content] if beside is None else beside
            numbers = [int(str(token).removeprefix("token_id:")) for token in told]
            if len(numbers) != len(logprobs):
                raise ValueError(f"{len(numbers)} tokens with {len(logprobs)} log-probabilities")
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(
                f"endpoint {self.address.url}: the server does not tell its replies' tokens and their "
                f"log-probabilities (logprobs and return_tokens_as_token_ids, or return_token_ids), which "
                f"training needs."
            ) from error
        reply = self._reply(answer)
        return {
            "text": reply["text"],
            "finished": reply["finished"],
            "token_ids": numbers,
            "logprobs": logprobs,
            "prompt_tokens": counted(answer, "prompt_tokens"),
        }

    def _probability(self, answer: dict[str, Any], text: str) -> float:
        """From the scored prompt: its last tokens, as many as spell the text."""
        scored = answer.get("prompt_logprobs")
        if not isinstance(scored, list):
            raise ModelError(
                f"endpoint {self.address.url}: the server does not score prompts (prompt_logprobs is not in "
                f"its answer)."
            )
        spelled, logprobs = "", list[float]()
        for entry in reversed(scored):
            token = next(iter(entry.values())) if isinstance(entry, dict) and len(entry) == 1 else None
            if (
                len(spelled) >= len(text)
                or not isinstance(token, dict)
                or not isinstance(token.get("logprob"), int | float)
            ):
                break
            spelled = str(token.get("decoded_token")) + spelled
            logprobs.append(token["logprob"])
        if spelled != text:
            raise ModelError(
                f"endpoint {self.address.url}: the scored prompt ends with {spelled!r}, not with the text "
                f"{text!r} that was to be scored."
            )
        mean = math.fsum(logprobs) / len(logprobs)
        if not mean <= ROUNDING:
            raise ModelError(f"endpoint {self.address.url}: {logprobs} are no log-probabilities.")
        return min(1.0, math.exp(mean))


def _logprob(value: Any) -> float:
    """A token's log-probability. Raises ValueError, or what `float` does, for what is none."""
    found = float(value)
    if not -math.inf < found <= ROUNDING:
        raise ValueError(f"{value} is no log-probability")
    return found


def _data_uri(image: Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
