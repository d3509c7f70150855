"""A hub on this machine, as far as huggingface_hub needs one to upload: repositories, the check of a card's
YAML, upload modes, git-LFS and commits. It refuses whoever has not the token.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml

LARGE = (".safetensors", ".parquet", ".png")


class Hub(ThreadingHTTPServer):
    """repositories: "models/USER/NAME" -> path -> content. made: what was asked for when they were made."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.url = token, f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.made: list[dict[str, Any]] = []
        self.commits: list[str] = []
        self.large: dict[str, bytes] = {}


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_GET(self) -> None:
        self._answer({"error": "not found"}, 404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def do_POST(self) -> None:
        hub, body = self.server, self._body()
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._answer({"error": "Invalid credentials in Authorization header"}, 401)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            hub.made.append(asked)
            hub.repositories.setdefault(f"{asked.get('type') or 'model'}s/{name}", {})
            self._answer({"url": f"{hub.url}/{name}", "name": name, "id": name})
        elif self.path == "/api/validate-yaml":
            front = re.match(r"---\n(.*?)\n---", json.loads(body)["content"], re.DOTALL)
            good = front is not None and isinstance(yaml.safe_load(front[1]), dict)
            wrong = [] if good else [{"message": "no front matter"}]
            self._answer({"errors": wrong, "warnings": []}, 200 if good else 400)
        elif "/preupload/" in self.path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                own | {"actions": {"upload": {"href": f"{hub.url}/lfs/{own['oid']}"}}}
                for own in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif (match := re.fullmatch(r"/api/(\w+/[\w.-]+/[\w.-]+)/commit/main", self.path)) is not None:
            files = hub.repositories[match[1]]
            for line in body.decode().splitlines():
                step = json.loads(line)
                key, value = step["key"], step["value"]
                if key == "header":
                    hub.commits.append(value["summary"])
                elif key == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif key == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
            address = f"{hub.url}/{match[1].partition('/')[2]}/commit/{'0' * 40}"
            self._answer({"commitUrl": address, "commitOid": "0" * 40})
        else:
            self._answer({"error": f"{self.path}: not known"}, 404)


@contextmanager
def hub_of(token: str) -> Iterator[Hub]:
    """A hub at a free port of this machine that knows this token."""
    hub = Hub(token)
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
