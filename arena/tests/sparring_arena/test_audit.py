"""The audit: what an edit may do, and after what the right answer is no longer right, on planted edits of
random scenes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion
from sparring_arena.audit import added, asked_names, label_valid
from sparring_arena.dataset import draw, to_record
from sparring_arena.questions import SceneQuestion
from sparring_arena.sprites import COLORS, NAMES, lookalikes
from sparring_arena.world import Scene, Thing, add_lookalike, place, random_color, render

VALID = ("none", "look-alike", "darker", "other recolored")
INVALID = ("second", "target removed", "target recolored", "target replaced", "target moved")


def planted(edit: str, scene: Scene, asked: SceneQuestion, rng: np.random.Generator) -> Scene | None:
    target = scene.things.index(asked.about[0]) if asked.about else None
    others = [i for i, thing in enumerate(scene.things) if thing not in asked.about]
    if edit in ("none", "darker"):
        return scene
    if edit == "look-alike":
        after = add_lookalike(scene, asked.names[0], rng)
        return None if after is None or after.things[-1].name in asked.names else after
    if edit == "second":
        thing = place(rng, asked.names[0], random_color(rng), scene.things)
        return None if thing is None else scene.with_thing(thing)
    index = (others[0] if others else None) if edit == "other recolored" else target
    if index is None:
        return None
    old = scene.things[index]
    if edit.endswith("removed"):
        return scene.without(index)
    if edit.endswith("recolored"):
        return scene.swapped(index, replace(old, color=next(c for c in COLORS if c != old.color)))
    if edit.endswith("replaced"):
        return scene.swapped(
            index, replace(old, name=next(n for n in lookalikes(old.name) if n not in asked.names))
        )
    moved = place(rng, old.name, old.color, scene.things)
    return None if moved is None else scene.swapped(index, moved)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Scene, SceneQuestion, VisualQuestion]]:
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for i in range(40):
        scene, asked = draw(8, "held_out", i)
        path = folder / f"{i}.png"
        Image.fromarray(render(scene)).save(path)
        made.append((scene, asked, to_record(str(i), path, asked)))
    return made


@pytest.mark.parametrize("edit", [*VALID, *INVALID])
def test_planted_edits_are_judged_as_they_are(
    edit: str, questions: list[tuple[Scene, SceneQuestion, VisualQuestion]]
) -> None:
    agreed = []
    for i, (scene, asked, record) in enumerate(questions):
        after = planted(edit, scene, asked, np.random.default_rng(i))
        if after is None:
            continue
        pixels = render(after) * (0.8 if edit == "darker" else 1.0)
        picture = Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.4))
        agreed.append(label_valid(record, picture) is (edit in VALID))
    assert len(agreed) >= 15
    assert np.mean(agreed) >= 0.97


@pytest.mark.parametrize("edit", ["darker", "look-alike", "second", "target replaced"])
def test_what_was_added_is_read(
    edit: str, questions: list[tuple[Scene, SceneQuestion, VisualQuestion]]
) -> None:
    edited = 0
    for i, (scene, asked, _) in enumerate(questions[:8]):
        after = planted(edit, scene, asked, np.random.default_rng(i))
        if after is None:
            continue
        edited += 1
        new = {(t.name, t.color, t.box) for t in after.things[len(scene.things) :]}
        assert len(new) == (edit in ("look-alike", "second"))
        pixels = render(after) * (0.8 if edit == "darker" else 1.0)
        found = added(NAMES, scene.things, render(scene), pixels)
        assert {(s.name, s.color, s.box) for s in found} == new
        found = added(asked.names, asked.about, render(scene), pixels)
        assert {(s.name, s.color, s.box) for s in found} == (new if edit == "second" else set())
    assert edited >= 5


def test_what_takes_the_place_of_a_thing_that_was_not_told_of_was_added() -> None:
    scene = Scene(1, (Thing("dog", "red", 0, 0), Thing("cup", "blue", 4, 4)))
    after = scene.swapped(1, Thing("fox", "green", 4, 4))
    asked = added(("dog", "fox"), scene.things[:1], render(scene), render(after))
    assert [(s.name, s.color, s.box) for s in asked] == [("fox", "green", after.things[1].box)]
    assert not added(NAMES, scene.things, render(scene), render(after))


def test_other_questions_are_not_judged_and_other_sizes_are_refused(
    questions: list[tuple[Scene, SceneQuestion, VisualQuestion]],
) -> None:
    _, _, record = questions[0]
    assert asked_names("Where is the cup relative to the dog?") == ("cup", "dog")
    assert asked_names("How many foxes are in the picture?") == ("fox",)
    assert asked_names("What is this?") is None
    assert label_valid(replace(record, question="What is this?"), Image.new("RGB", (72, 72))) is None
    with pytest.raises(DataError, match="100 x 72"):
        label_valid(record, Image.new("RGB", (100, 72)))
