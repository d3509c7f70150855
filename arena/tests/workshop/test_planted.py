"""Planted edits are of the kind that they are said to be, and leave alone what they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from sparring.judging.kinds import KINDS
from sparring_arena.questions import ask
from sparring_arena.world import Scene, Thing, render, sample_scene
from workshop.planted import EDITED, aside, draw, kind_of, light_cases, oracle_look, planted

CUP, DOG, BUS = Thing("cup", "red", 0, 0), Thing("dog", "blue", 4, 1), Thing("bus", "white", 1, 6)
SCENE = Scene(3, (CUP, DOG))


def test_the_kind_follows_from_what_is_in_the_scenes() -> None:
    assert kind_of(SCENE, SCENE) == "unchanged"
    assert kind_of(SCENE, SCENE.with_thing(BUS)) == "add"
    assert kind_of(SCENE, SCENE.without(0)) == "remove"
    assert kind_of(SCENE, SCENE.swapped(0, replace(CUP, color="green"))) == "replace"
    assert kind_of(SCENE, SCENE.swapped(0, replace(CUP, name="mug", column=1))) == "replace"
    assert kind_of(SCENE, SCENE.swapped(0, replace(CUP, row=5))) == "hybrid"  # gone here, new there
    assert kind_of(SCENE, SCENE.swapped(0, replace(CUP, name="mug")).with_thing(BUS)) == "hybrid"


def test_kinds_take_turns_and_instructions_go_with_them() -> None:
    for i, edit in enumerate(draw(3, 24)):
        assert edit.kind == KINDS[i % len(KINDS)]
        assert len(edit.instructions) == {"unchanged": 0, "imperceptible": 0, "hybrid": 2}.get(edit.kind, 1)
        assert (edit.before == edit.after) == (edit.kind not in EDITED)
    assert [edit.kind for edit in draw(3, 4, ("remove", "add"))] == ["remove", "add"] * 2


def test_pictures_are_the_same_at_every_call_and_change_where_their_kind_does() -> None:
    made, again = planted(4, 12), planted(4, 12)
    for (clean, edited, kind), (_, other, _) in zip(made, again, strict=True):
        assert edited.tobytes() == other.tobytes()
        assert (clean.tobytes() == edited.tobytes()) == (kind == "unchanged")


def test_the_oracle_names_what_is_in_a_region() -> None:
    picture = Image.fromarray(render(SCENE))
    inside, nothing, everything = oracle_look([picture] * 3, [CUP.box, (0, 40, 30, 72), (0, 0, 72, 72)])
    assert [(target.name, target.box) for target in inside] == [("red cup", CUP.box)]
    assert nothing == []
    assert {target.name for target in everything} == {"red cup", "blue dog"}


def test_what_a_question_is_about_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = sample_scene(rng)
        asked = ask(scene, "existence", rng)
        assert asked is not None
        for edit in ("add", "remove", "replace", "recolor"):
            after = aside(scene, asked, edit, rng)
            if after is not None:
                assert after != scene
                assert set(asked.about) <= set(after.things)
                assert all(after.count(name) == scene.count(name) for name in asked.names)
    lone = Scene(3, (CUP,))
    asked = ask(lone, "attribute", rng)
    assert asked is not None
    assert aside(lone, asked, "remove", rng) is None


def test_light_cases_change_nothing_in_the_boxes_but_the_light() -> None:
    cases = list(light_cases(5, 4))
    assert {case.relit for case in cases} == {True, False}
    for case in cases:
        if not case.relit and "noise" not in case.name and "encoded" not in case.name:
            for x0, y0, x1, y1 in case.boxes:
                assert (case.clean[y0:y1, x0:x1] == case.edited[y0:y1, x0:x1]).all()
