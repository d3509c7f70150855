"""How likely each option's letter was at the place where a reply names one.

Of a model on this machine the distribution is computed anew behind the reply's own tokens; of one behind an
endpoint it is what the server said of the likeliest tokens there. Neither is renormalised here: these are
log-probabilities among all tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sparring.data.errors import ModelError

if TYPE_CHECKING:
    from sparring.models.vlms.base import Completion, Pictures, Reply, Sampling
    from sparring.models.vlms.endpoint import EndpointReply, EndpointVLM
    from sparring.models.vlms.local import LocalVLM

MOST = 20  # alternatives at a token that servers give at most
Locate = Callable[[int, str], int | None]
"""(number of the prompt, text of its reply) -> the place of the answer's letter in that text; None where it
has none.
"""


@dataclass(frozen=True, slots=True)
class Lettered:
    """A greedy reply and the log-probability of every option's letter at its answer; None where it names no
    letter, or shares its token.

    Behind an endpoint a letter that is not among the likeliest 20 tokens has probability 0 (log-probability
    -inf).
    """

    text: str
    tokens: int
    finished: bool
    logprobs: tuple[float, ...] | None


def local_letters(
    vlm: LocalVLM,
    images: Sequence[Pictures],
    prompts: Sequence[str],
    letters: Sequence[Sequence[str]],
    locate: Locate,
    sampling: Sampling,
    *,
    starts: Sequence[str] = (),
) -> list[Lettered | ModelError]:
    """`VLM.try_letters` of a model on this machine."""
    found = vlm.try_each(images, prompts, sampling, starts=starts)
    said = {i: reply for i, reply in enumerate(found) if not isinstance(reply, ModelError)}
    scores = local_logprobs(
        vlm,
        [images[i] for i in said],
        [prompts[i] for i in said],
        list(said.values()),
        [letters[i] for i in said],
        [locate(i, reply.text) for i, reply in said.items()],
        starts=[starts[i] for i in said] if starts else (),
        batch=sampling.batch,
    )
    scored = {i: _lettered(reply, own) for (i, reply), own in zip(said.items(), scores, strict=True)}
    return [reply if isinstance(reply, ModelError) else scored[i] for i, reply in enumerate(found)]


def endpoint_letters(
    vlm: EndpointVLM,
    images: Sequence[Pictures],
    prompts: Sequence[str],
    letters: Sequence[Sequence[str]],
    locate: Locate,
    sampling: Sampling,
    *,
    starts: Sequence[str] = (),
) -> list[Lettered | ModelError]:
    """`VLM.try_letters` of a model behind an endpoint."""
    replies = vlm.try_each(images, prompts, sampling, starts=starts, top_logprobs=MOST)
    with_text = [reply for reply in replies if not isinstance(reply, ModelError) and reply.text]
    if with_text and not any(reply.pieces for reply in with_text):
        raise ModelError(
            f"endpoint {vlm.address}: its replies carry no log-probabilities, so option letters cannot be "
            f"scored. Serve the model with log-probabilities, or leave them out."
        )
    return [
        reply
        if isinstance(reply, ModelError)
        else _lettered(reply, _among(reply, own, locate(i, reply.text)))
        for i, (reply, own) in enumerate(zip(replies, letters, strict=True))
    ]


def _lettered(reply: Reply, logprobs: tuple[float, ...] | None) -> Lettered:
    return Lettered(reply.text, reply.tokens, reply.finished, logprobs)


@torch.inference_mode()
def local_logprobs(
    vlm: LocalVLM,
    images: Sequence[Pictures],
    prompts: Sequence[str],
    replies: Sequence[Completion],
    letters: Sequence[Sequence[str]],
    places: Sequence[int | None],
    *,
    starts: Sequence[str] = (),
    batch: int = 128,
) -> list[tuple[float, ...] | None]:
    """Log-probabilities of `letters[i]` at the token of reply i that holds the character at `places[i]`,
    behind the tokens before it.
    """
    found: list[tuple[float, ...] | None] = [None] * len(replies)
    todo: list[tuple[int, list[list[int]]]] = []
    for i, (reply, place) in enumerate(zip(replies, places, strict=True)):
        spelled = (
            None if place is None else _spelled(vlm.processor.tokenizer, reply.token_ids, place, letters[i])
        )
        if spelled is not None:
            before, tokens = spelled
            todo.append((i, [[*reply.token_ids[:before], token] for token in tokens]))
    for start in range(0, len(todo), batch):
        part = todo[start : start + batch]
        rows = [i for i, _ in part]
        encoded = vlm.encode(
            [images[i] for i in rows], [prompts[i] for i in rows], [starts[i] for i in rows] if starts else ()
        )
        logprobs_NT, mask_NT = vlm.completion_logprobs(encoded, [own for _, own in part])
        last_N = logprobs_NT.gather(1, mask_NT.sum(1, keepdim=True) - 1).squeeze(1).tolist()
        for i, own in part:
            found[i], last_N = tuple(last_N[: len(own)]), last_N[len(own) :]
    return found


def _spelled(
    tokenizer: Any, token_ids: Sequence[int], place: int, letters: Sequence[str]
) -> tuple[int, list[int]] | None:
    """(number of the tokens before the letter's, the token that each letter would be there); None where a
    letter is no token of its own.
    """
    before = ""
    for number in range(len(token_ids)):
        text = tokenizer.decode(token_ids[: number + 1], skip_special_tokens=True)
        if len(text) > place:
            break
        before = text
    else:
        return None
    piece, raw = text[len(before) :], tokenizer.convert_ids_to_tokens(token_ids[number])
    letter = text[place]
    if sum(char.isalnum() for char in piece) != 1 or raw.count(letter) != 1:
        return None
    variants = [raw.replace(letter, other) for other in letters]
    tokens = [tokenizer.convert_tokens_to_ids(variant) for variant in variants]
    known = [
        token is not None and tokenizer.convert_ids_to_tokens(token) == variant
        for token, variant in zip(tokens, variants, strict=True)
    ]
    return (number, tokens) if all(known) else None


def _among(reply: EndpointReply, letters: Sequence[str], place: int | None) -> tuple[float, ...] | None:
    """The letters' log-probabilities among the likeliest tokens at the piece that holds the character at
    `place`.
    """
    # Tokens that do not spell the text (halves of a sign, a thought of its own before it) tell no place in
    # it.
    if place is None or not "".join(piece for piece, _ in reply.pieces).startswith(reply.text):
        return None
    end = 0
    for piece, alternatives in reply.pieces:
        start, end = end, end + len(piece)
        if end > place:
            if sum(char.isalnum() for char in piece) != 1:
                return None
            letter = piece[place - start]
            return tuple(alternatives.get(piece.replace(letter, other), -math.inf) for other in letters)
    return None
