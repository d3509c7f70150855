"""Attackers by name: an editor, and an editor with the LoRA of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from small_vlms import noise_pictures
from sparring.config import AttackerSettings
from sparring.data.records import VisualQuestion
from sparring.models.editors import load_editor
from sparring.redteam.attackers import load_attacker
from sparring.redteam.spec import split_lora

PICTURES = noise_pictures(2)
QUESTIONS = [VisualQuestion(f"q{n}", Path("x.png"), "Where?", ("left", "right"), "A") for n in range(2)]


def test_an_editor_with_and_without_its_lora(editor: Path, tmp_path: Path) -> None:
    tuned = load_editor(editor)
    tuned.add_lora(2, 4, seed=1)
    with torch.no_grad():
        for parameter in tuned.trainable_parameters().values():
            parameter.add_(0.2)
    lora = tmp_path / "run" / "round3" / "attacker" / "editor"
    tuned.save_lora(lora)
    plain = load_attacker(AttackerSettings(model=str(editor), evaluation_steps=2), torch.device("cpu"))
    with_lora = load_attacker(AttackerSettings(model=f"{editor}+{lora}", evaluation_steps=2), torch.device("cpu"))
    assert (plain.name, with_lora.name) == ("editor", "editor+round3")
    before, after = (attacker.edit(QUESTIONS, PICTURES, seed=5) for attacker in (plain, with_lora))
    assert [edit.seed for edit in before] == [edit.seed for edit in after]
    assert before[0].instruction.endswith("answering: Where?")
    assert not np.array_equal(np.asarray(before[0].image), np.asarray(after[0].image))
    # An edit depends on its own question and picture alone.
    alone = with_lora.edit(QUESTIONS[1:], PICTURES[1:], seed=5)
    assert np.abs(np.asarray(alone[0].image, dtype=int) - np.asarray(after[1].image, dtype=int)).max() <= 1


def test_where_an_editor_ends_and_its_lora_begins(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    there = str(tmp_path / "a+b")
    assert split_lora("zoo/editor") == ("zoo/editor", None)
    assert split_lora("zoo/editor+runs/a+b/editor") == ("zoo/editor", "runs/a+b/editor")
    assert split_lora(there) == (there, None)
    assert split_lora(f"{there}+x+y") == (there, "x+y")


@pytest.mark.parametrize("spec", ["black-forest-labs/FLUX.2-klein-4B", "/no/such/folder"])
def test_a_name_without_plus_is_left_alone(spec: str) -> None:
    assert split_lora(spec) == (spec, None)
