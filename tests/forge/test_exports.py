"""What other tools are given: it is read here by the tools themselves, or as their formats say."""

import base64
import csv
import io
import json
import sys
from pathlib import Path

import datasets
import pytest
import trl.data_utils
from PIL import Image

from endpoint_server import serving
from small_forge import forge_of, forge_quietly, is_light, players, write_light_questions
from sparring.data.questions import read_questions
from sparring.forge.records import Sample
from sparring.forge.sources import open_source


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(questions, data set)."""
    folder = tmp_path_factory.mktemp("forged")
    path = write_light_questions(folder / "questions", 30)
    with serving(players) as server:
        forge_quietly(forge_of(path, server.url, "stages.splits=[0.2, 0.2]"), folder / "out")
    return path, folder / "out" / "dataset"


def kept(folder: Path) -> list[dict[str, object]]:
    loaded = datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))
    return [row | {"split": split} for split in loaded for row in loaded[split]]


def test_two_forges_are_told_apart_by_datasets(forged: tuple[Path, Path], tmp_path: Path) -> None:
    """Its cache does not know the folder: only the files that the card names."""
    path = write_light_questions(tmp_path / "questions", 30, seed=5)
    with serving(players) as server:
        forge_quietly(forge_of(path, server.url, "stages.splits=[0.2, 0.2]"), tmp_path / "out")
    for name in ("default", "useless"):
        folders, cache = (forged[1], tmp_path / "out" / "dataset"), str(tmp_path / "cache")
        loaded = [datasets.load_dataset(str(folder), name, cache_dir=cache) for folder in folders]
        first, second = ({row["source_sha256"] for split in one.values() for row in split} for one in loaded)
        assert first
        assert second
        assert not first & second


def test_the_tsv_is_a_source_again(forged: tuple[Path, Path]) -> None:
    _, folder = forged
    csv.field_size_limit(sys.maxsize)
    with open(folder / "exports/vlmevalkit.tsv", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    rows = {str(row["id"]): row for row in kept(folder)}
    assert len(table) == len(rows) > 2
    assert [row["index"] for row in table] == [str(number + 1) for number in range(len(table))]
    for row in table:
        with Image.open(io.BytesIO(base64.b64decode(row["image"]))) as image:
            assert image.convert("RGB").tobytes() == rows[row["id"]]["adversarial_image"].tobytes()  # type: ignore[attr-defined]
        assert row["split"] == rows[row["id"]]["split"]
        assert [row["A"], row["B"], row["answer"]] == [*rows[row["id"]]["options"], rows[row["id"]]["answer"]]  # type: ignore[misc]
    source = open_source(folder / "exports/vlmevalkit.tsv")
    samples = source.read(list(source.units()))
    assert all(
        isinstance(sample, Sample) and sample.question.targets[0].name == "lever" for sample in samples
    )


def test_the_data_set_is_a_source_again(forged: tuple[Path, Path]) -> None:
    path, folder = forged
    answers = {question.id: question for question in read_questions(path)}
    source = open_source(folder / "data")
    samples = source.read(list(source.units()))
    assert len(samples) == len(kept(folder))
    for sample in samples:
        assert isinstance(sample, Sample)
        question = answers[sample.question.id]
        assert (sample.question.answer, sample.question.targets) == (question.answer, question.targets)


def test_llamafactory_finds_every_picture(forged: tuple[Path, Path]) -> None:
    _, folder = forged
    place = folder / "exports/llamafactory"
    info = json.loads((place / "dataset_info.json").read_text())["sparring_forge"]
    records = json.loads((place / info["file_name"]).read_text())
    training = [row for row in kept(folder) if row["split"] == "train"]
    assert len(records) == len(training)
    for record in records:
        messages = record[info["columns"]["messages"]]
        assert [m[info["tags"]["role_tag"]] for m in messages] == [
            info["tags"]["user_tag"],
            info["tags"]["assistant_tag"],
        ]
        contents = [m[info["tags"]["content_tag"]] for m in messages]
        (name,) = record[info["columns"]["images"]]
        assert contents[0].count("<image>") == 1
        with Image.open(place / name) as image:
            # The right answer, which is not what the picture as a whole looks like: that is why the Defender
            # was wrong.
            assert contents[1] == f"\\boxed{{{'BA'[is_light(image)]}}}"


def test_trl_takes_the_conversations(forged: tuple[Path, Path]) -> None:
    _, folder = forged
    table = datasets.load_dataset(
        "parquet",
        data_files=str(folder / "exports/trl/train.parquet"),
        cache_dir=str(folder.parent / "cache"),
    )["train"]
    assert len(table) == sum(row["split"] == "train" for row in kept(folder))
    row = table[0]
    assert trl.data_utils.is_conversational(row)
    assert isinstance(row["images"][0], Image.Image)
    turns = trl.data_utils.prepare_multimodal_messages(
        row["prompt"] + row["completion"], images=row["images"]
    )
    assert [part["type"] for part in turns[0]["content"]] == ["image", "text"]
    assert turns[1]["content"][0]["text"].startswith("\\boxed{")
