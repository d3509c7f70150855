"""What an evaluation tells of its data: items without a picture, records that were dropped, references of
which any is right.
"""

import json
from pathlib import Path

import pytest

from endpoint_server import serving
from small_benchmarks import PICTURES, hallusion_record
from small_eval import evaluate, settings_of
from sparring.benchmarks.items import Answered
from sparring.benchmarks.layouts import find_benchmark, read_benchmark
from sparring.benchmarks.rules.sparring import strict
from sparring.data.errors import DataError


def test_items_without_a_picture_are_counted(tmp_path: Path) -> None:
    (tmp_path / "VD/ocr").mkdir(parents=True)
    PICTURES[0].save(tmp_path / "VD/ocr/0_1.png")
    records = [
        hallusion_record(),
        hallusion_record(category="VS", visual_input="0", figure_id="0", filename=None),
    ]
    (tmp_path / "HallusionBench.json").write_text(json.dumps(records))
    with serving(lambda image, body: {"text": r"\boxed{yes}"}) as server:
        found = evaluate(settings_of(tmp_path, f"{server.url}#toy", suite="hallusionbench"), tmp_path / "out")
    assert (found["items"], found["without_picture"], found["unreadable_pictures"]) == (2, 1, 0)
    assert "1 item asked without a picture" in (tmp_path / "out/results.md").read_text()


def test_dropped_records_are_counted(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "a.png")
    good = {"id": "a", "image": "a.png", "question": "?", "options": ["x", "y"], "answer": "A"}
    rows = [
        good,
        good | {"id": "b", "image": "none.png"},
        good | {"id": "c", "answer": "Z"},
        good | {"id": "d"},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with serving(lambda image, body: {"text": r"\boxed{A}"}) as server:
        with pytest.raises(
            DataError, match=r"(?s)line 2 .*line 3 .*Fix these 2 records, or pass --skip-bad-records"
        ):
            evaluate(settings_of(tmp_path / "q.jsonl", f"{server.url}#toy"), tmp_path / "refused")
        assert not server.lines
        settings = settings_of(tmp_path / "q.jsonl", f"{server.url}#toy", skip_bad_records=True)
        found = evaluate(settings, tmp_path / "out")
    assert (found["items"], found["dropped"]) == (2, {"image missing": 1, "answer is no option": 1})
    assert "Left out: 2 bad records" in (tmp_path / "out/results.md").read_text()


def test_any_reference_of_an_open_question_is_right(tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "a.png")
    row = {
        "id": "validation_Math_1",
        "image": "a.png",
        "question": "?",
        "options": "[]",
        "answer": "['1', 'one, or so']",
    }
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    (item,) = read_benchmark(find_benchmark("mmmu"), tmp_path / "q.jsonl")
    replies = {
        r"\boxed{1}": 1.0,
        r"\boxed{One, or so.}": 1.0,
        r"\boxed{2}": 0.0,
        r"\boxed{['1', 'one, or so']}": 0.0,
    }
    for reply, score in replies.items():
        (mark,) = strict([Answered(item, (reply,))], {})
        assert mark.score == score, reply
