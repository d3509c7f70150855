"""Attackers by name: an editor, and an editor with the LoRA of a run."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from small_game import write_game_questions
from small_vlms import noise_pictures, tiny_qwen2_5_vl
from sparring.attackers.rivals.load import split_lora, split_rival
from sparring.config import AttackerSettings, DefenderSettings, ProbeSettings
from sparring.data.errors import ModelError, RecipeError
from sparring.data.questions import read_questions
from sparring.data.records import VisualQuestion
from sparring.engine.screen import Screen
from sparring.models.editors import load_editor
from sparring.models.vlms.base import load_vlm
from sparring.probe.attackers import check_attackers, idle_attackers, load_attacker
from sparring.probe.questions import Asked
from sparring.probe.run import run_probe

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


def test_a_lora_that_changes_nothing_is_refused_but_where_a_game_has_made_it(
    editor: Path, tmp_path: Path
) -> None:
    tuned = load_editor(editor)
    tuned.add_lora(2, 4, seed=1)
    tuned.save_lora(tmp_path / "lora")
    own = AttackerSettings(model=f"{editor}+{tmp_path / 'lora'}", evaluation_steps=2)
    with pytest.raises(ModelError, match="changes no weight"):
        load_attacker(own, CPU, nobody)
    idle = load_attacker(own, CPU, nobody, must_change=False).edit(QUESTIONS, PICTURES, seed=5)
    plain = load_attacker(own.model_copy(update={"model": str(editor)}), CPU, nobody)
    for one, other in zip(idle, plain.edit(QUESTIONS, PICTURES, seed=5), strict=True):
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    probe = ProbeSettings(
        data="q.jsonl",
        defenders={"d": "/models/d"},
        defender=DefenderSettings(model="/models/d"),
        attackers={
            "own": own.model,
            "as it came": str(editor),
            "trip": f"roundtrip@{own.model}",
            "f": "paste:add",
        },
    )
    assert idle_attackers(probe) == [
        "own learned nothing in its game: it is the editor as it came",
        "trip learned nothing in its game: it is the editor as it came",
    ]
    with torch.no_grad():
        for parameter in tuned.trainable_parameters().values():
            parameter.add_(0.2)
    tuned.save_lora(tmp_path / "lora")
    assert idle_attackers(probe) == []
    for file in (tmp_path / "lora").glob("*.safetensors"):
        file.write_bytes(b"damaged")
    assert idle_attackers(probe) == []  # it is told where it is loaded, and is no Attacker without a lesson


def test_an_attacker_that_learned_nothing_in_its_game_is_told(editor: Path, tmp_path: Path) -> None:
    """And refused where a user names it: a probe of a study is handed its questions too."""
    tiny_qwen2_5_vl(tmp_path / "one")
    questions = write_game_questions(tmp_path, 2)
    tuned = load_editor(editor)
    tuned.add_lora(2, 4, seed=1)
    tuned.save_lora(tmp_path / "lora")
    settings = ProbeSettings(
        data=str(questions),
        device="cpu",
        threads=1,
        resamples=100,
        defenders={"one": str(tmp_path / "one")},
        defender=DefenderSettings(model=str(tmp_path / "one"), max_new_tokens=4),
        attackers={"own": f"{editor}+{tmp_path / 'lora'}"},
        attacker=AttackerSettings(model=str(editor), evaluation_steps=1),
        controls=False,
        letters=False,
        text=False,
    )
    with pytest.raises(ModelError, match="changes no weight"):
        run_probe(settings, tmp_path / "user", Screen(Console(file=io.StringIO())))
    asked = Asked(list(read_questions(questions)), [], {})
    results = run_probe(settings, tmp_path / "study", Screen(Console(file=io.StringIO())), asked=asked)
    assert results["warnings"][0] == "own learned nothing in its game: it is the editor as it came"


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


@pytest.mark.parametrize(
    ("name", "spec", "refused"),
    [
        ("asked again", "light:0.9", True),
        ("benign", "light:0.9", True),
        ("adaptive", "light:0.9", True),
        ("benign", "benign@{editor}", False),
        ("light", "light:0.9", False),
    ],
)
def test_what_a_probe_adds_by_itself_has_a_name_of_its_own(
    name: str, spec: str, refused: bool, editor: Path, tmp_path: Path
) -> None:
    defender = tiny_qwen2_5_vl(tmp_path / "defender")
    settings = ProbeSettings(
        data="q.jsonl",
        defenders={"toy": str(defender)},
        defender=DefenderSettings(model=str(defender)),
        attackers={name: spec.format(editor=editor)},
        attacker=AttackerSettings(model=str(editor)),
        adapt=1,
    )
    if refused:
        with pytest.raises(RecipeError, match=f'"{name}" is the name of what the probe adds'):
            check_attackers(settings)
    else:
        check_attackers(settings)


def test_names_of_rivals() -> None:
    assert split_rival("jpeg:30") == ("jpeg:30", None)
    assert split_rival("my.rivals:draw:size=3") == ("my.rivals:draw:size=3", None)
    assert split_rival("benign@a+b") == ("benign", "a+b")
    assert split_rival("arena/editor") == (None, "arena/editor")
