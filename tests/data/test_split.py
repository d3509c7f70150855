from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparring.data import questions as split
from sparring.data.errors import DataError
from sparring.data.questions import require_disjoint, split_held_out
from sparring.data.records import VisualQuestion


def question(name: str, image: Path) -> VisualQuestion:
    return VisualQuestion(name, image, "Which?", ("a", "b"), "A")


@pytest.fixture
def questions(tmp_path: Path) -> list[VisualQuestion]:
    """Ten pictures, two questions each; picture 0 exists twice, as PNG and as BMP."""
    found = []
    for number in range(10):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
        found += [question(f"{number}a", path), question(f"{number}b", path)]
    copy = tmp_path / "copy.bmp"
    Image.new("RGB", (4, 4), (0, 0, 0)).save(copy)
    return [*found, question("copy", copy)]


@pytest.mark.parametrize("seed", range(8))
def test_no_picture_is_on_both_sides(questions: list[VisualQuestion], seed: int) -> None:
    train, held_out = split_held_out(questions, 8, seed)
    assert len(train) + len(held_out) == len(questions)
    assert 7 <= len(held_out) <= 8
    require_disjoint(train, held_out)
    sides = {q.id: "train" for q in train} | {q.id: "held out" for q in held_out}
    assert sides["0a"] == sides["0b"] == sides["copy"]
    assert train == [q for q in questions if q in train]


def test_the_split_is_the_seeds_alone(questions: list[VisualQuestion]) -> None:
    first = split_held_out(questions, 8, 3)
    assert split_held_out(questions, 8, 3) == first
    assert any(split_held_out(questions, 8, seed) != first for seed in range(4, 8))


def test_too_few_questions(questions: list[VisualQuestion]) -> None:
    for count in (21, 40):
        with pytest.raises(DataError, match="too few to hold"):
            split_held_out(questions, count, 0)
    with pytest.raises(DataError, match="about 1 picture are too few"):
        split_held_out(questions[:2], 1, 0)


def test_shared_pictures_and_ids_are_found(questions: list[VisualQuestion]) -> None:
    require_disjoint(questions[2:10], questions[10:])
    with pytest.raises(DataError, match=r'"0a" \(training\) and "copy" \(held out\) show the same picture'):
        require_disjoint(questions[:1], questions[-1:])
    with pytest.raises(DataError, match='id "1a" is in both'):
        require_disjoint(questions[2:4], questions[2:3])


@settings(deadline=None, max_examples=50)
@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=60),
    count=st.integers(1, 30),
    seed=st.integers(0, 100),
)
def test_any_grouping_is_kept(groups: list[int], count: int, seed: int) -> None:
    items = [question(str(index), Path(str(group))) for index, group in enumerate(groups)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_keys", lambda questions: [str(q.image) for q in questions])
        try:
            train, held_out = split_held_out(items, count, seed)
        except DataError:
            # Only where it cannot be done: too few, one picture, or every picture holds more questions than
            # are asked for.
            sizes = [groups.count(group) for group in set(groups)]
            assert len(items) <= count or min(sizes) > count
            return
        assert 0 < len(held_out) <= count
        assert train
        assert not {q.image for q in train} & {q.image for q in held_out}
