"""The gallery of a ledger: what a filter lets pass is what a plain walk over all rows finds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from report.fake_run import FakeRun
from report.viewer.looking import HOSTILE, work_of, write_game
from sparring.report.viewer.edits import SORTS, Edits
from sparring.report.viewer.exhibits import PAGE

Row = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "game"
    write_game(out)
    return out


@pytest.fixture
def gallery(folder: Path) -> Iterator[Edits]:
    with work_of(folder).database() as db:
        assert db is not None
        yield Edits(db, folder)


def everything(gallery: Edits) -> list[Row]:
    """Every edit with all that is known of it, joined in Python."""
    db = gallery.db
    rows = [dict(row) for row in db.execute("SELECT rowid, * FROM edits")]
    verdicts = {key(row): dict(row) for row in db.execute("SELECT * FROM verdicts")}
    questions = {row["id"]: dict(row) for row in db.execute("SELECT * FROM questions")}
    answers = [dict(row) for row in db.execute("SELECT * FROM answers")]
    clean = {
        (a["question_id"], a["defender"]): a["right"]
        for a in answers
        if a["stage"] == "evaluation/clean" or a["stage"].endswith("/clean")
    }
    kinds = {
        (row["name"], question): kind
        for row in db.execute("SELECT * FROM stages")
        for question, kind in json.loads(row["result"]).get("kinds", {}).items()
    }
    for row in rows:
        row["verdict"] = verdicts.get(key(row))
        row["category"] = questions.get(row["question_id"], {}).get("category")
        row["kind"] = kinds.get((row["stage"], row["question_id"]))
        row["answers"] = [a for a in answers if key(a) == key(row)]
        row["fooled"] = {
            a["defender"]
            for a in row["answers"]
            if not a["right"] and clean.get((a["question_id"], a["defender"])) != 0
        } if row["verdict"] and row["verdict"]["accepted"] else set()  # fmt: skip
        row["right"] = {a["defender"] for a in row["answers"] if a["right"]}
    return rows


def key(row: Any) -> tuple[Any, ...]:
    return row["stage"], row["step"], row["question_id"], row["sample"]


def accepted(row: Row) -> bool:
    return bool(row["verdict"] and row["verdict"]["accepted"])


FILTERS: list[tuple[dict[str, str], Callable[[Row], bool]]] = [
    ({}, lambda row: True),
    ({"round": "1"}, lambda row: row["stage"] in ("round1/attacker", "evaluation/round1")),
    ({"round": "0"}, lambda row: row["stage"] == "evaluation/bootstrap"),
    ({"phase": "attacker"}, lambda row: row["stage"] == "round1/attacker"),
    ({"phase": "evaluation"}, lambda row: row["stage"].startswith("evaluation/")),
    ({"update": "1"}, lambda row: row["stage"] == "round1/attacker" and row["step"] == 1),
    ({"by": "round2"}, lambda row: row["attacker"] == "round2"),
    ({"verdict": "accepted"}, accepted),
    ({"verdict": "rejected"}, lambda row: row["verdict"] is not None and not accepted(row)),
    ({"verdict": "duplicate"}, lambda row: bool(row["verdict"] and row["verdict"]["duplicate"])),
    ({"verdict": "none"}, lambda row: row["verdict"] is None),
    ({"verdict": "invalid"}, lambda row: bool(row["verdict"]) and row["verdict"]["label_valid"] == 0),
    ({"verdict": "unchanged"}, lambda row: False),
    ({"kind": "add"}, lambda row: row["kind"] == "add"),
    ({"category": "counting"}, lambda row: row["category"] == "counting"),
    ({"fooled": "*"}, lambda row: bool(row["fooled"])),
    ({"fooled": "base"}, lambda row: "base" in row["fooled"]),
    ({"fooled": "base", "held": "round2"}, lambda row: "base" in row["fooled"] and "round2" in row["right"]),
    ({"opponent": "round2", "asked": "base"}, lambda row: row["stage"] == "evaluation/round2" and any(
        a["defender"] == "base" for a in row["answers"])),
    ({"round": "1", "kind": "add", "fooled": "base"}, lambda row: row["stage"] == "evaluation/round1"
        and row["kind"] == "add" and "base" in row["fooled"]),
    ({"phase": "nothing"}, lambda row: False),
    ({"verdict": "' OR 1 --"}, lambda row: False),
    ({"fooled": "base' OR '1"}, lambda row: False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "fits"), FILTERS, ids=lambda own: str(own) if isinstance(own, dict) else ""
)
def test_a_filter_lets_pass_what_it_says(
    gallery: Edits, filters: dict[str, str], fits: Callable[[Row], bool]
) -> None:
    expected = {key(row) for row in everything(gallery) if fits(row)}
    page = gallery.page(filters, 0, 10_000)
    shown = [
        (tile.key["stage"], int(tile.key["step"]), tile.key["question"], int(tile.key["sample"]))
        for tile in page.tiles
    ]
    assert len(shown) == len(set(shown)) == page.of
    assert set(shown) == expected
    if (
        filters.keys() <= {"round", "phase", "by", "kind", "fooled"}
        and "nothing" not in filters.values()
        and page.of == 0
    ):
        assert "'" in str(filters), "this filter shows nothing here, so nothing is tested"


@pytest.mark.parametrize("sort", SORTS)
def test_pages_follow_one_another_and_so_do_neighbours(gallery: Edits, sort: str) -> None:
    filters = {"phase": "evaluation", "sort": sort}
    whole = [tile.key for tile in gallery.page(filters, 0, 10_000).tiles]
    assert len(whole) > PAGE
    paged = [tile.key for start in range(0, len(whole), 7) for tile in gallery.page(filters, start, 7).tiles]
    assert paged == whole
    for place in (0, 1, 30, len(whole) - 1):
        near = gallery.neighbours(whole[place], filters)
        assert (near.place, near.of) == (place + 1, len(whole))
        assert near.before == (whole[place - 1] if place else None)
        assert near.after == (whole[place + 1] if place + 1 < len(whole) else None)


def test_orders_are_those_that_they_are_called(gallery: Edits) -> None:
    rows = {key(row): row for row in everything(gallery)}

    def in_order(sort: str) -> list[Row]:
        tiles = gallery.page({"phase": "attacker", "sort": sort}, 0, 100).tiles
        return [
            rows[tile.key["stage"], int(tile.key["step"]), tile.key["question"], int(tile.key["sample"])]
            for tile in tiles
        ]

    rewards = [row["verdict"]["reward"] for row in in_order("reward")]
    assert len(rewards) == 16
    assert rewards == sorted(rewards, reverse=True)
    assert [row["verdict"]["reward"] for row in in_order("low")] == sorted(rewards)
    places = [row["rowid"] for row in in_order("newest")]
    assert places == sorted(places, reverse=True)
    falls = [row["verdict"]["probability_drop"] for row in in_order("fall")]
    assert falls == sorted(falls, reverse=True)


def test_an_edit_outside_the_filters_has_no_neighbours(gallery: Edits) -> None:
    edit = gallery.page({"phase": "attacker"}, 0).tiles[0].key
    near = gallery.neighbours(edit, {"phase": "evaluation"})
    assert near.place is None
    assert near.before is None
    assert near.of == gallery.page({"phase": "evaluation"}, 0).of


def test_an_exhibit_tells_everything_that_the_ledger_holds(gallery: Edits) -> None:
    key = {"stage": "round1/attacker", "step": "0", "sample": "0"}
    question = (
        gallery.page({"phase": "attacker", "update": "0", "sort": "oldest"}, 0).tiles[0].key["question"]
    )
    found = gallery.exhibit(key | {"question": question})
    assert found is not None
    assert found.outcome == "fooled"
    assert found.targets
    assert found.answer in "ABCD"
    (witness,) = found.witnesses
    assert witness.name == "base"
    assert [reply.right for reply in witness.before] == [True]
    assert [reply.right for reply in witness.after] == [False]
    assert witness.flipped
    assert dict(found.parts) == {"bonus for passing the gate": 0.1, "the Defender’s failures": 0.0}
    assert found.reward == pytest.approx(0.1)
    assert len(found.related) == 4
    assert {tile.key["question"] for tile in found.related} == {question}


def test_held_out_edits_show_every_defender_and_every_opponent(gallery: Edits) -> None:
    key = gallery.page({"opponent": "round2", "fooled": "base"}, 0).tiles[0].key
    found = gallery.exhibit(key)
    assert found is not None
    assert [witness.name for witness in found.witnesses] == ["base", "round1", "round2"]
    assert all(len(witness.before) == 1 for witness in found.witnesses)
    assert {tile.key["stage"] for tile in found.related} == {
        f"evaluation/{name}" for name in ("reencoded", "bootstrap", "round1", "round2")
    }
    assert found.kind is not None


def test_clean_pictures_are_shown_where_nobody_attacked(gallery: Edits) -> None:
    page = gallery.page({"opponent": "clean", "asked": "base"}, 0)
    assert page.of == 16
    found = gallery.exhibit(page.tiles[0].key)
    assert found is not None
    assert found.pair.after is None
    assert found.pair.before is not None
    assert {witness.name for witness in found.witnesses} == {"base", "round1", "round2"}


def test_what_is_not_there_is_nothing(gallery: Edits) -> None:
    for key in (
        {},
        {"stage": "x", "step": "y", "question": "z", "sample": "0"},
        {"stage": "round1/attacker"},
    ):
        assert gallery.exhibit(key) is None
        assert gallery.pair(key) is None


def test_ids_may_hold_anything(tmp_path: Path) -> None:
    def alter(run: FakeRun) -> None:
        scenes = run.scenes
        run.questions = [
            replace(q, id=f"{HOSTILE} {n}", category=HOSTILE) for n, q in enumerate(run.questions)
        ]
        run.scenes = dict(zip([q.id for q in run.questions], scenes.values(), strict=True))

    write_game(tmp_path / "game", until_round=1, alter=alter)
    with work_of(tmp_path / "game").database() as db:
        assert db is not None
        gallery = Edits(db, tmp_path / "game")
        page = gallery.page({"category": HOSTILE}, 0)
        assert page.of == gallery.page({}, 0).of > 0
        for tile in page.tiles[:3]:
            assert gallery.exhibit(tile.key) is not None
            assert gallery.neighbours(tile.key, {}).place is not None
            pair = gallery.pair(tile.key)
            assert pair is not None
            assert pair.after is not None
            assert pair.after.is_file()


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    run = write_game(tmp_path / "game", until_round=0)
    (tmp_path / "secret.png").write_bytes((run.questions[0].image).read_bytes())
    link = tmp_path / "game/pictures/link.png"
    link.symlink_to(tmp_path / "secret.png")
    names = ["../secret.png", str(tmp_path / "secret.png"), "pictures/link.png", "pictures/../../secret.png"]
    with sqlite3.connect(tmp_path / "game/ledger.sqlite") as db:
        for sample, name in enumerate(names):
            row = ("evaluation/bootstrap", 9, run.questions[0].id, sample, "a", "", 0, name)
            db.execute("INSERT INTO edits VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    with work_of(tmp_path / "game").database() as ledger:
        assert ledger is not None
        gallery = Edits(ledger, tmp_path / "game")
        for sample in range(len(names)):
            key = {
                "stage": "evaluation/bootstrap",
                "step": "9",
                "question": run.questions[0].id,
                "sample": str(sample),
            }
            pair = gallery.pair(key)
            assert pair is not None
            assert pair.after is None
