"""The suites in official layouts: read as the benchmarks are, the same questions as in their own files,
scored with the benchmarks' figures.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from endpoint_server import Answer, question, serving
from sparring.benchmarks.items import Item
from sparring.benchmarks.layouts import find_benchmark, read_benchmark
from sparring.benchmarks.questions import questions_of
from sparring.benchmarks.scoring import read_results
from sparring.cli import app
from sparring.data.errors import DataError, RecipeError
from sparring.data.images import image_sha256
from sparring.data.questions import read_questions
from sparring.engine.calls import split_writer, written_data
from sparring_arena import benchmarks
from sparring_arena.world import SIZE

SUITES = {
    "vstar": ("vstar", "visual_search"),
    "hrbench-4k": ("hrbench", "large_pictures"),
    "pope": ("pope", "presence"),
    "hallusionbench": ("hallusionbench", "altered_pairs"),
}


def written(folder: Path, function: str, number: int = 4) -> Path:
    size = {"side": 128} if function == "hrbench" else {}
    path = getattr(benchmarks, function)(folder, seed=2, number=number, **size)
    assert isinstance(path, Path)
    return path


@pytest.mark.parametrize("suite", SUITES)
def test_the_official_file_asks_what_the_suites_own_file_asks(suite: str, tmp_path: Path) -> None:
    function, name = SUITES[suite]
    data = written(tmp_path, function)
    own = read_questions(tmp_path / f"{name}.jsonl").records
    found = questions_of(
        read_benchmark(find_benchmark(suite), data), data, tmp_path / "pictures"
    ).questions.records

    def facts(questions: list[Any]) -> Counter[Any]:
        # In V*'s files the right option is the first; of POPE's questions each is there once.
        told = [
            (
                image_sha256(Image.open(q.image).convert("RGB")),
                q.question,
                frozenset(q.options),
                q.answer_text,
                tuple(t.box for t in q.targets),
            )
            for q in questions
        ]
        return Counter(set(told)) if suite == "pope" else Counter(told)

    assert facts(found) == facts(own)


def test_orders_pairs_and_splits_are_where_the_benchmarks_have_them(tmp_path: Path) -> None:
    items = {
        suite: read_benchmark(find_benchmark(suite), written(tmp_path / suite, name))
        for suite, (name, _) in SUITES.items()
    }
    assert {item.answer for item in items["vstar"]} == {"A"}
    assert Counter(item.category for item in items["vstar"]) == {
        "direct_attributes": 2,
        "relative_position": 2,
    }
    hr: list[Item] = items["hrbench-4k"]
    assert [item.meta["cycle"] for item in hr] == [*"0123"] * 4
    assert sorted(item.answer for item in hr[:4]) == [*"ABCD"]
    assert len({image_sha256(item.pictures[0].load()) for item in hr}) == 4
    assert {split for item in items["pope"] for split in item.meta["splits"]} == {
        "random",
        "popular",
        "adversarial",
    }
    pairs = items["hallusionbench"]
    assert (
        len(
            {(item.category, item.meta["subcategory"], item.meta["set"], item.meta["pair"]) for item in pairs}
        )
        == 8
    )
    assert len({(item.meta["set"], item.meta["figure"]) for item in pairs}) == 8


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    for name in ("pope", "hallusionbench"):
        for folder in ("a", "b"):
            written(tmp_path / folder, name, 2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def by_truth(folder: Path, wrong: str = "") -> Answer:
    """A server that knows every answer; `wrong`: but is wrong about pictures and questions of that name."""
    known = {}
    for file in folder.rglob("*.jsonl"):
        for one in read_questions(file):
            key = image_sha256(Image.open(one.image).convert("RGB")), one.question
            known[key] = "nonsense" if wrong and wrong in one.id else one.answer_text

    def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        asked = question(body)
        text = next(line for line in asked.split("\n") if line.endswith("?"))
        said = known[image_sha256(image), text]
        return {"text": said if said in ("yes", "no") else f"\\boxed{{{said}}}"}

    return answer


def evaluated(suite: str, out: Path, answer: Answer, *options: str) -> dict[str, Any]:
    with serving(answer) as server:
        data = f"sparring_arena.benchmarks:{SUITES[suite][0]}:seed=2:number=4" + (
            ":side=128" if "hr" in suite else ""
        )
        command = [
            "eval",
            "--suite",
            suite,
            "--data",
            data,
            "--defender",
            f"{server.url}#toy",
            "--out",
            str(out),
            *options,
        ]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        return read_results(out)


@pytest.mark.slow
def test_one_command_writes_asks_and_scores(tmp_path: Path) -> None:
    """With the figures of each benchmark: all right; right but for the second picture of every pair; yes to
    everything.
    """
    for suite, (name, _) in SUITES.items():
        written(tmp_path / "truth", name)
        found = evaluated(suite, tmp_path / suite, by_truth(tmp_path / "truth"))
        assert {
            own["value"] for profile, own in found["profiles"].items() if profile in ("sparring", "official")
        } == {1.0}, suite
    figures = read_results(tmp_path / "hrbench-4k")["profiles"]["sparring"]["figures"]
    assert figures == {"cycle accuracy": 1.0, "FSP": 1.0, "FCP": 1.0}
    half = evaluated("hallusionbench", tmp_path / "half", by_truth(tmp_path / "truth", wrong="-after"))[
        "profiles"
    ]["sparring"]
    assert half["figures"] == {"aAcc": 0.5, "fAcc": 0.5, "qAcc": 0.0}
    for prompt, text in (("boxed", "Yes."), ("options", "\\boxed{A}")):
        yes = evaluated(
            "pope", tmp_path / prompt, lambda image, body, text=text: {"text": text}, "--prompt", prompt
        )
        own = yes["profiles"]["sparring"]["figures"]
        assert (own["yes share"], own["recall"]) == (1.0, 1.0)
        assert own["f1"] == pytest.approx(2 * own["precision"] / (own["precision"] + 1))
        assert yes["profiles"]["aot"]["unparsed"] == (yes["items"] if prompt == "options" else 0)


def test_what_names_a_function_that_writes_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = split_writer("sparring_arena.benchmarks:pope:seed=3:number=2")
    assert found is not None
    assert (found.call, found.arguments) == ("sparring_arena.benchmarks:pope", {"seed": 3, "number": 2})
    assert split_writer("my.jsonl") is None
    assert split_writer("C:data") is None
    (tmp_path / "a.b:c").mkdir()
    monkeypatch.chdir(tmp_path)
    assert split_writer("a.b:c") is None
    with pytest.raises(RecipeError, match=r"--data.arguments do not fit"):
        written_data("sparring_arena.benchmarks:pope:size=3", tmp_path)
    with pytest.raises(RecipeError, match="cannot be imported"):
        written_data("sparring_arena.benchmarks:coco", tmp_path)
    with pytest.raises(DataError, match="must return the path of what it wrote below"):
        written_data("os.path:dirname", tmp_path)
    first, other = (
        written_data(f"sparring_arena.benchmarks:vstar:number={number}", tmp_path) for number in (1, 2)
    )
    assert first != other  # other data do not overwrite the first
    assert np.asarray(Image.open(next(first.glob("*/*.png")))).shape == (SIZE, SIZE, 3)


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_the_bundled_defender_is_evaluated_and_probed_on_every_suite(suite: str, tmp_path: Path) -> None:
    data = f"sparring_arena.benchmarks:{SUITES[suite][0]}:number=6" + (":side=72" if "hr" in suite else "")
    common = [
        "--suite",
        suite,
        "--data",
        data,
        "--defender",
        "arena/defender",
        "--recipe",
        "arena",
        "--set",
        "threads=1",
    ]
    result = CliRunner().invoke(
        app, ["eval", *common, "--prompt", "options", "--out", str(tmp_path / "eval")]
    )
    assert result.exit_code == 0, result.output
    own = read_results(tmp_path / "eval")["profiles"]["sparring"]
    assert own["unparsed"] <= 0.1 * own["n"]
    assert own["value"] > 0.5
    result = CliRunner().invoke(
        app,
        [
            "probe",
            *common,
            "--no-controls",
            "--attacker",
            "corruption:fog:3",
            "--out",
            str(tmp_path / "probe"),
        ],
    )
    assert result.exit_code == 0, result.output
    probed = json.loads((tmp_path / "probe" / "results.json").read_text())
    conditions = probed["defenders"]["defender"]["conditions"]
    assert len(conditions) == 8
    right, wrong = (conditions[f"{which}_thought"]["accuracy"]["value"] for which in ("right", "wrong"))
    assert right > 0.8
    assert wrong <= right - 0.25  # the letter follows the word before it
    assert probed["without_boxes"] < probed["questions"]
