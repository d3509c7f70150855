"""Where a run's questions come from, and that held-out pictures are new."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from small_vlms import tiny_qwen2_5_vl
from sparring.asking.refusals import taken, takes_of
from sparring.config import AttackerSettings, CallSettings, DataSettings, DefenderSettings, Recipe
from sparring.data.convert import write_questions
from sparring.data.errors import DataError, RecipeError, RunError
from sparring.data.records import Target, VisualQuestion
from sparring.engine.ledger import Ledger
from sparring.engine.questions import load_questions
from sparring.engine.screen import Screen

calls: list[int] = []


def write(folder: Path, name: str, count: int, seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng, questions = np.random.default_rng(seed), []
    for i in range(count):
        path = folder / f"{name}{i // 2}.png"  # two questions a picture
        if not path.exists():
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        questions.append(
            VisualQuestion(
                f"{name}{i}",
                path.resolve(),
                "Where?",
                ("left", "right"),
                "AB"[i % 2],
                (Target("cup", (0, 0, 4, 4)),),
            )
        )
    return write_questions(folder / f"{name}.jsonl", questions)


def one_file(folder: Path, *, seed: int, count: int = 20) -> Path:
    calls.append(seed)
    return write(folder, "all", count, seed)


def two_files(folder: Path, *, seed: int) -> tuple[Path, Path]:
    return write(folder, "train", 10, seed), write(folder / "held", "held", 12, seed + 1000)


def elsewhere(folder: Path, *, seed: int) -> Path:
    return write(folder.parent / "elsewhere", "all", 10, seed)


def load(out: Path, seed: int = 0, **data: object) -> tuple[list[VisualQuestion], list[VisualQuestion]]:
    recipe = Recipe(
        name="t",
        seed=seed,
        data=DataSettings.model_validate(data),
        attacker=AttackerSettings(model="e"),
        defender=DefenderSettings(model="d"),
    )
    out.mkdir(exist_ok=True)
    return load_questions(recipe, out.resolve(), Ledger(out.resolve()), Screen(Console(file=io.StringIO())))


def test_one_file_is_split_by_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "mine", "q", 20, 0)
    train, held_out = load(tmp_path / "run", path=str(path), held_out=6)
    assert (len(train), len(held_out)) == (14, 6)
    assert not {q.image for q in train} & {q.image for q in held_out}
    assert [q.id for q in load(tmp_path / "run", path=str(path), held_out=6, seed=1)[1]] != [
        q.id for q in held_out
    ]


def test_a_generator_is_called_once_with_the_run_s_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.clear()
    settings = CallSettings(call="dataset_functions:one_file", arguments={"count": 12})
    monkeypatch.setitem(__import__("sys").modules, "dataset_functions", _module())
    first = load(tmp_path / "run", seed=5, generator=settings, held_out=4)
    assert load(tmp_path / "run", seed=5, generator=settings, held_out=4) == first
    assert calls == [5]
    assert first[0][0].image.is_relative_to((tmp_path / "run/data").resolve())


def test_a_generator_cut_off_starts_again_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dataset_functions", _module())
    left = tmp_path / "run/data/left_behind.png"
    left.parent.mkdir(parents=True)
    left.touch()
    load(tmp_path / "run", generator=CallSettings(call="dataset_functions:one_file"), held_out=4)
    assert not left.exists()


def test_a_generator_may_write_its_own_held_out_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dataset_functions", _module())
    settings = CallSettings(call="dataset_functions:two_files")
    train, held_out = load(tmp_path / "run", generator=settings, held_out=5)
    assert len(train) == 10
    assert len(held_out) == 5
    assert {q.id[:4] for q in held_out} == {"held"}


def test_held_out_questions_of_a_file_do_not_depend_on_the_run_s_seed(tmp_path: Path) -> None:
    paths = {
        "path": str(write(tmp_path / "a", "t", 10, 0)),
        "held_out_path": str(write(tmp_path / "b", "h", 10, 1)),
    }
    chosen = [
        [q.id for q in load(tmp_path / f"run{seed}", seed=seed, held_out=4, **paths)[1]] for seed in range(3)
    ]
    assert chosen[0] == chosen[1] == chosen[2]


def test_held_out_pictures_must_be_new(tmp_path: Path) -> None:
    paths = {
        "path": str(write(tmp_path / "a", "t", 10, 0)),
        "held_out_path": str(write(tmp_path / "b", "h", 10, 0)),
    }
    with pytest.raises(DataError, match="same picture"):
        load(tmp_path / "run", held_out=10, **paths)


def test_no_source_and_a_generator_that_writes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="names no questions"):
        load(tmp_path / "run")
    monkeypatch.setitem(__import__("sys").modules, "dataset_functions", _module())
    with pytest.raises(DataError, match="must return one or two paths"):
        load(tmp_path / "run", generator=CallSettings(call="dataset_functions:elsewhere"))


def _module() -> object:
    import types

    module = types.ModuleType("dataset_functions")
    for function in (one_file, two_files, elsewhere):
        setattr(module, function.__name__, function)
    return module


def test_questions_that_the_defender_does_not_take_are_set_aside_on_both_sides(tmp_path: Path) -> None:
    path = write(tmp_path / "mine", "q", 20, 0)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    Image.new("RGB", (500, 2)).save(path.parent / "q3.png")  # the picture of two questions
    for number in (6, 7):
        records[number]["targets"] = []
    records[12]["question"] = "Where is <|image_pad|>?"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    model = tiny_qwen2_5_vl(tmp_path / "vlm")
    recipe = Recipe(
        name="t",
        seed=0,
        data=DataSettings(path=str(path), held_out=6),
        attacker=AttackerSettings(model="e"),
        defender=DefenderSettings(model=str(model)),
    )
    said, out = io.StringIO(), tmp_path / "run"
    out.mkdir()
    ledger = Ledger(out)
    takes, screen = takes_of(recipe.defender), Screen(Console(file=said, width=500))
    assert takes is not None

    def keep(side: list[VisualQuestion]) -> list[VisualQuestion]:
        return taken(takes, recipe.defender, side, screen)

    train, held_out = load_questions(recipe, out, ledger, screen, keep=keep)
    names = {question.id for question in (*train, *held_out)}
    assert names == {f"q{i}" for i in range(20)} - {"q6", "q7", "q12"}
    for name in ("q6", "q7", "q12"):
        assert f'question "{name}" is set aside' in said.getvalue()
    recorded = ledger._db.execute("SELECT id FROM questions").fetchall()
    assert {row[0] for row in recorded} == names
    assert takes_of(DefenderSettings(model="http://127.0.0.1:9/v1#m")) is None


@pytest.mark.parametrize("changed", ["train.jsonl", "held.jsonl"])
def test_a_run_does_not_go_on_with_other_questions(tmp_path: Path, changed: str) -> None:
    data = {"path": str(write(tmp_path, "train", 20, 1)), "held_out_path": str(write(tmp_path, "held", 6, 2))}
    first = load(tmp_path / "out", **data)
    assert load(tmp_path / "out", **data) == first
    lines = (tmp_path / changed).read_text().splitlines()
    record = json.loads(lines[0])
    record["answer"] = "B" if record["answer"] == "A" else "A"
    (tmp_path / changed).write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
    with pytest.raises(RunError, match=rf"{changed}: changed since the game in \S+ began"):
        load(tmp_path / "out", **data)
    load(tmp_path / "another", **data)
