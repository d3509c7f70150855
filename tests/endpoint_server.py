"""An OpenAI-compatible server of chat completions about pictures, small and real: HTTP on loopback, with
faults where they are wanted.

As a script it answers by dice that follow from the request and runs in a process of its own; in a test's
process it can run a real model.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

from PIL import Image

FAULTS = ("slow", "429", "429-date", "500", "cut", "half", "broken", "empty", "503-page")
Answer = Callable[[Image.Image, dict[str, Any]], dict[str, Any]]
"""A picture and the body of a request: what the answer holds beside the usual ("text", and maybe "tokens" and
"prompt_logprobs").
"""

Orders = Callable[[str, dict[str, Any]], tuple[int, str]]
"""The path of a request that asks for no completion, and its body: the status and the text of the answer."""


def dice(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
    """A letter that follows from pixels, text and settings."""
    asked = {name: body.get(name) for name in ("temperature", "seed", "max_tokens")}
    digest = hashlib.sha256(image.tobytes() + question(body).encode() + json.dumps(asked).encode()).digest()
    return {"text": f"{digest.hex()[:6]} \\boxed{{{'ABCD'[digest[0] % 2]}}}"}


def question(body: dict[str, Any]) -> str:
    """The text beside the picture."""
    return next(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")


class Server(ThreadingHTTPServer):
    """`faulty`: how many first tries of every request end in a fault, of every kind in turn. `share`: of
    tries that end in a fault, drawn by request and try, but for every fifth try. `log`: one line a
    request, as it ends.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: Answer = dice, *, faulty: int = 0, share: float = 0.0, faults: tuple[str, ...] = FAULTS, key: str | None = None, delay: float = 0.0,
                 slow: float = 3.0, log: Path | None = None, orders: Orders | None = None) -> None:  # fmt: skip
        super().__init__(("127.0.0.1", 0), Handler)
        self.share = share
        self.answer, self.faulty, self.key, self.delay, self.slow, self.log = (
            answer,
            faulty,
            key,
            delay,
            slow,
            log,
        )
        self.orders = orders
        self.lines: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.due = cycle(faults)
        self.busy = self.busiest = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def note(self, key: str, outcome: str, **more: Any) -> None:
        with self.lock:
            self.lines.append({"key": key, "outcome": outcome, **more})
            if self.log is not None:
                with open(self.log, "a", encoding="utf-8") as file:
                    file.write(json.dumps(self.lines[-1]) + "\n")

    def outcomes(self) -> Counter[str]:
        return Counter(line["outcome"] for line in self.lines)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        server, raw = self.server, self.rfile.read(int(self.headers["content-length"]))
        body, key = json.loads(raw), hashlib.sha256(raw).hexdigest()
        with server.lock:
            number = server.tries[key]
            server.tries[key] += 1
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
            drawn = int(hashlib.sha256(f"{key}{number}".encode()).hexdigest()[:8], 16) / 2**32
            due = number < server.faulty or (drawn < server.share and number % 5 < 4)
            fault = next(server.due) if due else ""
        try:
            time.sleep(server.delay)
            if server.key is not None and self.headers["authorization"] != f"Bearer {server.key}":
                said = f"wrong key: {self.headers['authorization']}"
                return self._send(
                    401, json.dumps({"error": {"message": said, "code": "invalid_api_key"}}), key, "401"
                )
            if fault:
                return self._fail(fault, key)
            if server.orders is not None and not self.path.endswith("/chat/completions"):
                status, text = server.orders(self.path, body)
                return self._send(status, text, key, f"{self.path.rpartition('/')[2]} {status}", body=body)
            encoded = next(
                (
                    part["image_url"]["url"]
                    for part in body["messages"][0]["content"]
                    if part["type"] == "image_url"
                ),
                None,
            )
            # Beside a text alone there is nothing to see.
            image = (
                Image.open(io.BytesIO(base64.b64decode(encoded.partition(",")[2]))).convert("RGB")
                if encoded
                else Image.new("RGB", (1, 1))
            )
            said = dict(server.answer(image, body))
            if "status" in said:
                return self._send(said["status"], said["text"], key, str(said["status"]), body=body)
            self._send(
                200,
                json.dumps(completion(body["model"], said)),
                key,
                "ok",
                headers=dict(self.headers),
                body=body,
            )
        finally:
            with server.lock:
                server.busy -= 1

    def _fail(self, fault: str, key: str) -> None:
        sent = json.dumps(completion("m", {"text": "\\boxed{Z}"}))
        if fault == "slow":
            time.sleep(self.server.slow)
            self.close_connection = True
            self.server.note(key, fault)
        elif fault in ("429", "429-date"):
            when = "0.02" if fault == "429" else formatdate(time.time(), usegmt=True)
            self._send(
                429,
                json.dumps({"error": {"message": "too many", "code": "rate_limit"}}),
                key,
                fault,
                retry_after=when,
            )
        elif fault == "500":
            self._send(500, json.dumps({"error": {"message": "out of memory"}}), key, fault)
        elif fault == "503-page":
            self._send(503, "<html>starting up</html>", key, fault, kind="text/html")
        elif fault == "cut":
            self.server.note(key, fault)
            self.connection.close()
            self.close_connection = True
        elif fault == "half":
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent[: len(sent) // 2].encode())
            self.close_connection = True
            self.server.note(key, fault)
        elif fault == "broken":
            self._send(200, sent[:-9] + "\udcff", key, fault)
        else:
            self._send(200, json.dumps({"choices": []}), key, fault)

    def _send(
        self,
        status: int,
        text: str,
        key: str,
        outcome: str,
        *,
        kind: str = "application/json",
        retry_after: str = "",
        **more: Any,
    ) -> None:
        # Noted first: whoever has the answer can rely on the note.
        self.server.note(key, outcome, **more)
        raw = text.encode(errors="surrogateescape")
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(raw)))
        if retry_after:
            self.send_header("retry-after", retry_after)
        self.end_headers()
        self.wfile.write(raw)


def completion(model: str, said: dict[str, Any]) -> dict[str, Any]:
    """A chat completion around a text. message, choice: further fields of the two, or others in place of the
    usual; whole: all of the answer.
    """
    if "whole" in said:
        return said["whole"]
    message = {"role": "assistant", "content": said.pop("text", None), **said.pop("message", {})}
    logprobs = {"logprobs": said.pop("logprobs")} if "logprobs" in said else {}
    usage = {"prompt_tokens": said.pop("prompt_tokens", 100), "completion_tokens": said.pop("tokens", 7)}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": said.pop("finish_reason", "stop"),
        **logprobs,
        **said.pop("choice", {}),
    }
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": usage,
        **said,
    }


@contextmanager
def serving(answer: Answer = dice, **settings: Any) -> Iterator[Server]:
    """A server in this process."""
    with Server(answer, **settings) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.0)
    parser.add_argument("--slow", type=float, default=3.0)
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    with Server(
        faulty=arguments.faulty, share=arguments.share, slow=arguments.slow, log=arguments.log
    ) as own:
        print(own.url, flush=True)
        # the parent is gone
        threading.Thread(target=lambda: (sys.stdin.read(), own.shutdown()), daemon=True).start()
        own.serve_forever()
