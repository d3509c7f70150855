"""The ledger: rows are overwritten, not doubled; pictures are what was seen; ids cannot leave the folder."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.data.errors import RunError
from sparring.data.records import Answer, Edit, Target, Verdict, VisualQuestion
from sparring.engine import files
from sparring.engine.ledger import Ledger, picture_name


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def edit(name: str, seed: int = 0) -> Edit:
    return Edit(name, "round1", "add a cup", seed, noise(seed))


def verdict(name: str, *, intact: bool = True, duplicate: bool = False, efficacy: float = 0.0) -> Verdict:
    return Verdict(
        name,
        0.9,
        intact,
        duplicate,
        efficacy,
        0.25,
        probability_drop=0.125,
        label_valid=None,
        notes={"answers": 1.0},
    )


def answer(name: str, right: bool, defender: str = "base") -> Answer:
    return Answer(name, defender, "so \\boxed{A}", "A", "boxed", right, None, 7)


def test_a_picture_comes_back_pixel_by_pixel(ledger: Ledger) -> None:
    ledger.record_edits("round1/attacker", 3, [edit("b", 1), edit("a", 2), edit("a", 3)], [0, 0, 1])
    found = ledger.pictures("round1/attacker")
    assert [name for name, _ in found] == ["a", "a", "b"]
    for (_, path), seed in zip(found, (2, 3, 1), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(noise(seed)))


def test_doing_a_step_again_overwrites_its_rows(ledger: Ledger) -> None:
    for efficacy in (0.0, 1.0):
        ledger.record_edits("s", 0, [edit("a")])
        ledger.record_verdicts("s", 0, [verdict("a", efficacy=efficacy)])
        ledger.record_answers("s", 0, [answer("a", False)])
        ledger.record_update("s", 0, {"reward_mean": efficacy})
    assert [ledger.count(table, "s") for table in ("edits", "verdicts", "answers", "updates")] == [1, 1, 1, 1]
    assert ledger.verdicts("s") == [verdict("a", efficacy=1.0)]
    assert ledger.updates("s") == [{"reward_mean": 1.0}]


def test_only_accepted_and_only_effective_edits(ledger: Ledger) -> None:
    verdicts = [
        verdict("rejected", intact=False, efficacy=1.0),
        verdict("twin", duplicate=True, efficacy=1.0),
        verdict("harmless"),
        verdict("hit", efficacy=0.5),
    ]
    ledger.record_edits("s", 0, [edit(v.question_id) for v in verdicts])
    ledger.record_verdicts("s", 0, verdicts)
    assert [name for name, _ in ledger.pictures("s", only="accepted")] == ["harmless", "hit"]
    assert [name for name, _ in ledger.pictures("s", only="effective")] == ["hit"]
    assert len(ledger.pictures("s")) == 4


def test_answers_are_kept_by_defender_and_trial(ledger: Ledger) -> None:
    ledger.record_answers("s", 0, [answer("a", True, "base"), answer("a", False, "round1")])
    ledger.record_answers("s", 0, [answer("a", False, "base")], trials=[1])
    assert ledger.answers("s", "base") == [answer("a", True, "base")]
    assert [a.right for a in ledger.answers("s", "round1")] == [False]
    assert ledger.count("answers", "s") == 3


def test_what_another_run_has_taken_over_is_not_written_into(tmp_path: Path) -> None:
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    there, here = (Ledger(tmp_path / name) for name in ("there", "here"))
    there.record_edits("s", 0, [edit("a", 1), edit("b", 2)])
    here.take_over("s", there.folder)
    here.record_edits("s", 0, [edit("a", 3)])
    for ledger, seed in ((there, 1), (here, 3)):
        found = dict(ledger.pictures("s"))
        assert np.array_equal(np.asarray(Image.open(found["a"])), np.asarray(noise(seed)))
    assert not list(tmp_path.rglob("*.partial"))


def test_forget_drops_later_steps_of_that_stage_only(ledger: Ledger) -> None:
    for stage in ("s", "t"):
        for step in range(3):
            ledger.record_update(stage, step, {"reward_mean": step})
    ledger.forget("s", 1)
    assert ledger.updates("s") == [{"reward_mean": 0}]
    assert len(ledger.updates("t")) == 3


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "ü?*", "x" * 300, ".."])
def test_an_id_cannot_leave_the_folder_or_clash(name: str) -> None:
    path = Path(picture_name("round1/attacker", 2, name, 5))
    assert ".." not in path.parts
    assert len(path.parts) == 5
    assert len(path.name) < 80
    assert picture_name("s", 0, "a/b", 0) != picture_name("s", 0, "a_b", 0)


def test_questions_are_there_for_readers_without_this_project(ledger: Ledger, tmp_path: Path) -> None:
    inside = VisualQuestion(
        "q",
        tmp_path / "data" / "q.png",
        "Where?",
        ("left", "right"),
        "B",
        (Target("cup", (1, 2, 3, 4)),),
        "position",
    )
    ledger.record_questions("held_out", [inside])
    row = sqlite3.connect(tmp_path / "ledger.sqlite").execute("SELECT * FROM questions").fetchone()
    assert row[:4] == ("q", "held_out", "data/q.png", "Where?")
    assert json.loads(row[6]) == [{"name": "cup", "box": [1, 2, 3, 4]}]


def test_wall_time_adds_up_over_processes_and_memory_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, peak = [100.0], [50.0]
    monkeypatch.setattr("sparring.engine.ledger.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sparring.engine.ledger.peak_rss_mb", lambda: peak[0])
    first = Ledger(tmp_path)
    now[0] = 107.0
    first.close()
    now[0], peak[0] = 5.0, 40.0  # another process: its clock and its memory begin anew
    second = Ledger(tmp_path)
    now[0] = 8.0
    second.tick()
    assert second.meta("wall_seconds") == 10.0
    assert second.meta("peak_rss_mb") == 50.0


def test_a_run_is_not_resumed_with_another_reading_of_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Ledger(tmp_path)
    first.close()
    monkeypatch.setattr(files, "RULES_VERSION", files.RULES_VERSION + 1)
    second = Ledger(tmp_path)  # nothing was read by then
    second.record_answers("round0/clean", 0, [answer("a", True)])
    second.close()
    again = Ledger(tmp_path)
    assert len(again.answers("round0/clean", "base")) == 1
    again.close()
    monkeypatch.setattr(files, "RULES_VERSION", files.RULES_VERSION + 1)
    with pytest.raises(RunError, match=r"were read by version \d+ of the rules.*--out"):
        Ledger(tmp_path)


def test_answers_of_before_versions_were_kept_are_not_mixed_in(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record_answers("round0/clean", 0, [answer("a", True)])
    ledger._db.execute("DELETE FROM meta WHERE key = 'rules_version'")
    ledger._db.commit()
    ledger.close()
    with pytest.raises(RunError, match="other rules"):
        Ledger(tmp_path)


def test_edits_that_nobody_judged_are_told_by_question(ledger: Ledger) -> None:
    ledger.record_edits("s", 0, [edit("a"), edit("b"), edit("b")], [0, 0, 1])
    ledger.record_edits("s", 1, [edit("a")])
    ledger.record_verdicts("s", 0, [verdict("a")])
    assert ledger.unjudged("s") == ["a", "b"]
    ledger.record_verdicts("s", 1, [verdict("a")])
    assert ledger.unjudged("s") == ["b"]
    assert ledger.unjudged("other") == []
