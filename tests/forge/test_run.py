"""From a file of questions to a data set: what is kept is what the checks say, and no kill and no number of
workers changes it.
"""

import json
import multiprocessing
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from endpoint_server import Server, serving
from endpoint_server import question as asked_of
from small_forge import forge_of, forge_process, forge_quietly, is_light, players, write_light_questions
from small_workers import process
from sparring.config import ForgeSettings
from sparring.data.errors import DataError, RunError
from sparring.data.images import load_image
from sparring.data.questions import read_questions
from sparring.forge.checks import apart
from sparring.forge.ledger import Ledger
from sparring.forge.records import Result, Sample
from sparring.forge.run import forge

COUNT = 30


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(players) as server:
        yield server


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_light_questions(tmp_path_factory.mktemp("questions"), COUNT)


@pytest.fixture(scope="module")
def finished(
    server: Server, questions: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ForgeSettings, dict[str, Any]]:
    out = tmp_path_factory.mktemp("forged")
    settings = forge_of(questions, server.url, licence="cc-by-4.0")
    return out, settings, forge_quietly(settings, out)


def rows(out: Path, name: str = "default") -> list[dict[str, Any]]:
    loaded = datasets.load_dataset(str(out / "dataset"), name, cache_dir=str(out / "cache"))
    return [row | {"split": split} for split in loaded for row in loaded[split]]


def test_kept_pairs_mislead_the_defender_and_keep_off_the_targets(
    finished: tuple[Path, Any, dict[str, Any]], questions: Path
) -> None:
    out, _, funnel = finished
    asked = {question.id: question for question in read_questions(questions)}
    kept = rows(out)
    assert 3 <= len(kept) == funnel["records"]["kept"]
    for row in kept:
        question, clean, edited = (
            asked[row["id"]],
            np.asarray(row["image"]),
            np.asarray(row["adversarial_image"]),
        )
        np.testing.assert_array_equal(clean, np.asarray(Image.open(question.image)))
        right = "AB".index(question.answer)
        assert is_light(row["image"]) == bool(right)
        assert is_light(row["adversarial_image"]) != bool(right)
        boxes = [tuple(d["box"]) for d in row["distractors"]]
        assert 1 <= len(boxes) <= 2
        taken = [t.box for t in question.targets]
        for box in boxes:
            assert all(apart(box, other, 1) for other in taken)
            taken.append(box)
        changed = (clean != edited).any(-1)
        assert changed.any()
        for x0, y0, x1, y1 in boxes:
            changed[y0:y1, x0:x1] = False
        assert not changed.any()
        assert row["integrity"] == pytest.approx(1.0, abs=0.3)
        assert row["efficacy"] == 1.0


def test_useless_candidates_are_apart_and_did_not_mislead(
    finished: tuple[Path, Any, dict[str, Any]], questions: Path
) -> None:
    out, _, funnel = finished
    answers = {question.id: question.answer for question in read_questions(questions)}
    useless = rows(out, "useless")
    assert (
        len(useless)
        == sum(d["count"] for d in funnel["candidates"]["dropped"] if d["outcome"] == "useless")
        > 0
    )
    for row in useless:
        assert "AB"[is_light(row["adversarial_image"])] == answers[row["id"]]
        assert row["message"].startswith("the Defender failed 0%")


def test_no_source_picture_is_in_two_splits(server: Server, tmp_path: Path) -> None:
    path = write_light_questions(tmp_path / "q", 60, seed=4)
    forge_quietly(forge_of(path, server.url, "stages.splits=[0.3, 0.3]"), tmp_path / "out")
    found = rows(tmp_path / "out")
    splits: dict[bytes, set[str]] = {}
    for row in found:
        splits.setdefault(row["image"].tobytes(), set()).add(row["split"])
    assert {row["split"] for row in found} == {"train", "validation", "test"}
    assert all(len(own) == 1 for own in splits.values())
    assert len(splits) < len(found)  # there are pictures with two questions


def test_the_funnel_adds_up(finished: tuple[Path, Any, dict[str, Any]]) -> None:
    out, settings, funnel = finished
    assert json.loads((out / "funnel.json").read_text()) == funnel
    assert (
        sum(funnel["records"][name] for name in ("kept", "useless", "rejected", "refused", "broken"))
        == funnel["records"]["read"]
        == COUNT
    )
    for before, after in zip(funnel["stages"], funnel["stages"][1:], strict=False):
        assert before["out"] == after["in"] == before["in"] - sum(before["dropped"].values())
    assert funnel["stages"][-1]["out"] == funnel["records"]["kept"]
    assert funnel["settings"] == settings.model_dump(mode="json")
    card = (out / "dataset" / "README.md").read_text()
    assert 'license: "cc-by-4.0"' in card
    assert funnel["content_hash"] in card
    assert str(Path(settings.data).parent.parent) not in card
    assert "127.0.0.1" not in card
    assert str(Path.cwd()) not in card


def test_a_finished_forge_asks_nothing_again(
    finished: tuple[Path, ForgeSettings, dict[str, Any]], server: Server
) -> None:
    out, settings, funnel = finished
    asked = len(server.lines)
    again = forge_quietly(settings, out)
    assert len(server.lines) == asked
    assert again == funnel


def test_other_settings_or_another_source_are_refused(
    finished: tuple[Path, ForgeSettings, dict[str, Any]], server: Server, tmp_path: Path
) -> None:
    out, settings, _ = finished
    with pytest.raises(RunError, match="another forge"):
        forge_quietly(settings.model_copy(update={"seed": 9}), out)
    path = write_light_questions(tmp_path / "q", 6)
    own = forge_of(path, server.url)
    forge_quietly(own, tmp_path / "out")
    path.write_text(path.read_text().replace("q1", "r1"))
    with pytest.raises(RunError, match="has changed"):
        forge_quietly(own, tmp_path / "out")


def test_a_source_without_records_and_one_that_is_not_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no record"):
        forge_quietly(forge_of(tmp_path / "none.jsonl", server.url), tmp_path / "out")
    with pytest.raises(DataError, match="no such file"):
        forge_quietly(forge_of(tmp_path / "nowhere.jsonl", server.url), tmp_path / "out")


def test_a_source_whose_pictures_are_all_missing_is_an_error_and_can_be_mended(
    server: Server, tmp_path: Path
) -> None:
    path = write_light_questions(tmp_path / "questions", 4)
    pictures = {picture: picture.read_bytes() for picture in path.parent.glob("*.png")}
    for picture in pictures:
        picture.unlink()
    with pytest.raises(DataError, match=r"none of its 4 records can be used\. The first: .*\.png"):
        forge_quietly(forge_of(path, server.url), tmp_path / "out")
    for picture, content in pictures.items():
        picture.write_bytes(content)
    assert forge_quietly(forge_of(path, server.url), tmp_path / "out")["records"]["refused"] == 0


def test_the_seed_and_the_limit_count(
    finished: tuple[Path, ForgeSettings, dict[str, Any]], tmp_path: Path
) -> None:
    _, settings, funnel = finished
    other = forge_quietly(settings.model_copy(update={"seed": 1}), tmp_path / "seed")
    assert other["content_hash"] != funnel["content_hash"]
    few = forge_quietly(settings.model_copy(update={"limit": 5}), tmp_path / "limit")
    assert few["records"]["read"] == 5


@contextmanager
def forging(settings: ForgeSettings, out: Path) -> Iterator[BaseProcess]:
    """Forge in another process, which has begun; at the end it is killed."""
    started = multiprocessing.get_context("forkserver").Event()
    with process(forge_process, settings.model_dump_json(), str(out), started) as forger:
        assert started.wait(60)
        yield forger


@pytest.mark.slow
def test_killed_at_twenty_random_moments_the_data_set_is_the_same(
    finished: tuple[Path, ForgeSettings, dict[str, Any]], tmp_path: Path
) -> None:
    _, settings, funnel = finished
    settings = settings.model_copy(update={"batch": 1})
    whole = forge_quietly(settings, tmp_path / "whole")
    rng, out, written = random.Random(0), tmp_path / "out", set[int]()
    # Every record asks the Defender twice to four times, one after the other: that takes longer than all
    # twenty processes are given.
    with serving(players, delay=0.3) as slow:
        own = settings.model_copy(
            update={"defender": settings.defender.model_copy(update={"model": f"{slow.url}#defender"})}
        )
        for number in range(20):
            with forging(own, out) as forger:
                asked = len(slow.lines)
                while (
                    number % 4 and forger.is_alive() and len(slow.lines) == asked
                ):  # every fourth may be killed before it has begun to ask
                    forger.join(0.01)
                forger.join(rng.uniform(0, 1.2))
            assert forger.exitcode == -signal.SIGKILL, "it had ended before it was killed"
            assert not (out / "funnel.json").exists()
            with closing(Ledger(out)) as ledger:
                written.add(ledger.batches)
        assert len(written) >= 3
        assert max(written) < COUNT
        # the last two while the data set is written
        for sign in ("dataset.partial", "dataset.partial/exports"):
            with forging(own, out) as forger:
                while forger.is_alive() and not (out / sign).exists():
                    forger.join(0.001)
            assert forger.exitcode == -signal.SIGKILL
            assert not (out / "dataset").exists()
        asked = len(slow.lines)
        again = forge_quietly(own, out)
        assert len(slow.lines) == asked
    assert again["content_hash"] == whole["content_hash"]
    assert again["candidates"] == whole["candidates"]
    assert again["records"] == whole["records"] == funnel["records"]
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_the_number_of_workers_changes_nothing(
    finished: tuple[Path, ForgeSettings, dict[str, Any]], workers: int, tmp_path: Path
) -> None:
    _, settings, funnel = finished
    again = forge_quietly(settings, tmp_path, workers)
    assert again["content_hash"] == funnel["content_hash"]
    assert again["candidates"] == funnel["candidates"]


@pytest.mark.parametrize("who", ["defender", "proposer", "judge"])
def test_a_record_that_a_model_refuses_is_told_in_the_funnel_and_the_others_go_on(
    questions: Path, tmp_path: Path, who: str
) -> None:
    filtered = Image.open(questions.parent / "0.png").convert("RGB").tobytes()

    def shy(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] == who and image.tobytes() == filtered and not asked_of(body).endswith("s?"):
            return {"text": None, "finish_reason": "content_filter"}
        return players(image, body)

    with serving(shy) as server:
        changes = {
            "defender": [],
            "proposer": [f"stages.propose.model='{server.url}#proposer'"],
            "judge": [f"judge.model='{server.url}#judge'", "stages.panel.prompts=true"],
        }[who]
        funnel = forge_quietly(forge_of(questions, server.url, "limit=8", *changes), tmp_path / "out")
    assert funnel["records"]["read"] == 8
    assert funnel["records"]["refused"] == 1
    assert funnel["records"]["broken"] == 0
    dropped = [drop for stage in funnel["stages"] for drop in stage["dropped"]]
    name = {"defender": "the Defender", "proposer": "the proposing model", "judge": "the judge model"}[who]
    assert f"refused by {name}" in dropped
    (line,) = (tmp_path / "out/dataset/apart/refused.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "q0"
    assert "content_filter" in json.loads(line)["message"]


def test_an_edit_that_the_defender_refuses_is_told_and_the_others_go_on(
    questions: Path, tmp_path: Path
) -> None:
    cleans = {Image.open(path).convert("RGB").tobytes() for path in questions.parent.glob("*.png")}

    def shy(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        if image.tobytes() not in cleans and np.asarray(image)[0, 0, 0] % 2:
            return {"text": None, "finish_reason": "content_filter"}
        return players(image, body)

    with serving(shy) as server:
        funnel = forge_quietly(forge_of(questions, server.url, "limit=12"), tmp_path / "out")
    assert funnel["records"]["read"] == 12
    assert 0 < funnel["records"]["refused"] < 12
    assert funnel["records"]["broken"] == 0
    assert (
        sum(stage["dropped"].get("refused by the Defender", 0) for stage in funnel["stages"])
        == funnel["records"]["refused"]
    )


class Lacking:
    """A smith that runs out of memory over more samples than it can hold."""

    def __init__(self, holds: int, error: Exception) -> None:
        self.holds, self.error = holds, error

    def forge(self, samples: Sequence[Sample]) -> list[Result]:
        if len(samples) > self.holds:
            raise self.error
        return [Result(sample.number, sample.question.id, "useless", "", "", "") for sample in samples]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_machine_without_memory_is_no_fault_of_the_records(questions: Path, error: Exception) -> None:
    records = read_questions(questions).records[:3]
    samples = [Sample(n, record, load_image(record.image)) for n, record in enumerate(records)]
    found = forge(Lacking(1, error), samples)  # type: ignore[arg-type]
    assert [result.outcome for result in found] == ["useless"] * 3
    with pytest.raises(type(error)):
        forge(Lacking(0, error), samples)  # type: ignore[arg-type]
    broken = forge(Lacking(0, ZeroDivisionError()), samples)  # type: ignore[arg-type]
    assert [(result.outcome, result.reason) for result in broken] == [("broken", "ZeroDivisionError")] * 3
