"""Works that are no game, as their own verbs leave them: an attack, a probe, a forge, an evaluation; and folders
that hold something else than they should."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from endpoint_server import dice, serving
from probe.test_probe import probe, settings_of
from report.test_page import Page
from report.viewer.looking import client_of, page_of, work_of
from small_eval import evaluate, write_custom
from small_eval import settings_of as eval_settings_of
from small_forge import forge_of, forge_quietly, players, write_light_questions
from small_game import write_game_questions
from sparring.report.viewer.compare import sheets_of
from sparring.report.viewer.works import Works


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    data = tmp_path_factory.mktemp("data")
    with serving(dice) as server:
        questions = write_game_questions(data / "probed", 4)
        settings = settings_of(
            questions, {"toy | a": f"{server.url}#toy"}, letters=False, samples=2,
            attackers={"noise": "corruption:gaussian_noise:3"}, controls=False,
        )  # fmt: skip
        probe(settings, out / "probe")
        for name, seed in (("eval", 0), ("again", 0)):
            own = eval_settings_of(write_custom(data / name, 6, seed=seed), f"{server.url}#toy")
            evaluate(own, out / name)
            (out / name / "eval.yaml").write_text(yaml.safe_dump(json.loads(own.model_dump_json())))
    with serving(players) as server:
        forge_quietly(forge_of(write_light_questions(data / "forged", 30), server.url), out / "forge")
    return out


@pytest.fixture
def client(root: Path, tmp_path: Path) -> TestClient:
    return client_of(root, tmp_path / "cache")


def test_a_probe_shows_its_edits_with_every_answer_and_its_table(root: Path, client: TestClient) -> None:
    results = json.loads((root / "probe/results.json").read_text())
    with sqlite3.connect(root / "probe/ledger.sqlite") as db:
        (edits,) = db.execute("SELECT count(*) FROM edits").fetchone()
        (wrong,) = db.execute(
            "SELECT count(*) FROM answers a WHERE stage LIKE 'attack/%' AND NOT right AND EXISTS (SELECT 1 FROM"
            " answers c WHERE c.stage = 'clean' AND c.question_id = a.question_id AND c.right)"
            " AND EXISTS (SELECT 1 FROM verdicts v WHERE v.stage = a.stage AND v.question_id = a.question_id"
            " AND v.sample = a.sample AND v.accepted)"
        ).fetchone()
    assert edits == 8
    page = page_of(client, "/fight?run=probe")
    assert f"{edits} pictures" in page.text
    assert f"{wrong} pictures" in page_of(client, "/fight?run=probe&fooled=toy%20|%20a").text.replace(
        "1 picture", "1 pictures"
    )
    shown = page_of(client, str(page.with_class("tile")[0]["href"]))
    assert "toy | a" in shown.text
    assert "\\boxed{" in shown.text
    table = page_of(client, "/outcome?run=probe").text
    assert "toy | a" in table
    assert f"{results['defenders']['toy | a']['clean_accuracy']['value']:.3f}" in table
    assert "8 of 8 edits" in page_of(client, "/now?run=probe").text


def test_a_forge_shows_its_candidates_and_why_they_were_dropped(root: Path, client: TestClient) -> None:
    funnel = json.loads((root / "forge/funnel.json").read_text())
    page = page_of(client, "/fight?run=forge")
    assert f"{funnel['candidates']['tried']} pictures" in page.text
    kept = page_of(client, "/fight?run=forge&outcome=kept")
    assert len(kept.with_class("tile")) == funnel["candidates"]["kept"] > 0
    shown = page_of(client, str(kept.with_class("tile")[0]["href"]))
    for words in ("Light?", "Instruction", "Proposal", "Every attempt at this question"):
        assert words in shown.text
    walk = [str(tile["href"]) for tile in page.with_class("tile")]
    following = page_of(client, walk[1])
    assert [a["href"] for n, a in following.elements if n == "a" and a.get("rel") == "next"] == [walk[2]]
    for name, attrs in page.elements:
        if name == "img":
            assert client.get(str(attrs["src"])).status_code == 200
    assert (
        f"{funnel['records']['kept']} of {funnel['records']['read']}"
        in page_of(client, "/outcome?run=forge").text
    )
    assert "effectiveness" in page_of(client, "/outcome?run=forge").text


def test_an_evaluation_shows_every_item_under_every_profile(root: Path, client: TestClient) -> None:
    results = json.loads((root / "eval/results.json").read_text())
    right = round(results["profiles"]["sparring"]["value"] * 6)
    assert "6 pictures" in page_of(client, "/fight?run=eval").text
    page = page_of(client, "/fight?run=eval&status=right")
    assert len(page.with_class("tile")) == right
    assert len(page_of(client, "/fight?run=eval&category=warm").with_class("tile")) == 3
    shown = page_of(client, str(page_of(client, "/fight?run=eval").with_class("tile")[0]["href"]))
    for name in results["profiles"]:
        assert f"By {name}" in shown.text
    assert "Colour" in shown.text
    images = [attrs for name, attrs in page_of(client, "/fight?run=eval").elements if name == "img"]
    assert {client.get(str(attrs["src"])).status_code for attrs in images} == {200}
    assert results["title"] in page_of(client, "/outcome?run=eval").text


def test_two_evaluations_are_compared_item_by_item(client: TestClient) -> None:
    text = page_of(client, "/compare?run=eval&run=again").text
    assert "±0.0" in text
    assert "score" in text


def test_two_probes_are_compared_question_by_question(root: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(root / "probe", tmp_path / "runs" / name)
    with sqlite3.connect(tmp_path / "runs/b/ledger.sqlite") as db:
        db.execute("UPDATE answers SET right = 0 WHERE stage = 'clean'")
    with sqlite3.connect(tmp_path / "runs/a/ledger.sqlite") as db:
        (right,) = db.execute("SELECT sum(right) FROM answers WHERE stage = 'clean'").fetchone()
    text = page_of(client_of(tmp_path / "runs", tmp_path / "cache"), "/compare?run=a&run=b").text
    row = text[text.index("toy | a: right, on clean pictures") :][:120]
    assert right > 0
    assert f"−{100 * right / 4:.1f}" in row
    assert "toy | a: right, under noise" in text


def test_only_of_a_refused_edit_the_clean_answer_stands(root: Path, tmp_path: Path) -> None:
    probe = Path(shutil.copytree(root / "probe", tmp_path / "probe"))
    measure = "toy | a: right, under noise"
    clean, whole = (
        sheets_of(work_of(probe), None)[name] for name in ("toy | a: right, on clean pictures", measure)
    )
    refused, lost, *_ = sorted(whole.right)
    with closing(sqlite3.connect(probe / "ledger.sqlite")) as db, db:
        for item in (refused, lost):
            where = f"WHERE stage = 'attack/noise' AND question_id = '{item}'"
            db.execute(f"DELETE FROM answers {where}")
            db.execute(
                f"UPDATE verdicts SET accepted = 0 {where}"
                if item == refused
                else f"DELETE FROM verdicts {where}"
            )
    found = sheets_of(work_of(probe), None)[measure]
    assert set(found.right) == set(whole.right) - {lost}
    assert found.right[refused] == clean.right[refused]


def test_an_evaluation_that_goes_on_shows_what_was_answered(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "eval", tmp_path / "runs/eval")
    for name in ("results.json", "items.parquet"):
        (tmp_path / "runs/eval" / name).unlink()
    client = client_of(tmp_path / "runs", tmp_path / "cache")
    page = page_of(client, "/fight?run=eval")
    assert "6 pictures" in page.text
    shown = page_of(client, str(page.with_class("tile")[2]["href"]))
    assert "3 of 6" in shown.text
    assert "\\boxed" in shown.text
    assert "6 answers" in page_of(client, "/now?run=eval").text
    assert [name for name, _ in page.elements].count("img") == 6


def test_odd_folders_are_told_and_spoil_no_other(root: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, file, content in (
        ("yaml", "recipe.yaml", b"a: ["),
        ("list", "recipe.yaml", b"- 1"),
        ("ledger", "recipe.yaml", b"name: x"),
        ("summary", "recipe.yaml", b"name: x"),
        ("results", "probe.yaml", b"seed: 1"),
        ("good", "attack.yaml", b"samples: 2"),
        ("old", "eval.yaml", b"seed: 1"),
        ("number", "probe.yaml", b"defenders: 5"),
    ):
        (runs / name).mkdir(parents=True)
        (runs / name / file).write_bytes(content)
    (runs / "ledger/ledger.sqlite").write_bytes(b"this is no database" * 100)
    (runs / "summary/summary.json").write_text("[]")
    (runs / "old/results.json").write_text('{"items": 1}')
    (runs / "results/results.json").write_text('{"defenders": 3}')
    os.makedirs(os.fsencode(runs) + b"/od\xffd")
    with open(os.fsencode(runs) + b"/od\xffd/sft.yaml", "wb") as file:
        file.write(b"seed: 1")
    client = client_of(runs, tmp_path / "cache")
    for name, view in (
        ("yaml", "now"),
        ("list", "now"),
        ("ledger", "now"),
        ("summary", "now"),
        ("results", "outcome"),
    ):
        answer = client.get(f"/{view}?run={name}")
        assert answer.status_code in (500, 503), name
        assert "Traceback" not in answer.text
        assert "All runs" in Page(answer.text).text
    assert "good" in page_of(client, "/now?run=good").text
    listed = page_of(client, "/").text
    assert all(
        name in listed for name in ("yaml", "list", "ledger", "summary", "results", "good", "old", "number")
    )
    assert listed.count("cannot be read") == 2
    assert "etag" not in client.get("/").headers  # what passes is not kept
    assert "od\\xffd" in Works(runs).all()
    assert page_of(client, "/now?run=od%5Cxffd")


def test_numbers_that_no_database_has(client: TestClient) -> None:
    for key in (
        "number=9999999999999999999999&attempt=0",
        "number=-1&attempt=x",
        "number=%00&attempt=%D9%A3",
        "",
    ):
        assert client.get(f"/edit?run=forge&{key}").status_code == 404
    key = "stage=attack/noise&step=99999999999999999999999&question=q0&sample=0"
    assert client.get(f"/edit?run=probe&{key}").status_code == 404
    assert client.get(f"/picture?run=probe&{key}").status_code == 404
