"""Endpoints, asked over real HTTP on loopback: the answers are those without faults, each is asked once, and
secrets stay where they are.
"""

import asyncio
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import endpoint_server
from endpoint_server import FAULTS, dice, question, serving
from small_vlms import noise_pictures, tiny_qwen2_5_vl
from sparring.config import EndpointSettings
from sparring.data.errors import DataError, ModelError, RunError
from sparring.models.vlms.address import is_endpoint, parse_address
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.base import Sampling, load_vlm
from sparring.models.vlms.endpoint import EndpointReply, EndpointVLM
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.replies import read_reply

QUICK = {"first_wait": 0.01, "deadline": 10.0}
PICTURES = noise_pictures(12)
PROMPTS = [f"Question {number}?" for number in range(12)]


def endpoint(
    url: str, *, cache: Path | None = None, max_pixels: int | None = None, **settings: Any
) -> EndpointVLM:
    return EndpointVLM(
        f"{url}#toy", EndpointSettings(**(QUICK | settings)), cache=cache, max_pixels=max_pixels
    )


def greedy(vlm: EndpointVLM, count: int = 12) -> list[str]:
    return [own[0].text for own in vlm.generate(PICTURES[:count], PROMPTS[:count], Sampling(16))]


def expected(count: int = 12) -> list[str]:
    return [
        dice(
            image,
            {
                "messages": [{"content": [{"type": "text", "text": prompt}]}],
                "temperature": 0.0,
                "max_tokens": 16,
            },
        )["text"]
        for image, prompt in zip(PICTURES[:count], PROMPTS[:count], strict=True)
    ]


@contextmanager
def server_process(log: Path, **settings: Any) -> Iterator[str]:
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, endpoint_server.__file__, f"--log={log}", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def logged(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_faults_change_no_answer_and_no_answer_is_fetched_twice(tmp_path: Path) -> None:
    """Every request meets two faults of nine kinds before it is answered, by a server in a process of its
    own.
    """
    log = tmp_path / "log"
    with server_process(log, faulty=2, slow=2.2) as url:
        vlm = endpoint(url, cache=tmp_path / "answers.sqlite", deadline=1.5)
        assert greedy(vlm) == expected()
        lines = logged(log)
        time.sleep(1.0)  # then the slow ones have been noted too
        outcomes = Counter(line["outcome"] for line in logged(log))
        assert set(outcomes) == {"ok", *FAULTS}
        assert Counter(line["key"] for line in lines if line["outcome"] == "ok").most_common(1)[0][1] == 1
        assert outcomes["ok"] == 12
        spending = vlm.spending()
    # A connection that the server has cut may cost its next user a try of which the server knows nothing.
    assert spending["failures"] >= 24
    assert spending == {
        "requests": 12 + spending["failures"],
        "failures": spending["failures"],
        "prompt_tokens": 1200,
        "completion_tokens": 84,
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_got_over(fault: str) -> None:
    with serving(faulty=1, faults=(fault,), slow=0.2) as server:
        assert greedy(endpoint(server.url, deadline=0.1 if fault == "slow" else 10), 2) == expected(2)


def test_answers_in_the_order_of_the_questions_with_bounded_concurrency() -> None:
    with serving(delay=0.3) as server:
        assert greedy(endpoint(server.url, concurrency=3)) == expected()
        assert server.busiest == 3
    with serving(delay=0.03) as server:
        assert greedy(endpoint(server.url, concurrency=1), 3) == expected(3)
        assert server.busiest == 1


def test_the_request_is_what_servers_understand() -> None:
    with serving() as server:
        vlm = endpoint(
            server.url,
            limit_field="max_completion_tokens",
            extra_body={"chat_template_kwargs": {"enable_thinking": False}},
        )
        vlm.generate(PICTURES[:1], ["Where?"], Sampling(5, temperature=0.7, top_p=0.9, seed=3))
        body = server.lines[0]["body"]
    assert set(body) == {
        "model",
        "messages",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "chat_template_kwargs",
    }
    assert (body["model"], body["max_completion_tokens"], body["temperature"], body["top_p"]) == (
        "toy",
        5,
        0.7,
        0.9,
    )
    assert question(body) == "Where?"
    assert 0 <= body["seed"] < 2**31


def test_the_server_is_shown_the_very_pixels() -> None:
    seen: list[Image.Image] = []
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    with serving(lambda image, body: (seen.append(image), {"text": "B"})[1]) as server:
        endpoint(server.url).generate([picture], ["?"], Sampling(4))
        endpoint(server.url, max_pixels=500).generate([picture], ["?"], Sampling(4))
        endpoint(server.url).generate([picture.convert("RGBA")], ["?"], Sampling(4))
    assert np.array_equal(np.asarray(seen[0]), np.asarray(picture))
    assert seen[1].width * seen[1].height <= 500 < (seen[1].width + 2) * (seen[1].height + 2)
    assert np.array_equal(np.asarray(seen[2]), np.asarray(picture))


def test_the_cache_knows_pixels_text_settings_and_nothing_else(tmp_path: Path) -> None:
    cache = tmp_path / "answers.sqlite"
    twin = Image.fromarray(np.asarray(PICTURES[0]).copy())
    other = PICTURES[0].copy()
    other.putpixel((3, 3), (1, 2, 3))
    with serving() as server:

        def asked(
            image: Image.Image = PICTURES[0],
            prompt: str = "?",
            model: str = "toy",
            *,
            max_pixels: int | None = None,
            **how: Any,
        ) -> int:
            before = len(server.lines)
            vlm = EndpointVLM(
                f"{server.url}#{model}", EndpointSettings(**QUICK), cache=cache, max_pixels=max_pixels
            )
            vlm.generate([image], [prompt], Sampling(**({"max_new_tokens": 4} | how)))
            return len(server.lines) - before

        assert asked() == 1
        # greedy: neither seed nor number matters
        assert asked() == asked(twin) == asked(seed=5) == asked(n=4) == 0
        assert asked(max_pixels=10**6) == 0  # the same pixels are sent
        assert (
            asked(other)
            == asked(prompt="??")
            == asked(model="tin")
            == asked(max_new_tokens=5)
            == asked(max_pixels=1000)
            == 1
        )
        assert (
            asked(temperature=1.0)
            == asked(temperature=1.0, seed=1)
            == asked(temperature=0.5)
            == asked(temperature=1.0, top_p=0.5)
            == 1
        )
        assert asked(temperature=1.0, n=3) == 2  # the first of three is known


def test_seeds_of_samples_follow_from_seed_prompt_and_number_alone() -> None:
    with serving() as server:
        some = endpoint(server.url).generate(
            PICTURES[:2], PROMPTS[:2], Sampling(4, n=3, temperature=1.0, seed=9)
        )
        more = endpoint(server.url).generate(
            PICTURES[:4], PROMPTS[:4], Sampling(4, n=5, temperature=1.0, seed=9)
        )
        assert [own[:3] for own in more[:2]] == some
        assert len({reply.text for own in more for reply in own}) == 20
        before = len(server.lines)
        same = endpoint(server.url).generate([PICTURES[0]] * 3, ["?"] * 3, Sampling(4, n=4))
        assert len(server.lines) == before + 1
    assert same == [[same[0][0]] * 4] * 3


def test_a_restart_asks_only_what_was_not_answered(tmp_path: Path) -> None:
    cache = tmp_path / "answers.sqlite"
    with serving() as server:
        with pytest.raises(RunError, match="budget of 5 requests is used up"):
            greedy(endpoint(server.url, cache=cache, budget=5, concurrency=2))
        assert server.outcomes() == {"ok": 5}
        with pytest.raises(RunError, match="budget of 5"):  # what an earlier process has used counts
            greedy(endpoint(server.url, cache=cache, budget=5))
        assert greedy(endpoint(server.url, cache=cache, budget=12)) == expected()
        assert set(server.tries.values()) == {1}
        assert len(server.tries) == 12


def test_the_last_request_of_a_budget_is_made_once(tmp_path: Path) -> None:
    with (
        closing(AnswerCache(tmp_path / "answers.sqlite")) as one,
        closing(AnswerCache(tmp_path / "answers.sqlite")) as other,
    ):
        assert [cache.take("a", 3) for cache in (one, other, one, other, one)] == [True] * 3 + [False] * 2
        assert one.take("a", None)
        assert other.take("b", 1)
        assert (one.spent("a")["requests"], one.spent("b")["requests"]) == (4, 1)


def test_no_request_is_begun_after_an_error_that_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[None]()

    def broken_once(answer: dict[str, Any]) -> dict[str, Any]:
        seen.append(None)
        if len(seen) == 1:
            raise ZeroDivisionError
        return read_reply(answer)

    monkeypatch.setattr("sparring.models.vlms.requests.read_reply", broken_once)
    with serving() as server:
        server.delay = 0.1
        with pytest.raises(ZeroDivisionError):
            greedy(endpoint(server.url, concurrency=2))
        time.sleep(0.5)
        assert len(server.lines) <= 4


CLIENT = """
import sys
from pathlib import Path
from PIL import Image
from sparring.config import EndpointSettings
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.endpoint import EndpointVLM
url, folder = sys.argv[1:]
pictures = [Image.open(f"{folder}/{number}.png") for number in range(12)]
vlm = EndpointVLM(f"{url}#toy", EndpointSettings(concurrency=2), cache=Path(folder, "answers.sqlite"))
vlm.generate(pictures, [f"Question {number}?" for number in range(12)], Sampling(16))
"""


def test_after_a_kill_no_finished_answer_is_requested_again(tmp_path: Path) -> None:
    cache = tmp_path / "answers.sqlite"
    for number, picture in enumerate(PICTURES):
        picture.save(tmp_path / f"{number}.png")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with serving(delay=0.1) as server:
        command = [sys.executable, "-c", CLIENT, server.url, str(tmp_path)]
        with subprocess.Popen(command, env=environment) as process:
            while server.outcomes()["ok"] < 5:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        while server.busy:  # what was under way is noted when it is answered
            time.sleep(0.01)
        with closing(sqlite3.connect(cache)) as db:
            kept = {json.loads(asked)["prompt"] for (asked,) in db.execute("SELECT asked FROM answers")}
        assert 3 <= len(kept) < 12
        server.delay = 0.0
        before = len(server.lines)
        assert greedy(endpoint(server.url, cache=cache)) == expected()
        again = [question(line["body"]) for line in server.lines[before:]]
    assert sorted(again) == sorted(set(PROMPTS) - kept)


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", "sk-secret-1234")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-shop")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-shop")
    cache = tmp_path / "answers.sqlite"
    with serving(key="sk-secret-1234") as server:
        greedy(endpoint(server.url, cache=cache, key_variable="TOY_KEY"), 1)
        assert "another-shop" not in json.dumps(server.lines[0]["headers"])
        with pytest.raises(ModelError, match="HTTP 401") as refused:  # no key is set under the default name
            greedy(endpoint(server.url), 1)
        monkeypatch.setenv("TOY_KEY", "sk-wrong-5678")
        # a server that repeats the key
        wrong = endpoint(server.url, key_variable="TOY_KEY")
        with pytest.raises(ModelError, match=r"HTTP 401: wrong key: Bearer \*\*\*") as repeated:
            greedy(wrong, 1)
        assert (wrong.spending()["requests"], wrong.spending()["failures"]) == (1, 1)
        assert server.outcomes() == {"ok": 1, "401": 2}  # a refused key is not tried again
    broken = {"finish_reason": "error", "choice": {"error": {"message": "no quota for sk-wrong-5678"}}}
    with (
        serving(lambda *_: dict(broken)) as server,
        pytest.raises(ModelError, match=r"no quota for \*\*\*") as given_up,
    ):
        greedy(endpoint(server.url, key_variable="TOY_KEY", retries=0), 1)
    assert "sk-" not in f"{refused.value} {repeated.value} {given_up.value}"
    assert b"sk-" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_what_will_not_pass_is_given_up_at_once_and_what_was_under_way_is_kept(tmp_path: Path) -> None:
    with serving(faulty=99, faults=("500",)) as server:
        started = time.monotonic()
        with pytest.raises(ModelError, match="given up after 3 tries; the last one: HTTP 500: out of memory"):
            greedy(endpoint(server.url, cache=tmp_path / "a", retries=2, concurrency=4))
        assert len(server.tries) <= 4  # no new question after one was given up
        assert time.monotonic() - started < 30
    with serving() as server:
        url = server.url
    with pytest.raises(ModelError, match="given up after 2 tries; the last one: the connection failed"):
        greedy(endpoint(url, retries=1), 1)


def test_waits_grow_and_a_longer_retry_after_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr("sparring.models.vlms.courier.asyncio.sleep", note)
    with serving(faulty=6, faults=("500",)) as server:
        greedy(endpoint(server.url, first_wait=1.0, longest_wait=10.0), 1)
    bounds = [1, 2, 4, 8, 10, 10]
    assert len(waits) == 6
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    waits.clear()
    with serving(faulty=1, faults=("429",)) as server:
        greedy(endpoint(server.url, first_wait=0.001), 1)  # the server asks for 0.02 s
    assert 0.02 <= waits[0] < 0.0201 + 0.001


def test_inside_a_running_event_loop() -> None:
    async def notebook(url: str) -> list[str]:
        return greedy(endpoint(url), 2)

    with serving() as server:
        assert asyncio.run(notebook(server.url)) == expected(2)


def test_a_reply_that_was_cut_off_or_says_nothing() -> None:
    with serving(lambda image, body: {"text": None, "finish_reason": "length"}) as server:
        assert endpoint(server.url).generate(PICTURES[:1], ["?"], Sampling(4)) == [
            [EndpointReply("", 7, False)]
        ]
    assert endpoint("http://127.0.0.1:1/v1").generate([], [], Sampling(4)) == []
    with pytest.raises(DataError, match="1 pictures and 0 prompts"):
        endpoint("http://127.0.0.1:1/v1").generate(PICTURES[:1], [], Sampling(4))


def test_prices() -> None:
    with serving() as server:
        vlm = endpoint(server.url, price_per_million={"prompt": 2.0, "completion": 10.0})
        greedy(vlm, 3)
    assert vlm.spending()["cost"] == pytest.approx((300 * 2 + 21 * 10) / 1e6)


def served(vlm: LocalVLM) -> endpoint_server.Answer:
    """Answers of a local model, which also scores the end of a prompt as vLLM does."""

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        if "prompt_logprobs" in body:
            assert body["continue_final_message"]
            assert not body["add_generation_prompt"]
            tokens = vlm.processor.tokenizer(body["messages"][1]["content"], add_special_tokens=False)[
                "input_ids"
            ]
            with torch.inference_mode():
                logprobs, _ = vlm.completion_logprobs(vlm.encode([image], [question(body)]), [[tokens]])
            scored = [
                {
                    str(token): {
                        "logprob": value,
                        "rank": 1,
                        "decoded_token": vlm.processor.tokenizer.decode([token]),
                    }
                }
                for token, value in zip(tokens, logprobs[0].tolist(), strict=True)
            ]
            return {
                "text": "",
                "prompt_logprobs": [None, {"5": {"logprob": -9.0, "decoded_token": "<|im_start|>"}}, *scored],
            }
        reply = vlm.generate([image], [question(body)], Sampling(body["max_tokens"]))[0][0]
        return {
            "text": reply.text,
            "tokens": len(reply.token_ids),
            "finish_reason": "stop" if reply.finished else "length",
        }

    return answer


def test_a_served_model_and_the_local_one_are_interchangeable(tmp_path: Path) -> None:
    local = LocalVLM.load(tiny_qwen2_5_vl(tmp_path / "vlm"))
    with serving(served(local)) as server:
        remote = load_vlm(f"{server.url}#toy", endpoint=EndpointSettings(concurrency=1))
        ours = remote.generate(PICTURES[:3], PROMPTS[:3], Sampling(6))
        theirs = [
            local.generate([image], [prompt], Sampling(6))[0]
            for image, prompt in zip(PICTURES[:3], PROMPTS[:3], strict=True)
        ]
        assert [(r.text, r.tokens, r.finished) for (r,) in ours] == [
            (r.text, r.tokens, r.finished) for (r,) in theirs
        ]
        texts = ["so \\boxed{A}", "B", "\\boxed{B}"]
        scored = remote.option_probabilities(PICTURES[:3], PROMPTS[:3], texts)
        wanted = local.option_probabilities(PICTURES[:3], PROMPTS[:3], texts)
    torch.testing.assert_close(scored, wanted, rtol=1e-4, atol=0)


def test_probabilities_by_hand_and_servers_that_give_none() -> None:
    def scored(*tokens: tuple[str, float]) -> endpoint_server.Answer:
        entries = [{"1": {"logprob": value, "decoded_token": token}} for token, value in tokens]
        return lambda image, body: {"text": "", "prompt_logprobs": [None, *entries]}

    with serving(scored(("user", -50.0), ("\\boxed", -1.0), ("{B}", -3.0))) as server:
        found = endpoint(server.url).option_probabilities(PICTURES[:1], ["?"], ["\\boxed{B}"])
        assert found.tolist() == pytest.approx([math.exp(-2.0)])
        with pytest.raises(ModelError, match="not with the text"):
            endpoint(server.url).option_probabilities(PICTURES[:1], ["?"], ["\\boxed{A}"])
    with (
        serving() as server,
        pytest.raises(ModelError, match=r"does not score prompts.*judge.dense_weight=0"),
    ):
        endpoint(server.url).option_probabilities(PICTURES[:1], ["?"], ["B"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("http://127.0.0.1:8000/v1", "which model"),
        ("http://127.0.0.1:8000/v1#", "which model"),
        ("ftp://host/v1#m", "must begin with http"),
        ("http:///v1#m", "name a host"),
        ("http://host:99999/v1#m", "no URL"),
    ],
)
def test_what_is_no_endpoint(spec: str, message: str) -> None:
    assert is_endpoint(spec)
    with pytest.raises(ModelError, match=message):
        parse_address(spec)


def test_an_endpoint_with_a_secret_in_its_name_is_refused_without_repeating_it() -> None:
    for spec in ("https://me:hunter2@host/v1#m", "https://host/v1?key=hunter2#m"):
        with pytest.raises(ModelError, match="environment only") as refused:
            parse_address(spec)
        assert "hunter2" not in str(refused.value)
    assert parse_address("https://host/v1/#org/model:4b").url == "https://host/v1"
    assert parse_address("https://host/v1/#org/model:4b").model == "org/model:4b"
    assert not any(
        is_endpoint(name) for name in ("arena/defender", "Qwen/Qwen2.5-VL-7B-Instruct", "/models/a#b", "C:/x")
    )


def test_pixel_limits_and_a_file_that_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="min_pixels cannot be set for an endpoint"):
        load_vlm("http://127.0.0.1:1/v1#m", min_pixels=10)
    (tmp_path / "cache").write_text("not a database, but long enough to look at" * 10)
    with pytest.raises(RunError, match="file is not a database"):
        AnswerCache(tmp_path / "cache")
