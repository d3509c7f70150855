"""Attackers by name: an editor, and an editor with the LoRA of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from small_vlms import noise_pictures, tiny_qwen2_5_vl
from sparring.attackers.rivals.load import split_lora, split_rival
from sparring.config import AttackerSettings, DefenderSettings
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion
from sparring.models.editors import load_editor
from sparring.models.vlms.base import load_vlm
from sparring.probe.attackers import load_attacker

CPU = torch.device("cpu")
PICTURES = noise_pictures(2)
QUESTIONS = [VisualQuestion(f"q{n}", Path("x.png"), "Where?", ("left", "right"), "A") for n in range(2)]


def nobody() -> Any:
    raise AssertionError("no Defender is needed")


def test_an_editor_with_and_without_its_lora(editor: Path, tmp_path: Path) -> None:
    tuned = load_editor(editor)
    tuned.add_lora(2, 4, seed=1)
    with torch.no_grad():
        for parameter in tuned.trainable_parameters().values():
            parameter.add_(0.2)
    lora = tmp_path / "run" / "round3" / "attacker" / "editor"
    tuned.save_lora(lora)
    plain = load_attacker(AttackerSettings(model=str(editor), evaluation_steps=2), CPU, nobody)
    with_lora = load_attacker(AttackerSettings(model=f"{editor}+{lora}", evaluation_steps=2), CPU, nobody)
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
    assert split_lora("arena/editor") == ("arena/editor", None)
    assert split_lora("arena/editor+runs/a+b/editor") == ("arena/editor", "runs/a+b/editor")
    assert split_lora(there) == (there, None)
    assert split_lora(f"{there}+x+y") == (there, "x+y")


@pytest.mark.parametrize("spec", ["black-forest-labs/FLUX.2-klein-4B", "/no/such/folder"])
def test_a_name_without_plus_is_left_alone(spec: str) -> None:
    assert split_lora(spec) == (spec, None)


def test_rivals_by_name(editor: Path) -> None:
    def edits(model: str) -> list[Any]:
        attacker = load_attacker(AttackerSettings(model=model, evaluation_steps=2), CPU, nobody)
        return attacker.edit(QUESTIONS, PICTURES, seed=5)

    fog = edits("corruption:fog:3")
    assert fog[0].attacker == "corruption:fog:3"
    assert not np.array_equal(np.asarray(fog[0].image), np.asarray(PICTURES[0]))
    through = load_editor(editor).reencode(PICTURES[:1])
    shown = np.asarray(edits(f"roundtrip@{editor}")[0].image, dtype=float) / 255
    assert np.abs(shown - through[0].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    assert edits(f"benign@{editor}")[0].instruction.startswith("make the picture")
    with pytest.raises(RecipeError, match='did you mean "fog"'):
        edits("corruption:fogg:3")


def test_gradients_need_a_defender_of_this_machine(tmp_path: Path) -> None:
    defender = tiny_qwen2_5_vl(tmp_path / "defender")
    settings = DefenderSettings(model=str(defender), prompt="{question} {options}", max_new_tokens=3)
    attacker = load_attacker(
        AttackerSettings(model="pgd:eps=8:steps=1"), CPU, lambda: (load_vlm(settings.model), settings)
    )
    edit = attacker.edit(QUESTIONS[:1], PICTURES[:1], seed=5)[0]
    moved = np.abs(np.asarray(edit.image, dtype=int) - np.asarray(PICTURES[0], dtype=int))
    assert 0 < moved.max() <= 8
    with pytest.raises(RecipeError, match="an endpoint gives none"):
        load_attacker(
            AttackerSettings(model="pgd:eps=8"), CPU, lambda: (load_vlm("http://127.0.0.1:9/v1#x"), settings)
        )


def test_names_of_rivals() -> None:
    assert split_rival("jpeg:30") == ("jpeg:30", None)
    assert split_rival("my.rivals:draw:size=3") == ("my.rivals:draw:size=3", None)
    assert split_rival("benign@a+b") == ("benign", "a+b")
    assert split_rival("arena/editor") == (None, "arena/editor")
