"""Bad records among good ones: all good ones are worked on, every bad one is listed with its reason."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint_server import Server, serving
from small_forge import LightVLM, forge_of, forge_quietly, players, write_light_questions
from small_malformed import KINDS, spoil
from sparring.forge import players as players_module
from sparring.forge import smith


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(players) as server:
        yield server


def check(server: Server, tmp_path: Path, good: int, every: int, *changes: str) -> None:
    path = write_light_questions(tmp_path / "data", good)
    bad = spoil(path, every)
    out = tmp_path / "out"
    funnel = forge_quietly(forge_of(path, server.url, *changes), out)
    listed = [json.loads(line) for line in (out / "dataset/apart/refused.jsonl").read_text().splitlines()]
    assert {record["number"]: record["reason"] for record in listed} == {
        number: reason for number, (_, reason) in bad.items()
    }
    assert all(record["message"] for record in listed)
    records = funnel["records"]
    assert records["refused"] == len(bad)
    assert records["broken"] == 0
    assert records["kept"] + records["useless"] + records["rejected"] == good
    assert funnel["stages"][0]["out"] == good
    assert sum(funnel["stages"][0]["dropped"].values()) == len(bad)


def test_one_bad_record_of_every_kind(server: Server, tmp_path: Path) -> None:
    assert len(KINDS) >= 25
    check(server, tmp_path, 24, 1)


@pytest.mark.slow
def test_three_hundred_bad_records_among_a_thousand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(players_module, "load_asked_defender", lambda *_: LightVLM())
    check(server, tmp_path, 1000, 9, "batch=64", "stages.attempts=1")


def test_an_id_that_comes_back_in_a_later_batch_is_refused(server: Server, tmp_path: Path) -> None:
    path = write_light_questions(tmp_path / "data", 20)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    out = tmp_path / "out"
    assert forge_quietly(forge_of(path, server.url), out)["records"]["refused"] == 1
    (listed,) = (json.loads(line) for line in (out / "dataset/apart/refused.jsonl").read_text().splitlines())
    assert listed["reason"] == "duplicate id"
    assert 'line 21 (id "q1"): id was already given on line 2' in listed["message"]


def test_a_record_that_breaks_is_set_aside_with_its_traceback(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_light_questions(tmp_path / "data", 12)
    check_proposals = smith.check_proposals
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace("lever", "fifth")
    path.write_text("\n".join(lines))

    def breaks(proposals: object, question: object, *rest: object) -> object:
        if question.targets[0].name == "fifth":  # type: ignore[attr-defined]
            raise ZeroDivisionError("the fifth record")
        return check_proposals(proposals, question, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(smith, "check_proposals", breaks)
    out = tmp_path / "out"
    records = forge_quietly(forge_of(path, server.url, "batch=4"), out)["records"]
    assert records["broken"] == 1
    assert sum(records[name] for name in ("kept", "useless", "rejected")) == 11
    (listed,) = (json.loads(line) for line in (out / "dataset/apart/broken.jsonl").read_text().splitlines())
    assert listed["id"] == "q4"
    assert listed["reason"] == "ZeroDivisionError"
    assert "Traceback" in listed["message"]
    assert "the fifth record" in listed["message"]
