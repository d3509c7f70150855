"""What servers send in place of a reply, over real HTTP: read, asked again, or told; never kept as an empty
answer.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from endpoint_server import dice, question, serving
from small_vlms import noise_pictures
from sparring.config import EndpointSettings
from sparring.data.errors import ModelError, RefusedError
from sparring.data.files import storable
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.endpoint import EndpointReply, EndpointVLM
from sparring.models.vlms.replies import counted, read_pieces, read_reply

PICTURES = noise_pictures(4)
PROMPTS = [f"Question {number}?" for number in range(4)]
BOX = "\\boxed{A}"


def endpoint(url: str, cache: Path | None = None, **settings: Any) -> EndpointVLM:
    return EndpointVLM(
        f"{url}#toy", EndpointSettings(**({"first_wait": 0.01, "retries": 2} | settings)), cache=cache
    )


def asked(said: dict[str, Any], cache: Path | None = None) -> tuple[EndpointReply | ModelError, int]:
    """The reply to a question whose server always answers like this, and how often it was asked."""
    with serving(lambda image, body: dict(said)) as server:
        try:
            (found,) = endpoint(server.url, cache).try_each(PICTURES[:1], PROMPTS[:1], Sampling(8))
        except ModelError as error:
            found = error
        return found, len(server.lines)


READ: dict[str, tuple[dict[str, Any], str]] = {
    "reasoning_content alone": (
        {"message": {"reasoning_content": f"The cup is left. {BOX}"}},
        f"The cup is left. {BOX}",
    ),
    "reasoning alone, empty content": ({"text": "", "message": {"reasoning": f"So {BOX}"}}, f"So {BOX}"),
    "white space, then a thought": ({"text": "\n\n", "message": {"reasoning_content": BOX}}, BOX),
    "details of a thought": (
        {"text": "", "message": {"reasoning_details": [{"type": "reasoning.text", "text": BOX}]}},
        BOX,
    ),
    "a field called thinking": ({"text": None, "message": {"thinking": f"So {BOX}"}}, f"So {BOX}"),
    "content beside a thought": ({"text": BOX, "message": {"reasoning_content": "B? No."}}, BOX),
    "parts": ({"text": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": BOX}]}, BOX),
    "parts of one text": (
        {"text": [{"type": "text", "text": "\\boxed"}, {"type": "output_text", "text": "{A}"}]},
        BOX,
    ),
    "parts that are texts": ({"text": ["\\boxed", "{A}"]}, BOX),
    "a refusal that is null": ({"text": BOX, "message": {"refusal": None, "tool_calls": []}}, BOX),
    "no finish_reason": ({"text": BOX, "choice": {"finish_reason": None}}, BOX),
    "half a surrogate pair": ({"text": f"\ud83d sure {BOX}"}, f"\ufffd sure {BOX}"),
    "the other half": ({"text": f"{BOX}\udca9"}, f"{BOX}\ufffd"),
    "a whole pair": ({"text": f"\U0001f4a9 {BOX}"}, f"\U0001f4a9 {BOX}"),
    "a NUL": ({"text": f"nul \x00 bell \x07 {BOX}"}, f"nul \x00 bell \x07 {BOX}"),
}


@pytest.mark.parametrize("case", READ)
@pytest.mark.filterwarnings("ignore:endpoint")
def test_replies_that_are_read(case: str, tmp_path: Path) -> None:
    said, text = READ[case]
    found, requests = asked(said, tmp_path / "answers.sqlite")
    assert isinstance(found, EndpointReply)
    assert (found.text, found.finished, requests) == (text, True, 1)


NONE: dict[str, tuple[dict[str, Any], str]] = {
    "content filter": (
        {"finish_reason": "content_filter"},
        r"filter let no reply through \(finish_reason content_filter\)",
    ),
    "cut by a filter": (
        {"text": "The ans", "finish_reason": "content_filter"},
        "filter let no reply through",
    ),
    "another filter": ({"text": "", "finish_reason": "SAFETY"}, "finish_reason safety"),
    "a filter of another house": (
        {"text": "The ans", "finish_reason": "sensitive"},
        "finish_reason sensitive",
    ),
    "a refusal that is written out": (
        {"text": "I can't help.", "finish_reason": "refusal"},
        "finish_reason refusal",
    ),
    "refusal": (
        {"message": {"refusal": "I can't help with that."}},
        "refused to answer: I can't help with that",
    ),
    "refusal in a part": ({"text": [{"type": "refusal", "refusal": "No."}]}, "refused to answer: No"),
    "tool call": (
        {
            "message": {"tool_calls": [{"id": "1", "function": {"name": "zoom", "arguments": "{}"}}]},
            "finish_reason": "tool_calls",
        },
        "called a tool in place of a reply: zoom",
    ),
    "the old kind of tool call": (
        {"message": {"function_call": {"name": "look"}}},
        "called a tool in place of a reply: look",
    ),
    "an error of its own": (
        {"text": "", "choice": {"error": {"code": 400, "message": "no such picture"}}},
        "error 400: no such picture",
    ),
    "filter by HTTP": (
        {"status": 400, "text": json.dumps({"error": {"message": "policy", "code": "content_filter"}})},
        "HTTP 400: policy",
    ),
    "filter in an error of HTTP 200": (
        {"whole": {"error": {"message": "no", "code": "content_policy_violation"}}},
        "policy_violation: no",
    ),
}


@pytest.mark.parametrize("case", NONE)
def test_what_the_model_or_its_filter_refuses_is_told_and_not_asked_again_at_once(
    case: str, tmp_path: Path
) -> None:
    said, words = NONE[case]
    cache = tmp_path / "answers.sqlite"
    found, requests = asked(said, cache)
    assert isinstance(found, RefusedError)
    assert requests == 1
    with pytest.raises(RefusedError, match=words):
        raise found
    assert not AnswerCache(cache).knows(_only_address(cache))


def _only_address(cache: Path) -> str:
    import sqlite3

    return str(sqlite3.connect(cache).execute("SELECT address FROM spending").fetchone()[0])


FAULTY: dict[str, tuple[dict[str, Any], str]] = {
    "error in the choice": (
        {"text": "", "finish_reason": "error", "choice": {"error": {"code": 502, "message": "Provider"}}},
        "error: Provider",
    ),
    "error with a text": ({"text": "The ans", "finish_reason": "error"}, "ended in an error: error"),
    "aborted": ({"text": "The ans", "finish_reason": "abort"}, "ended in an error: abort"),
    "the network, after half a reply": (
        {"text": "The ans", "finish_reason": "network_error"},
        "ended in an error: network_error",
    ),
    "no machine, after half a reply": (
        {"text": "Th", "finish_reason": "insufficient_system_resource"},
        "ended in an error: insuff",
    ),
    "cancelled": ({"text": "The ans", "finish_reason": "cancelled"}, "ended in an error: cancelled"),
    "nothing, though tokens were made": ({"text": "", "tokens": 40}, "reply is empty.*40 tokens"),
    "nothing at all": ({"text": None, "tokens": 0}, "reply is empty"),
    "error of HTTP 200": (
        {"whole": {"error": {"message": "Rate limit", "code": 429}}},
        "HTTP 200 with an error: Rate limit",
    ),
    "error of one text": ({"whole": {"error": "Unexpected endpoint or method."}}, "Unexpected endpoint"),
    "message is null": (
        {"whole": {"choices": [{"message": None, "finish_reason": "stop"}]}},
        "no chat completion",
    ),
    "content is a number": ({"text": 7}, "no chat completion"),
    "another kind of completion": (
        {"whole": {"choices": [{"text": BOX, "finish_reason": "stop"}]}},
        "no chat completion",
    ),
    "deeply nested": ({"status": 200, "text": "[" * 100_000}, "no JSON"),
    "a stream": ({"status": 200, "text": "data: {}"}, "it begins 'data: {}'"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_what_may_pass_is_asked_again_and_then_told(case: str, tmp_path: Path) -> None:
    said, words = FAULTY[case]
    found, requests = asked(said, tmp_path / "answers.sqlite")
    assert not isinstance(found, EndpointReply | RefusedError)
    assert requests == 3
    with pytest.raises(ModelError, match=words):
        raise found


def test_an_error_in_place_of_an_answer_that_will_not_pass_is_not_asked_again() -> None:
    found, requests = asked({"whole": {"error": {"message": "no such model", "code": 404}}})
    assert requests == 1
    with pytest.raises(ModelError, match="HTTP 200 with error 404: no such model"):
        raise found


def test_a_fault_that_passes_leaves_the_answer() -> None:
    replies = iter([{"text": "", "finish_reason": "error"}, {"text": ""}, {"text": BOX}])
    with serving(lambda image, body: next(replies)) as server:
        (found,) = endpoint(server.url).try_each(PICTURES[:1], PROMPTS[:1], Sampling(8))
    assert found == EndpointReply(BOX, 7, True)


def test_replies_that_are_empty_or_cut_off_by_the_model_itself() -> None:
    assert (
        read_reply(
            {
                "choices": [{"message": {"content": ""}, "finish_reason": "stop"}],
                "usage": {"completion_tokens": 1},
            }
        )["text"]
        == ""
    )
    thought, _ = asked({"message": {"reasoning_content": "Hmm let me"}, "finish_reason": "length"})
    assert thought == EndpointReply("<think>Hmm let me", 7, False)
    hidden, _ = asked({"finish_reason": "MAX_TOKENS"})
    assert hidden == EndpointReply("", 7, False)


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "model_length", "incomplete"])
def test_replies_that_reached_a_limit_are_unfinished(reason: str) -> None:
    found, _ = asked({"text": "So the cup", "finish_reason": reason})
    assert isinstance(found, EndpointReply)
    assert (found.text, found.finished) == ("So the cup", False)


def test_the_user_is_told_once_where_thoughts_stand_for_replies() -> None:
    with (
        serving(lambda image, body: {"message": {"reasoning": BOX}}) as server,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("default")
        endpoint(server.url).try_each(PICTURES, PROMPTS, Sampling(8))
    told = [
        str(one.message) for one in caught if "their field reasoning is read as the reply" in str(one.message)
    ]
    assert len(told) == 1


def test_one_refused_question_leaves_the_others_and_an_endpoint_that_refuses_all_is_not_down() -> None:
    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        if "2" in question(body):
            return {"message": {"refusal": "No."}}
        return {"status": 413, "text": "{}"} if "3" in question(body) else dice(image, body)

    with serving(answer) as server:
        vlm = endpoint(server.url)
        found = vlm.try_each(PICTURES, PROMPTS, Sampling(8))
        assert [isinstance(reply, EndpointReply) for reply in found] == [True, True, False, False]
        # it has answered before: these two are not all that it says
        again = vlm.try_each(PICTURES[2:], PROMPTS[2:], Sampling(8))
        assert [type(reply) for reply in again] == [RefusedError, ModelError]
    with serving(lambda image, body: {"finish_reason": "content_filter"}) as server:
        found = endpoint(server.url).try_each(PICTURES, PROMPTS, Sampling(8))
        assert [type(reply) for reply in found] == [RefusedError] * 4
    with (
        serving(lambda image, body: {"status": 413, "text": "{}"}) as server,
        pytest.raises(ModelError, match="none of 4 requests in a row"),
    ):
        endpoint(server.url).try_each(PICTURES, PROMPTS, Sampling(8))


def test_an_error_that_half_a_pair_stands_in_can_be_kept_and_a_question_can_be_asked() -> None:
    said, _ = asked({"status": 400, "text": json.dumps({"error": {"message": "bad \ud83d picture"}})})
    assert "bad \ufffd picture" in str(said)
    with serving(lambda image, body: {"text": question(body)}) as server:
        (found,) = endpoint(server.url).try_each(PICTURES[:1], ["Left \udc00?"], Sampling(8))
    assert isinstance(found, EndpointReply)
    assert found.text == storable("Left \udc00?") == "Left \ufffd?"


@pytest.mark.parametrize("value", [None, "8", True, -1, float("nan"), 10**30, {}])
def test_counts_that_are_none(value: Any) -> None:
    assert counted({"usage": {"completion_tokens": value}}, "completion_tokens") == 0


def test_counts() -> None:
    assert counted({"usage": {"completion_tokens": 5.0}}, "completion_tokens") == 5
    assert counted({"usage": [5]}, "completion_tokens") == 0


def token(text: str, logprob: Any, **likeliest: Any) -> dict[str, Any]:
    return {
        "token": text,
        "logprob": logprob,
        "top_logprobs": [{"token": name, "logprob": value} for name, value in likeliest.items()],
    }


def pieces(*tokens: Any) -> list[tuple[str, dict[str, float]]]:
    return read_pieces({"choices": [{"logprobs": {"content": list(tokens)}}]})


def test_log_probabilities_that_say_nothing_are_left_out() -> None:
    assert pieces(token("A", -0.2, A=-0.2, B=None)) == [("A", {"A": -0.2})]
    assert pieces(token("A", -9999.0, A=-9999.0, B=-9999.0)) == [("A", {})]
    assert pieces(token("A", -0.5, A=float("nan"), B="-1", C=True)) == [("A", {"A": -0.5})]
    assert pieces({"token": "A", "logprob": -0.5}) == [("A", {"A": -0.5})]
    assert pieces({"token": "A", "top_logprobs": None}) == [("A", {})]
    assert pieces({"logprob": -0.5}) == pieces(None) == read_pieces({"choices": [{"logprobs": []}]}) == []


@pytest.mark.parametrize(
    "logprobs", [[token("\\boxed{", -0.1), token("A", -0.2, A=-0.2, B=None), token("}", 0)]]
)
def test_a_null_log_probability_is_no_end_of_the_job(logprobs: list[Any]) -> None:
    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        if "1" in question(body):  # one reply without any, one whose tokens do not spell it
            return {"text": BOX}
        spelled = [token("oh ", -1.0), *logprobs] if "2" in question(body) else logprobs
        return {"text": BOX, "logprobs": {"content": spelled}}

    with serving(answer) as server:
        found = endpoint(server.url).try_letters(
            PICTURES[:3], PROMPTS[:3], [("A", "B")] * 3, lambda i, text: 7, Sampling(8)
        )
    assert [one.logprobs for one in found if not isinstance(one, ModelError)] == [
        (-0.2, float("-inf")),
        None,
        None,
    ]


@pytest.mark.parametrize("key", ["sk-ünicode", "sk two", "sk\nline"])
def test_a_key_that_no_header_can_hold_is_refused_before_any_request(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", key)
    with pytest.raises(ModelError, match="TOY_KEY holds no API key") as refused:
        endpoint("http://127.0.0.1:1/v1", key_variable="TOY_KEY")
    assert key not in str(refused.value)


def test_a_server_that_takes_another_field_for_the_length_is_named_with_the_setting() -> None:
    body = {
        "error": {
            "message": "Unsupported parameter: 'max_tokens'",
            "param": "max_tokens",
            "code": "unsupported_parameter",
        }
    }
    said, _ = asked({"status": 400, "text": json.dumps(body)})
    assert "limit_field=max_completion_tokens" in str(said)
