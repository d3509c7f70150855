"""What stands in a chat completion: a reply, or why there is none.

Servers put replies, thoughts, refusals and faults into many fields, and most of them send HTTP 200 with
each. What is no reply never becomes an empty one: a fault that may pass is asked for again, anything else is
told.
"""

from __future__ import annotations

import math
from typing import Any

from sparring.data.errors import RefusedError

THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
CUT_OFF = (
    "length",
    "max_tokens",
    "model_length",
    "max_output_tokens",
    "model_context_window_exceeded",
    "incomplete",
)
FAULTY = ("error", "abort", "cancelled", "failed", "timeout", "network_error", "insufficient_system_resource")
FILTERED = (
    "content_filter",
    "sensitive",
    "refusal",
    "blocked",
    "guardrail_intervened",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "image_safety",
)
FILTER_CODES = (
    *FILTERED,
    "content_policy_violation",
    "data_inspection_failed",
    "moderation_blocked",
    "invalid_prompt",
)
PASSING = (408, 409, 425, 429)
TOKENS_OF_NOTHING = 2  # the end of a turn, and maybe a line's
UNLIKELY = -9999.0  # what hosted models give for "not among the likeliest"
EXACT = 2**53


class Fault(Exception):
    """A request failed in a way that may pass. `retry_after`: seconds that the server asked to wait."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def read_reply(answer: dict[str, Any]) -> dict[str, Any]:
    """Text, tokens and `finished` of a completion's first choice; with `from` where the text stood in the
    field of a thought.

    A thought stands in for a reply only where there is none: a server that takes the whole reply for a
    thought leaves the answer there. One that was cut off before its end is given as an unfinished one, in a
    tag. Errors: Fault for what may pass, RefusedError for what will not.
    """
    choice = answer["choices"][0]
    message = choice["message"]
    reason = str(choice.get("finish_reason") or "").lower()
    error = choice.get("error") or message.get("error")
    if error or reason in FAULTY:
        words, code = told(error)
        if isinstance(code, int) and not may_pass(code):
            raise RefusedError(f"the reply ended in error {code}: {words}")
        raise Fault(f"the reply ended in an error: {words or reason}")
    if reason in FILTERED:
        raise RefusedError(f"the server's filter let no reply through (finish_reason {reason})")
    text, tokens, cut = _text(message.get("content")), counted(answer, "completion_tokens"), reason in CUT_OFF
    found = {"text": text, "tokens": tokens, "finished": not cut}
    if text.strip():
        return found
    refusal = message.get("refusal") or _refusal(message.get("content"))
    if refusal:
        raise RefusedError(f"the model refused to answer: {str(refusal)[:500]}")
    if message.get("tool_calls") or message.get("function_call"):
        raise RefusedError(f"the model called a tool in place of a reply: {_called(message)}")
    for field in THOUGHTS:
        thought = _text(message.get(field))
        if thought.strip():
            return found | {"text": f"<think>{thought}" if cut else thought, "from": field}
    if cut or 0 < tokens <= TOKENS_OF_NOTHING:
        return found
    raise Fault(f"the reply is empty (finish_reason {reason or 'not given'}, {tokens} tokens counted)")


def is_completion(answer: Any) -> bool:
    """Does this hold a choice with a message that can be read?"""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    message = choices[0].get("message")
    return isinstance(message, dict) and isinstance(message.get("content"), str | list | None)


def may_pass(status: int) -> bool:
    """Is an HTTP status one that the same request may not have the next time?"""
    return status in PASSING or status >= 500


def told(error: Any) -> tuple[str, int | str | None]:
    """(what an error object says, short; its code, a number where it is an HTTP status)."""
    if not isinstance(error, dict):
        return str(error or "")[:500], None
    code = error.get("code", error.get("status"))
    code = int(code) if isinstance(code, str) and code.isdecimal() else code
    return str(error.get("message") or error)[:500], code if isinstance(code, int | str) else None


def counted(answer: dict[str, Any], name: str) -> int:
    """Tokens as the server counted them; 0 where it did not."""
    usage = answer.get("usage")
    value = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= EXACT:
        return 0
    return int(value)


def read_pieces(answer: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """The tokens of a reply with the likeliest ones at their places, as far as the server tells them.

    A token whose log-probability is null, no number, or the mark of one that is not among the likeliest is
    left out: nothing is known of it.
    """
    logprobs = answer["choices"][0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    pieces = []
    for token in content if isinstance(content, list) else ():
        if not isinstance(token, dict) or not isinstance(token.get("token"), str):
            return []  # without every token no place in the text is known
        others = token.get("top_logprobs")
        likeliest = [
            other
            for other in (*(others if isinstance(others, list) else ()), token)
            if isinstance(other, dict)
        ]
        pieces.append(
            (
                token["token"],
                {
                    str(own.get("token")): own["logprob"]
                    for own in reversed(likeliest)
                    if _is_known(own.get("logprob"))
                },
            )
        )
    return pieces


def _is_known(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > UNLIKELY
    )


def _text(content: Any) -> str:
    """A text that came whole or in parts; parts that are thoughts or pictures are no text of the reply."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    texts = (part if isinstance(part, str) else _of_part(part) for part in parts)
    return "".join(texts)


def _of_part(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type", "text") not in (
        "text",
        "output_text",
        "reasoning.text",
    ):
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _refusal(content: Any) -> Any:
    parts = content if isinstance(content, list) else ()
    return next((part["refusal"] for part in parts if isinstance(part, dict) and part.get("refusal")), None)


def _called(message: dict[str, Any]) -> str:
    calls = message.get("tool_calls") or [{"function": message.get("function_call")}]
    first = calls[0] if isinstance(calls, list) else calls
    function = first.get("function") if isinstance(first, dict) else None
    return str(function.get("name") if isinstance(function, dict) else first)[:200]
