"""The audit of edits against edits whose effect is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sparring.data.errors import DataError
from sparring.data.records import VisualQuestion
from sparring.scenes.audit import asked_names, label_valid, measure, still_right
from sparring.scenes.dataset import to_record
from sparring.scenes.questions import KINDS, SceneQuestion, ask
from sparring.scenes.sprites import NAMES, plural
from sparring.scenes.world import SIZE, Scene, Thing, place, render, sample_scene


def picture(scene: Scene, blur: float = 0.0) -> Image.Image:
    image = Image.fromarray(render(scene))
    return image.filter(ImageFilter.GaussianBlur(blur)) if blur else image


def recolored(scene: Scene, index: int, color: str) -> Scene:
    return replace(
        scene,
        things=tuple(
            replace(thing, color=color) if i == index else thing for i, thing in enumerate(scene.things)
        ),
    )


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A yellow cup, a blue bottle and a red clock, with room to spare."""
    things: list[Thing] = []
    for i, (name, color) in enumerate((("cup", "yellow"), ("bottle", "blue"), ("clock", "red"))):
        thing = place(
            np.random.default_rng([1, i]), name, color, [other.box for other in things], sizes=(18, 20)
        )
        assert thing is not None
        things.append(thing)
    return Scene(12, tuple(things))


@pytest.fixture(scope="module")
def question(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> VisualQuestion:
    path = tmp_path_factory.mktemp("audit") / "clean.png"
    picture(scene).save(path)
    asked = SceneQuestion(
        "attribute",
        "What color is the cup?",
        ("red", "yellow", "blue", "white"),
        1,
        scene.things[:1],
        ("cup",),
    )
    return to_record("q", path, asked)


def test_names_are_read_from_every_kind_of_question() -> None:
    for i in range(40):
        rng = np.random.default_rng([9, i])
        asked = ask(sample_scene(rng), KINDS[i % 4], rng)
        if asked is not None:
            assert asked_names(asked.question) == asked.names
    for name in NAMES:
        assert asked_names(f"How many {plural(name)} are in the picture?") == (name,)


@pytest.mark.parametrize(
    "text",
    [
        "What is this?",
        "Is there a giraffe in the picture?",
        "What color is the cup? And why?",
        "How many cup are in the picture?",
    ],
)
def test_other_questions_are_not_audited(text: str, question: VisualQuestion, scene: Scene) -> None:
    assert label_valid(replace(question, question=text), picture(scene)) is None


@pytest.mark.parametrize("blur", [0.0, 0.7])
def test_what_does_not_touch_the_cup_is_valid(blur: float, question: VisualQuestion, scene: Scene) -> None:
    new = place(
        np.random.default_rng(4),
        "key",
        "yellow",
        [thing.box for thing in scene.things],
        sizes=(15, 18),
        tries=200,
    )
    assert new is not None
    for after in (
        scene,
        scene.with_thing(new),
        scene.without(1),
        scene.without(2),
        recolored(scene, 1, "yellow"),
    ):
        assert label_valid(question, picture(after, blur)) is True


@pytest.mark.parametrize("blur", [0.0, 0.7])
def test_what_changes_the_cups_is_not(blur: float, question: VisualQuestion, scene: Scene) -> None:
    boxes = [thing.box for thing in scene.things]
    second = place(np.random.default_rng(4), "cup", "red", boxes, sizes=(15, 18), tries=200)
    assert second is not None
    moved = replace(scene, things=(replace(second, color="yellow"), *scene.things[1:]))
    x0, y0, x1, y1 = scene.things[0].box
    covered = np.array(picture(scene))
    covered[y0:y1, x0 : (x0 + x1) // 2 + 1] = (120, 120, 120)
    for after in (
        scene.with_thing(second),
        scene.without(0),
        recolored(scene, 0, "red"),
        recolored(scene, 0, "white"),
        moved,
    ):
        assert label_valid(question, picture(after, blur)) is False
    assert label_valid(question, Image.fromarray(covered)) is False


@pytest.mark.parametrize(("share", "valid"), [(0.15, True), (0.6, False)])
def test_a_corner_may_be_hidden_but_not_most(
    share: float, valid: bool, question: VisualQuestion, scene: Scene
) -> None:
    x0, y0, x1, y1 = scene.things[0].box
    edited = np.array(picture(scene))
    edited[y0:y1, x0 : x0 + round(share * (x1 - x0))] = (230, 40, 30)
    assert label_valid(question, Image.fromarray(edited)) is valid


def test_a_new_object_that_was_said_not_to_be_there(question: VisualQuestion, scene: Scene) -> None:
    absent = replace(
        question, question="Is there a key in the picture?", options=("yes", "no"), answer="B", targets=()
    )
    boxes = [thing.box for thing in scene.things]
    for name, valid in (("key", False), ("bell", True)):
        new = place(np.random.default_rng(6), name, "green", boxes, sizes=(15, 18), tries=200)
        assert new is not None
        assert label_valid(absent, picture(scene.with_thing(new))) is valid


def test_a_colour_between_two_is_ambiguous(scene: Scene) -> None:
    """Half way between red and purple is neither."""
    base = recolored(scene, 0, "red")
    clean, other = (render(s).astype(float) for s in (base, recolored(scene, 0, "purple")))
    assert still_right(("cup",), base.things[:1], clean, 0.9 * clean + 0.1 * other)
    assert not still_right(("cup",), base.things[:1], clean, 0.5 * clean + 0.5 * other)


def test_pictures_that_do_not_fit(question: VisualQuestion, scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'"q".*32 x 32'):
        label_valid(question, picture(scene).resize((32, 32)))
    elsewhere = replace(question, targets=(replace(question.targets[0], box=(0, 0, 20, 20)),))
    assert label_valid(elsewhere, picture(scene)) is None
    with pytest.raises(DataError, match="not there"):
        label_valid(replace(question, image=tmp_path / "none.png"), picture(scene))
    large = tmp_path / "large.png"
    picture(scene).resize((2 * SIZE, 2 * SIZE)).save(large)
    assert label_valid(replace(question, image=large), picture(scene)) is None


def test_a_picture_that_was_replaced_is_read_again(
    question: VisualQuestion, scene: Scene, tmp_path: Path
) -> None:
    path = tmp_path / "clean.png"
    picture(scene).save(path)
    asked = replace(question, image=path)
    assert label_valid(asked, picture(scene)) is True
    picture(scene.without(0)).save(path, compress_level=1)
    assert label_valid(asked, picture(scene)) is None


def test_agreement_on_planted_edits() -> None:
    result = measure(seed=5, number=22)
    assert result.valid + result.invalid == 22
    assert result.valid_agreed + result.invalid_agreed + len(result.mistakes) == 22
    assert len(result.mistakes) <= 1, result.mistakes


@pytest.mark.slow
@pytest.mark.parametrize("blur", [0.0, 0.7])
def test_agreement_on_many_planted_edits(blur: float) -> None:
    result = measure(seed=6, number=150, blur=blur)
    assert result.valid_agreed >= 0.96 * result.valid, result.mistakes
    assert result.invalid_agreed >= 0.96 * result.invalid, result.mistakes


@pytest.mark.parametrize(
    "gains", [(0.7, 0.7, 0.7), (1.25, 1.25, 1.25), (1.35, 1.35, 1.35), (0.88, 0.8, 0.72)]
)
def test_another_light_leaves_the_answer_true(
    gains: tuple[float, float, float], question: VisualQuestion, scene: Scene
) -> None:
    def lit(shown: Scene) -> Image.Image:
        return Image.fromarray(
            np.clip(np.asarray(picture(shown)) * np.array(gains) + 0.5, 0, 255).astype(np.uint8)
        )

    assert label_valid(question, lit(scene)) is True
    assert label_valid(question, lit(scene.without(0))) is False
    assert label_valid(question, lit(recolored(scene, 0, "red"))) is False
    second = place(
        np.random.default_rng(4),
        "cup",
        "red",
        [thing.box for thing in scene.things],
        sizes=(16, 18),
        tries=200,
    )
    assert second is not None
    assert label_valid(question, lit(scene.with_thing(second))) is False
