"""The pages: what they show, who may see them, and what they never do."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from report.test_page import Page
from report.viewer.looking import client_of, page_of, pictures_of, tiles_of, work_of, write_game
from sparring.data.records import LETTERS
from sparring.engine.ledger import Ledger
from sparring.report.viewer.compare import compared
from sparring.report.viewer.works import Works

VIEWS = ("/now", "/fight", "/outcome", "/compare")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished game, one that was cut off, and others that have only just begun."""
    out = tmp_path_factory.mktemp("runs")
    write_game(out / "done")
    write_game(out / "deep/er/cut", until_round=1)
    for name in ("attack", "eval", "probe", "sft", "forge"):
        (out / name).mkdir()
        (out / name / f"{name}.yaml").write_text("samples: 1\n")
    return out


@pytest.fixture
def client(root: Path, tmp_path: Path) -> TestClient:
    return client_of(root, tmp_path / "cache")


# -- what is found


def test_every_kind_of_work_is_found_and_has_all_its_pages(client: TestClient) -> None:
    text = client.get("/").text
    for name, kind in {
        "done": "game", "deep/er/cut": "game", "attack": "attack", "eval": "evaluation", "probe": "probe",
        "sft": "fine-tuning", "forge": "forge",
    }.items():  # fmt: skip
        assert f">{name}</a>" in text
        assert f'{name}</a><span class="note">{kind}</span>' in text
        for view in VIEWS:
            page_of(client, f"{view}?run={name}")


def test_a_run_is_under_way_while_its_lock_is_held_and_looking_takes_no_lock(root: Path) -> None:
    work = work_of(root / "deep/er/cut")
    assert work.state == "stopped"
    with open(work.folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert work.state == "under way"
    assert work.state == "stopped"
    with open(work.folder / ".lock", "a") as lock:  # a run could begin now
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert work_of(root / "done").state == "finished"


def test_one_run_alone_and_the_forge_inside_it(tmp_path: Path) -> None:
    write_game(tmp_path / "game", until_round=0)
    (tmp_path / "game/round0/forge").mkdir(exist_ok=True)
    sqlite3.connect(tmp_path / "game/round0/forge/forge.sqlite").close()
    (tmp_path / "game/round0/forge/forge.sqlite").touch()
    assert Works(tmp_path / "game").all().keys() == {"game", "game/round0/forge"}
    (tmp_path / "loop").symlink_to(tmp_path)
    assert Works(tmp_path).all().keys() == {"game", "game/round0/forge"}


@pytest.mark.parametrize(
    "name", ["..", "../..", "/etc", "done/../..", "nothing", "", "done/pictures", "%2e%2e"]
)
def test_no_other_folder_can_be_asked_for(client: TestClient, name: str) -> None:
    for view in (*VIEWS[:3], "/edit", "/picture"):
        answer = client.get(view, params={"run": name})
        assert answer.status_code == 404
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e%2fapp.py").status_code == 404
    assert client.get("/fight").status_code == 400
    assert client.get("/fight?run=done&start=-4").status_code == 400


# -- now


def test_now_tells_phase_pace_and_time_left(tmp_path: Path) -> None:
    run = write_game(tmp_path / "game", until_round=1)  # three of the Defender's six updates are done
    recipe = yaml.safe_load((run.out / "recipe.yaml").read_text())
    recipe["defender"]["steps"] = 6
    (run.out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with sqlite3.connect(run.out / "ledger.sqlite") as db:
        for step, at in ((-1, 100.0), (0, 140.0), (1, 150.0), (2, 160.0)):
            db.execute("INSERT OR REPLACE INTO times VALUES ('round1/defender', ?, ?)", (step, at))
    text = page_of(client_of(tmp_path, tmp_path / "cache"), "/now?run=game").text
    assert "Round 1: Defender" in text
    assert "3 of 6 updates" in text
    assert "An update takes10 s" in text
    assert "This phase, leftabout 30 s" in text
    assert "51.2 replies a second" in text  # 512 in 10 s
    assert "stopped" in text
    assert "Worth knowing" not in text


def test_a_ledger_of_an_earlier_version_says_that_it_knows_no_times(tmp_path: Path) -> None:
    run = write_game(tmp_path / "game", until_round=1)
    with sqlite3.connect(run.out / "ledger.sqlite") as db:
        db.execute("DROP TABLE times")
    text = page_of(client_of(tmp_path, tmp_path / "cache"), "/now?run=game").text
    assert "An update takesnot noted by the version that runs it" in text


def test_times_of_updates_are_forgotten_with_them(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record_stage("round1/attacker", "running")
    for step in range(3):
        ledger.record_update("round1/attacker", step, {})
    ledger.forget("round1/attacker", 1)
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        assert [step for (step,) in db.execute("SELECT step FROM times ORDER BY step")] == [-1, 0]


def test_now_draws_both_players_and_shows_the_newest_pictures(client: TestClient) -> None:
    page = page_of(client, "/now?run=done")
    for words in (
        "Attacker",
        "Defender",
        "gradient norm",
        "groups without signal (share)",
        "clipped share",
        "fooled",
    ):
        assert words in page.text
    charts = [
        attrs for name, attrs in page.elements if name == "svg" and "chart" in (attrs.get("class") or "")
    ]
    assert len(charts) > 12
    assert all(attrs.get("aria-label") for attrs in charts)
    assert len(page.with_class("tile")) == 16


def test_a_page_is_computed_again_only_when_the_run_has_written(tmp_path: Path) -> None:
    write_game(tmp_path / "game", until_round=1)
    client = client_of(tmp_path, tmp_path / "cache")
    for view in (*VIEWS, "/"):
        address = f"{view}?run=game"
        tag = client.get(address).headers["etag"]
        same = client.get(address, headers={"If-None-Match": tag})
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["etag"] == tag
    tag = client.get("/now?run=game").headers["etag"]
    ledger = Ledger(tmp_path / "game")
    ledger.record_update("round1/defender", 3, {"reward_mean": 0.5})
    found = client.get("/now?run=game", headers={"If-None-Match": tag})
    assert found.status_code == 200
    assert "4 of 30 updates" in Page(found.text).text
    ledger.close()


def test_a_run_that_has_begun_is_offered_for_comparison(tmp_path: Path) -> None:
    write_game(tmp_path / "game", until_round=1)
    client = client_of(tmp_path, tmp_path / "cache")
    tag = client.get("/compare").headers["etag"]
    assert client.get("/compare", headers={"If-None-Match": tag}).status_code == 304
    write_game(tmp_path / "another", until_round=1)
    found = client_of(tmp_path, tmp_path / "cache").get("/compare", headers={"If-None-Match": tag})
    assert found.status_code == 200
    assert "another" in found.text


def test_a_run_can_write_while_it_is_read(tmp_path: Path) -> None:
    write_game(tmp_path / "game", until_round=1)
    ledger = Ledger(tmp_path / "game")  # the run's own connection stays open
    client = client_of(tmp_path, tmp_path / "cache")
    work = work_of(tmp_path / "game")
    with work.database() as reading:
        assert reading is not None
        reading.execute("BEGIN")
        before = reading.execute("SELECT count(*) FROM updates").fetchone()[0]
        ledger.record_update("round1/defender", 3, {"reward_mean": 0.5})  # would raise "locked"
        assert reading.execute("SELECT count(*) FROM updates").fetchone()[0] == before
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reading.execute("DELETE FROM updates")
    assert "4 of 30 updates" in page_of(client, "/now?run=game").text
    ledger.close()


def test_looking_changes_no_file_of_a_run(tmp_path: Path) -> None:
    write_game(tmp_path / "runs/game")
    client = client_of(tmp_path / "runs", tmp_path / "cache")

    def files() -> dict[str, tuple[int, int]]:
        found = {str(path): path.stat() for path in (tmp_path / "runs").rglob("*")}
        return {name: (own.st_mtime_ns, own.st_size) for name, own in found.items()}

    before = files()
    for view in VIEWS:
        page_of(client, f"{view}?run=game")
    for tile in tiles_of(client, "/fight?run=game")[:3]:
        page_of(client, str(tile["href"]))
    for source in pictures_of(client, "/fight?run=game")[:3]:
        assert client.get(source).status_code == 200
    assert files() == before


# -- the fight


def test_every_picture_of_a_page_can_be_had(client: TestClient) -> None:
    sources = pictures_of(client, "/fight?run=done&fooled=base")
    assert sources
    for source in sources:
        answer = client.get(source)
        assert answer.status_code == 200
        assert answer.headers["content-type"] in ("image/png", "image/webp")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "immutable" in answer.headers["cache-control"]


def test_filters_stay_in_every_address_of_a_page(client: TestClient) -> None:
    page = page_of(client, "/fight?run=done&fooled=base&sort=oldest&start=0")
    for tile in page.with_class("tile"):
        assert "fooled=base&sort=oldest" in str(tile["href"])
    shown = page_of(client, str(page.with_class("tile")[0]["href"]))
    links = [attrs for name, attrs in shown.elements if name == "a" and attrs.get("rel") in ("next", "up")]
    assert len(links) == 2
    assert all("fooled=base&sort=oldest" in str(attrs["href"]) for attrs in links)
    chosen = [attrs for name, attrs in page.elements if name == "option" and "selected" in attrs]
    assert {attrs["value"] for attrs in chosen} == {"base", "oldest"}


def test_walking_from_next_to_next_sees_every_edit_once(client: TestClient) -> None:
    start = page_of(client, "/fight?run=done&phase=attacker&sort=oldest").with_class("tile")
    assert len(start) == 16
    address: str | None = str(start[0]["href"])
    seen = []
    while address is not None:
        seen.append(address)
        page = page_of(client, address)
        assert f"{len(seen)} of 16" in page.text
        following = [
            attrs["href"] for name, attrs in page.elements if name == "a" and attrs.get("rel") == "next"
        ]
        address = following[0] if following else None
    assert seen == [str(tile["href"]) for tile in start]


def test_an_edit_shows_question_answers_verdict_and_reward(client: TestClient) -> None:
    address = str(tiles_of(client, "/fight?run=done&phase=attacker&fooled=*&sort=oldest")[0]["href"])
    page = page_of(client, address)
    for words in (
        "so \\boxed{}",
        "the Defender’s failures",
        "Targets",
        "intact (0.900)",
        "Its group",
        "right answer",
    ):
        assert words in page.text
    images = [attrs for name, attrs in page.elements if name == "img" and "canvas" not in attrs]
    assert all(attrs.get("alt") is not None for attrs in images)
    sides = [attrs for attrs in images if "size=large" in str(attrs.get("src", attrs.get("data-src")))]
    assert len(sides) == 4
    for attrs in sides:
        assert attrs["alt"]
        assert client.get(str(attrs.get("src", attrs.get("data-src")))).headers["content-type"] == "image/png"


# -- outcome


def test_the_matrix_is_the_summarys_and_its_cells_open_their_pictures(root: Path, client: TestClient) -> None:
    summary = json.loads((root / "done/summary.json").read_text())["payoff"]
    page = page_of(client, "/outcome?run=done")
    links = [
        str(a["href"]) for n, a in page.elements if n == "a" and "the pictures" in str(a.get("aria-label"))
    ]
    cells = [cell for row in summary["accuracy"] for cell in row]
    assert len(links) > len(cells)
    with sqlite3.connect(root / "done/ledger.sqlite") as db:
        for (defender, opponent), link in zip(
            [(d, o) for d in summary["defenders"] for o in summary["opponents"]], links, strict=False
        ):
            query = "SELECT count(DISTINCT question_id) FROM answers WHERE stage = ? AND defender = ?"
            (asked,) = db.execute(query, (f"evaluation/{opponent}", defender)).fetchone()
            assert f"{asked} pictures" in page_of(client, link).text
    fooled = summary["valid_asr"][0][-1]
    assert f"{100 * fooled['value']:.1f}" in page.text


def test_figures_so_far_are_those_of_the_summary(root: Path, tmp_path: Path, client: TestClient) -> None:
    """A run whose summary is not written yet, but whose cells are all played, shows the same matrices."""
    shutil.copytree(root / "done", tmp_path / "runs/done")
    (tmp_path / "runs/done/summary.json").unlink()
    so_far = page_of(client_of(tmp_path / "runs", tmp_path / "cache"), "/outcome?run=done").text
    whole = page_of(client, "/outcome?run=done").text

    def figures(text: str, start: str, end: str) -> list[str]:
        part = text[text.index(start) : text.index(end, text.index(start))]
        return re.findall(r"\d+\.\d", part)

    # The worst case is a figure of the end.
    assert figures(so_far, "Valid attack success (%)", "League") == figures(
        whole, "Valid attack success (%)", "League"
    )
    assert figures(so_far, "Strategies", "Shares in per cent") == figures(
        whole, "Strategies", "Shares in per cent"
    )
    assert "A run under way" in so_far
    assert "Robust gain" not in so_far


# -- compare


def test_compare_overlays_curves_and_tells_paired_differences(root: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(root / "done", runs / "a")
    shutil.copytree(root / "done", runs / "b")
    stage = "stage = 'evaluation/clean' AND defender = 'round2'"
    with sqlite3.connect(runs / "b/ledger.sqlite") as db:
        db.execute(
            f"UPDATE answers SET right = 0 WHERE {stage} AND question_id IN ('held-1', 'held-2', 'held-3')"
        )
        (after,) = db.execute(f"SELECT sum(right) FROM answers WHERE {stage}").fetchone()
    with sqlite3.connect(runs / "a/ledger.sqlite") as db:
        before, n = db.execute(f"SELECT sum(right), count(*) FROM answers WHERE {stage}").fetchone()
    assert before > after
    client = client_of(runs, tmp_path / "cache")
    page = page_of(client, "/compare?run=a&run=b")
    row = page.text[page.text.index("right, on clean pictures") :][:200]
    assert f"−{100 * (before - after) / n:.1f}" in row
    assert f"{n}" in row
    charts = [
        attrs for name, attrs in page.elements if name == "path" and "run1" in (attrs.get("class") or "")
    ]
    assert charts
    assert "choose a run" in page.text
    same = page_of(client, "/compare?run=a&run=b&defender=base").text
    assert "±0.0" in same


@pytest.mark.parametrize("column", ["question", "options", "answer", "targets"])
def test_questions_that_share_nothing_but_their_id_are_not_compared(
    root: Path, tmp_path: Path, column: str
) -> None:
    runs = tmp_path / "runs"
    for name in ("a", "b"):
        shutil.copytree(root / "done", runs / name)
    with closing(sqlite3.connect(runs / "b/ledger.sqlite")) as db, db:
        (boxless,) = db.execute(
            "SELECT count(*) FROM questions WHERE targets = '[]' AND id <> 'held-1'"
        ).fetchone()
        # held-1 has its options in another order there, and had no boxes yet
        ((options, answer),) = db.execute("SELECT options, answer FROM questions WHERE id = 'held-1'")
        turned = json.loads(options)[::-1]
        letter = LETTERS[turned.index(json.loads(options)[LETTERS.index(answer)])]
        db.execute(
            "UPDATE questions SET options = ?, answer = ?, targets = '[]' WHERE id = 'held-1'",
            (json.dumps(turned), letter),
        )
        other = {"options": f"'{json.dumps(list(LETTERS))}'", "targets": "'[{}]'", "question": "'other'"}
        next_one = "CASE answer WHEN 'A' THEN 'B' ELSE 'A' END"
        db.execute(f"UPDATE questions SET {column} = {other.get(column, next_one)} WHERE id <> 'held-1'")
    same = 1 + (boxless if column == "targets" else 0)
    work = [work_of(runs / name) for name in ("a", "b")]
    (told,) = compared(work, "base")
    assert {row.difference.n for row in told.rows if "clean" in row.measure} == {same}
    assert "left out: the question of that id is another one there" in told.note


def test_unlike_works_are_not_compared(client: TestClient) -> None:
    text = page_of(client, "/compare?run=done&run=attack").text
    assert "answer no common question" in text
    assert page_of(client, "/compare").text.count("Choose two runs or more") == 1
