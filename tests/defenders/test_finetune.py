"""Fine-tuning from a file to a checkpoint, cut off and gone on with."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from small_game import write_game_questions
from small_vlms import tiny_qwen2_5_vl
from sparring.config import SftSettings
from sparring.data.errors import DataError, RunError
from sparring.defenders.sft import SftTrainer, run_sft
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_game_questions(tmp_path_factory.mktemp("questions"), 48)


def settings(model: Path, questions: Path, **fields: Any) -> SftSettings:
    defender = {"model": str(model), "prompt": "{question}", "prompts_per_step": 10, "learning_rate": 1e-3}
    defender |= {"algorithm": "sft"} | fields
    return SftSettings.model_validate(
        {"data": str(questions), "device": "cpu", "threads": 1, "checkpoint_every": 2, "defender": defender}
    )


def quietly(chosen: SftSettings, out: Path) -> dict[str, Any]:
    return run_sft(chosen, out, Screen(Console(file=io.StringIO())))


def weights(out: Path) -> dict[str, Any]:
    return load_file(out / "sft" / "model" / "model.safetensors")


def test_cut_off_and_gone_on_with_equals_undisturbed(
    model: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(model, questions)
    summary = quietly(chosen, tmp_path / "whole")
    # 48 questions in tens: five updates, each question once but for the two that fill the last.
    assert (summary["updates"], summary["questions"], summary["with_reasoning"], summary["broken"]) == (
        5,
        48,
        0,
        0,
    )
    assert summary["loss_last"] < summary["loss_first"]
    assert json.loads((tmp_path / "whole" / "summary.json").read_text()) == summary
    AutoModelForImageTextToText.from_pretrained(summary["model"])
    imitate = SftTrainer.imitate

    def killed(self: SftTrainer, items: Any, step: int) -> dict[str, float]:
        if step == 3:
            raise KeyboardInterrupt
        return imitate(self, items, step)

    monkeypatch.setattr(SftTrainer, "imitate", killed)
    with pytest.raises(KeyboardInterrupt):
        quietly(chosen, tmp_path / "cut")
    steps: list[int] = []
    monkeypatch.setattr(
        SftTrainer, "imitate", lambda self, items, step: (steps.append(step), imitate(self, items, step))[1]
    )
    again = quietly(chosen, tmp_path / "cut")
    assert steps == [2, 3, 4]
    assert {**again, "model": ""} == {**summary, "model": ""}
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all((whole[name] == cut[name]).all() for name in whole)
    for folder in ("whole", "cut"):
        ledger = Ledger(tmp_path / folder)
        assert len(ledger.updates("sft")) == 5
        ledger.close()
    # What is done is not done again.
    assert quietly(chosen, tmp_path / "cut") == again
    assert len(steps) == 3


def test_another_file_or_other_settings_need_another_folder(
    model: Path, questions: Path, tmp_path: Path
) -> None:
    own = tmp_path / "data"
    own.mkdir()
    for file in questions.parent.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    chosen = settings(model, own / questions.name, lora={"rank": 2, "alpha": 4})
    summary = quietly(chosen, tmp_path / "out")
    assert (Path(summary["model"]) / "adapter" / "adapter_model.safetensors").is_file()
    with pytest.raises(RunError, match="another fine-tuning"):
        quietly(chosen.model_copy(update={"epochs": 2}), tmp_path / "out")
    (own / questions.name).write_text("\n".join((own / questions.name).read_text().splitlines()[1:]))
    with pytest.raises(RunError, match="changed since the fine-tuning"):
        quietly(chosen, tmp_path / "out")


def test_records_that_the_defender_does_not_take_are_named_and_set_aside(
    model: Path, questions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "q"
    shutil.copytree(questions.parent, folder)
    path = folder / questions.name
    records = [json.loads(line) for line in path.read_text().splitlines()][:12]
    records[2]["reasoning"] = "I look at <|image_pad|> and see it."
    records[5]["question"] = "Light <|video_pad|>?"
    Image.new("RGB", (600, 1)).save(folder / "long.png")
    records[7] |= {"image": "long.png", "targets": []}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    said = io.StringIO()
    chosen = settings(model, path, algorithm={"type": "sft", "reply": "{reasoning} \\boxed{{{answer}}}"})
    summary = run_sft(chosen, tmp_path / "out", Screen(Console(file=said, width=500)))
    assert (summary["questions"], summary["broken"]) == (9, 0)
    for number, reason in ((2, "<|image_pad|>"), (5, "<|video_pad|>"), (7, "600 x 1 pixels")):
        assert f'question "{records[number]["id"]}" is set aside' in said.getvalue()
        assert reason in said.getvalue()
    path.write_text(json.dumps(records[2]) + "\n")
    with pytest.raises(DataError, match="takes none of 1 question;"):
        quietly(chosen, tmp_path / "none")
