"""`sparring view`: where it listens, who is given a token, and what it says when it cannot."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest
import uvicorn
from typer.testing import CliRunner, Result

from sparring.cli import app


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends at once."""
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: [one.close() for one in sockets])
    monkeypatch.delenv("SPARRING_VIEW_TOKEN", raising=False)


def view(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["view", *map(str, arguments)])


def test_this_machine_needs_no_token(tmp_path: Path) -> None:
    found = view(tmp_path, "--port", 0)
    assert found.exit_code == 0, found.output
    assert re.match(r"Viewer: http://127\.0\.0\.1:\d+/\n", found.output)


def test_any_other_address_has_one_that_nobody_guesses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = []
    for _ in range(2):
        match = re.match(
            r"Viewer: http://0\.0\.0\.0:\d+/\?token=(\S+)\n",
            view(tmp_path, "--host", "0.0.0.0", "--port", 0).output,
        )
        assert match is not None
        tokens.append(match[1])
    assert len(set(tokens)) == 2
    assert min(map(len, tokens)) >= 32
    monkeypatch.setenv("SPARRING_VIEW_TOKEN", "my+own/&#=")
    assert "/?token=my%2Bown%2F%26%23%3D\n" in view(tmp_path, "--host", "0.0.0.0", "--port", 0).output


def test_what_cannot_be_done_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = view(tmp_path / "nowhere")
    assert found.exit_code == 2
    assert "is no folder" in found.output
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = view(tmp_path, "--port", taken.getsockname()[1])
    assert found.exit_code == 2
    assert "--port" in found.output
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    found = view(tmp_path)
    assert found.exit_code == 2
    assert "pip install 'sparring[view]'" in found.output
