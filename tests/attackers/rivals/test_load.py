"""Specifications, what is wrong with them, and the rivals that are an editor."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from small_checkpoints import tiny_flux2_klein
from small_vlms import tiny_qwen2_5_vl
from sparring.attackers.rivals import Rival, all_corruptions, load_rival
from sparring.attackers.rivals.editors import HARMLESS
from sparring.attackers.rivals.paste import Paste
from sparring.attackers.rivals.pgd import Pgd
from sparring.attackers.rollout import deterministic_edits, to_pictures
from sparring.config import AttackerSettings, DefenderSettings
from sparring.data.errors import DataError, RecipeError
from sparring.data.records import VisualQuestion
from sparring.models.editors import FlowEditor, load_editor
from sparring.models.vlms.local import LocalVLM
from sparring.probe.attackers import victim_of
from sparring.seeds import derive_seed

ATTACKER = AttackerSettings(model="tiny", instruction="fool: {question}", evaluation_steps=2)
QUESTIONS = [VisualQuestion(f"q{i}", Path("q.png"), f"Is it {i}?", ("yes", "no"), "A") for i in range(3)]


def picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


PICTURES = [picture(64, 64, 0), picture(48, 56, 1), picture(64, 64, 2)]


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> FlowEditor:
    torch.set_num_threads(1)
    return load_editor(tiny_flux2_klein(tmp_path_factory.mktemp("flux"), text_tokens=24))


def test_a_trained_editor_is_a_rival_and_makes_the_edits_of_held_out_play(editor: FlowEditor) -> None:
    edits = load_rival("editor", editor=editor, attacker=ATTACKER).edit(QUESTIONS, PICTURES, seed=5)
    seeds = [derive_seed(5, "evaluation", question.id) for question in QUESTIONS]
    told = [f"fool: {question.question}" for question in QUESTIONS]
    expected = deterministic_edits(editor, PICTURES, told, seeds, steps=2)
    assert [edit.image.tobytes() for edit in edits] == [image.tobytes() for image in expected]
    assert [(edit.instruction, edit.seed, edit.attacker) for edit in edits] == [
        (*each, "editor") for each in zip(told, seeds, strict=True)
    ]


def test_a_round_trip_is_the_autoencoders_and_a_benign_edit_is_told_something_harmless(
    editor: FlowEditor,
) -> None:
    trips = load_rival("roundtrip", editor=editor).edit(QUESTIONS, PICTURES, seed=0)
    for edit, clean in zip(trips, PICTURES, strict=True):
        alone = np.asarray(to_pictures(editor.reencode([clean]))[0], dtype=int)
        assert np.abs(np.asarray(edit.image, dtype=int) - alone).max() <= 1
    many = [VisualQuestion(f"m{i}", Path("q.png"), "?", ("yes", "no"), "A") for i in range(16)]
    benign = load_rival("benign", editor=editor, attacker=ATTACKER)
    told = {edit.instruction for edit in benign.edit(many, [PICTURES[0]] * 16, seed=0)}
    assert told <= set(HARMLESS)
    assert len(told) > 2
    (again,) = benign.edit(many[3:4], [PICTURES[0]], seed=0)
    assert again.instruction == benign.edit(many, [PICTURES[0]] * 16, seed=0)[3].instruction


def test_every_rival_that_says_so_keeps_the_size_and_repeats_itself(editor: FlowEditor) -> None:
    rivals: list[Rival] = [
        load_rival(spec, editor=editor, attacker=ATTACKER)
        for spec in ("jpeg:30", "paste:add", "paste:insert", "roundtrip")
    ]
    assert [rival.keeps_size for rival in rivals] == [True, True, False, True]
    for rival in rivals:
        first, second = (rival.edit(QUESTIONS, PICTURES, seed=9) for _ in range(2))
        assert [edit.image.tobytes() for edit in first] == [edit.image.tobytes() for edit in second]
        assert (not rival.keeps_size) or [edit.image.size for edit in first] == [
            image.size for image in PICTURES
        ]
        assert [edit.question_id for edit in first] == ["q0", "q1", "q2"]


def test_options_by_name_and_by_place(tmp_path: Path) -> None:
    victim = victim_of(LocalVLM.load(tiny_qwen2_5_vl(tmp_path)), DefenderSettings(model="tiny"))
    pgd = load_rival("pgd:eps=4:steps=3:restarts=2:goal=wrong", victim=victim)
    assert isinstance(pgd, Pgd)
    assert pgd.settings.model_dump() == {
        "eps": 4.0,
        "steps": 3,
        "step": None,
        "restarts": 2,
        "random_start": True,
        "goal": "wrong",
    }
    assert pgd.name == "pgd:eps=4:steps=3:restarts=2:goal=wrong"
    paste = load_rival("paste:insert:size=0.5")
    assert isinstance(paste, Paste)
    assert (paste.settings.mode, paste.settings.size) == ("insert", 0.5)
    assert (
        load_rival("corruption:kind=fog:severity=3").name
        == load_rival("corruption:fog:3").name
        == "corruption:fog:3"
    )
    assert load_rival("corruption:defocus:2").name == "corruption:defocus_blur:2"
    assert len({rival.name for rival in all_corruptions()}) == 75


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("corupption:fog:3", 'did you mean "corruption"'),
        ("corruption:fogg:3", 'did you mean "fog"'),
        ("corruption:fog:6", "from 1 to 5"),
        ("corruption:fog", "not nothing"),
        ("corruption:fog:3:4", "one option too many"),
        ("pgd:esp=8", 'did you mean "eps"'),
        ("pgd:eps=much", "eps=much"),
        ("pgd:eps=0.5", "greater than or equal to 1"),
        ("pgd:goal=wrongg", 'did you mean "wrong"'),
        ("pgd:eps=2:2:eps=3", "given twice"),
        ("pgd", "needs the Defender's weights"),
        ("paste:ad", 'did you mean "add"'),
        ("jpeg:200", "from 1 to 100"),
        ("roundtrip", "needs an editor"),
        ("benign:now", "takes none"),
        ("", "there is no"),
    ],
)
def test_wrong_specifications_name_the_nearest_right_one(spec: str, words: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load_rival(spec)
    assert words in str(raised.value)
    assert f'"{spec}"' in str(raised.value)
    assert str(raised.value).endswith((".", "?"))
    assert "?." not in str(raised.value)


def test_an_editor_without_settings_is_an_error(editor: FlowEditor) -> None:
    with pytest.raises(RecipeError, match="attacker's settings"):
        load_rival("benign", editor=editor)


def test_light_is_every_pixel_times_a_number() -> None:
    (edit,) = load_rival("light:0.75").edit(QUESTIONS[:1], PICTURES[:1], seed=0)
    assert (
        np.abs(np.asarray(edit.image, dtype=float) - 0.75 * np.asarray(PICTURES[0], dtype=float)).max() <= 0.5
    )
    assert (edit.attacker, edit.instruction) == ("light:0.75", "every pixel times 0.75")
    for wrong in ("light", "light:-1", "light:dark", "light:nan"):
        with pytest.raises(RecipeError, match="0\\.75"):
            load_rival(wrong)


def mirrored(
    question: VisualQuestion, image: Image.Image, *, seed: int, skip: str = ""
) -> tuple[Image.Image, str] | None:
    return (
        None
        if question.id == skip
        else (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), f"mirrored {seed}")
    )


def broken(question: VisualQuestion, image: Image.Image, *, seed: int, error: str) -> tuple[Image.Image, str]:
    if question.id == "q1":
        raise {
            "attribute": AttributeError("no such attribute"),
            "memory": RuntimeError("DefaultCPUAllocator: no"),
        }[error]
    return image, "nothing"


def bad(question: VisualQuestion, image: Image.Image, *, seed: int) -> Image.Image:
    return image


def test_a_function_of_the_user_s_own_is_a_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("rival_module.inner")
    module.mirrored, module.bad = mirrored, bad  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rival_module", ModuleType("rival_module"))
    monkeypatch.setitem(sys.modules, "rival_module.inner", module)
    edits = load_rival("rival_module.inner:mirrored:skip=q1").edit(QUESTIONS, PICTURES, seed=5)
    assert np.array_equal(np.asarray(edits[0].image), np.asarray(PICTURES[0])[:, ::-1])
    assert edits[0].instruction == f"mirrored {edits[0].seed}"
    assert (edits[1].image.tobytes(), edits[1].instruction) == (PICTURES[1].tobytes(), "nothing")
    with pytest.raises(RecipeError, match="cannot be imported"):
        load_rival("rival_module.inner:missing")
    with pytest.raises(RecipeError, match="do not fit"):
        load_rival("rival_module.inner:mirrored:jump=1")
    with pytest.raises(DataError, match=r'question "q0".* must return'):
        load_rival("rival_module.inner:bad").edit(QUESTIONS[:1], PICTURES[:1], seed=0)


def test_whatever_a_rival_raises_costs_one_question_but_for_what_is_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("rival_module.inner")
    module.broken = broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rival_module", ModuleType("rival_module"))
    monkeypatch.setitem(sys.modules, "rival_module.inner", module)
    edits = load_rival("rival_module.inner:broken:error=attribute").try_edit(QUESTIONS, PICTURES, seed=5)
    assert [type(own) for own in edits].count(DataError) == 1
    assert re.search(r'question "q1": .* cannot edit its picture of .*: no such attribute', str(edits[1]))
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        load_rival("rival_module.inner:broken:error=memory").try_edit(QUESTIONS, PICTURES, seed=5)
