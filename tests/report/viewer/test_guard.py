"""Who may look, what a page may do, and what becomes of texts and pictures that mean harm."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from report.fake_run import FakeRun
from report.test_page import Page
from report.viewer.looking import HOSTILE, client_of, page_of, pictures_of, tiles_of, write_game
from sparring.report.viewer.app import make_app
from sparring.report.viewer.guard import HEADERS, Guard
from sparring.report.viewer.pictures import Pictures

VIEWS = ("/now", "/fight", "/outcome", "/compare")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    write_game(out / "done", until_round=0)
    return out


@pytest.fixture
def client(root: Path, tmp_path: Path) -> TestClient:
    return client_of(root, tmp_path / "cache")


def test_every_answer_has_the_headers_that_keep_a_browser_in(client: TestClient) -> None:
    for address in (
        "/",
        "/now?run=done",
        "/nothing",
        "/now?run=nothing",
        "/static/view.js",
        "/picture?run=done",
        "/fight",
    ):
        answer = client.get(address)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert client.post("/").status_code == 405
    assert client.delete("/now?run=done").status_code == 405


def test_a_page_of_another_host_cannot_look_in(root: Path, tmp_path: Path) -> None:
    for host, status in (
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("[::1]", 200),
        ("evil.example", 421),
        ("10.0.0.7", 421),
    ):
        assert client_of(root, tmp_path / "cache", host=host).get("/").status_code == status


def test_from_elsewhere_only_the_token_opens(root: Path, tmp_path: Path) -> None:
    client = client_of(root, tmp_path / "cache", token="sesame", host="runs.example")
    for address in (
        "/",
        "/?token=",
        "/?token=sesam",
        "/?token=s%C3%A9same",
        "/static/view.js",
        "/picture?run=done",
    ):
        answer = client.get(address)
        assert answer.status_code == 401
        assert "sesame" not in answer.text
    answer = client.get("/now?run=done&token=sesame&fooled=%26x")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/now?run=done&fooled=%26x"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get("/now?run=done").status_code == 200
    other = client_of(root, tmp_path / "cache", token="sesame", host="runs.example")
    other.cookies.set(Guard("sesame").cookie, "other")
    assert other.get("/").status_code == 401


def test_two_viewers_of_one_machine_are_open_in_one_browser(root: Path, tmp_path: Path) -> None:
    cookies: dict[str, str] = {}
    for token in ("sesame", "simsim"):
        app = make_app(root, tmp_path / "cache", token)
        port = 8777 + len(cookies)
        client = TestClient(app, base_url=f"http://runs.example:{port}", follow_redirects=False)
        assert client.get(f"/?token={token}").status_code == 303
        cookies |= dict(client.cookies)  # a browser keeps them by host, whatever the port
    for token, port in (("sesame", 8777), ("simsim", 8778)):
        app = make_app(root, tmp_path / "cache", token)
        client = TestClient(app, base_url=f"http://runs.example:{port}", cookies=cookies)
        assert client.get("/").status_code == 200


def test_old_small_pictures_are_removed_and_nothing_else_that_lies_there(tmp_path: Path) -> None:
    own, others = (
        tmp_path / "ab" / f"ab{'0' * 30}.webp",
        [
            tmp_path / "ab" / "abroad.webp",
            tmp_path / "pictures" / f"ab{'0' * 30}.webp",
            tmp_path / "cd" / f"ab{'0' * 30}.webp",
            tmp_path / f"ab{'0' * 30}.webp",
        ],
    )
    for path in (own, *others):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    Pictures(tmp_path).clean_up()
    assert [path.exists() for path in (own, *others)] == [False, True, True, True, True]


def test_hostile_texts_are_texts(tmp_path: Path) -> None:
    def alter(run: FakeRun) -> None:
        scenes = run.scenes
        run.questions = [
            replace(
                q,
                id=f"{HOSTILE} {n}",
                question=HOSTILE,
                options=tuple(HOSTILE + o for o in q.options),
                category=HOSTILE,
            )
            for n, q in enumerate(run.questions)
        ]
        run.scenes = dict(zip([q.id for q in run.questions], scenes.values(), strict=True))
        run.suffix = HOSTILE

    name = "<b>run</b> & 'co'"
    write_game(tmp_path / name, alter=alter)
    client = client_of(tmp_path, tmp_path / "cache")
    addresses = ["/", *(f"{view}?run=%3Cb%3Erun%3C%2Fb%3E%20%26%20%27co%27" for view in VIEWS)]
    tiles = tiles_of(client, addresses[2])
    assert tiles
    for address in (*addresses, *(str(tile["href"]) for tile in tiles[:2])):
        answer = client.get(address)
        assert answer.status_code == 200
        page = Page(answer.text)
        assert [attrs.get("src") for tag, attrs in page.elements if tag == "script"] == ["/static/view.js"]
        assert not [attrs for _, attrs in page.elements if any(key.startswith("on") for key in attrs)]
        assert not [attrs for tag, attrs in page.elements if tag == "img" and attrs.get("src") == "x"]
        for tag, attrs in page.elements:
            link = attrs.get("href") or attrs.get("src") or attrs.get("data-src") or "/"
            assert re.match(r"/(?!/)|#", link), (tag, link)
    shown = Page(client.get(str(tiles[0]["href"])).text)
    assert HOSTILE.split("\u202e")[0] in shown.text
    assert "&lt;script&gt;" in client.get(str(tiles[0]["href"])).text
    for source in pictures_of(client, addresses[2])[:4]:
        assert client.get(source).status_code == 200


@pytest.mark.parametrize(
    "content", [b"<html><script>alert(1)</script>", b"", b"\x89PNG\r\n\x1a\n broken", b"%!PS-Adobe"]
)
def test_a_file_that_is_no_picture_is_never_sent(tmp_path: Path, content: bytes) -> None:
    run = write_game(tmp_path / "game", until_round=0)
    with sqlite3.connect(run.out / "ledger.sqlite") as db:
        (name,) = db.execute("SELECT picture FROM edits ORDER BY rowid DESC LIMIT 1").fetchone()
    (run.out / name).write_bytes(content)
    client = client_of(tmp_path, tmp_path / "cache")
    source = pictures_of(client, "/fight?run=game")[0]
    for address in (
        source,
        source.replace("size=thumb", "size=large"),
        source.replace("side=after", "side=gap"),
    ):
        answer = client.get(address)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/plain")
        assert not content or content not in answer.content
    page_of(client, str(tiles_of(client, "/fight?run=game")[0]["href"]))


def test_a_question_may_lie_anywhere_and_is_still_only_a_picture(tmp_path: Path) -> None:
    run = write_game(tmp_path / "game", until_round=0)
    Image.new("RGB", (300, 200), "red").save(tmp_path / "outside.png")
    with sqlite3.connect(run.out / "ledger.sqlite") as db:
        db.execute("UPDATE questions SET image = ?", (str(tmp_path / "outside.png"),))
    client = client_of(tmp_path, tmp_path / "cache")
    source = pictures_of(client, "/fight?run=game")[0].replace("side=after", "side=before")
    assert client.get(source).headers["content-type"] == "image/webp"
    with sqlite3.connect(run.out / "ledger.sqlite") as db:
        db.execute("UPDATE questions SET image = '/etc/passwd'")
    answer = client.get(source)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_small_copies_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_game(tmp_path / "game", until_round=0)
    with sqlite3.connect(run.out / "ledger.sqlite") as db:
        (name,) = db.execute("SELECT picture FROM edits ORDER BY rowid DESC LIMIT 1").fetchone()
    Image.effect_noise((1024, 768), 60).convert("RGB").save(run.out / name)
    client = client_of(tmp_path, tmp_path / "cache")
    source = pictures_of(client, "/fight?run=game")[0]
    first = client.get(source)
    assert first.headers["content-type"] == "image/webp"
    assert len(list((tmp_path / "cache").glob("*/*.webp"))) == 1

    def fail(path: Path) -> Image.Image:
        raise AssertionError(f"{path} is decoded again")

    monkeypatch.setattr("sparring.report.viewer.pictures.load_image", fail)
    assert client.get(source).content == first.content
    assert client_of(tmp_path, tmp_path / "cache").get(source).content == first.content
    monkeypatch.undo()
    Image.new("RGB", (1024, 768), "blue").save(run.out / name)  # the stage was done again after a kill
    again = pictures_of(client, "/fight?run=game")[0]
    assert again != source
    assert client.get(again).content != first.content


def test_the_viewer_waits_for_no_library_of_models() -> None:
    code = "import sys, sparring.report.viewer.app; print(*sorted({'torch', 'transformers', 'diffusers'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
