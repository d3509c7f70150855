"""Suites on disk: read back as anybody's data, right by the scenes they show, balanced, the same
every time.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sparring.data.errors import DataError
from sparring.data.images import load_image
from sparring.data.questions import read_questions
from sparring.data.records import Target, VisualQuestion
from sparring_arena.audit import near
from sparring_arena.oracle import Sighting, count_objects, find, shared
from sparring_arena.sprites import GROUPS
from sparring_arena.suites import SOCIABLE, STREAMS, large_scene, sociable_scene, write_suite, write_suites
from sparring_arena.world import CELL, SIZE


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[VisualQuestion]]:
    paths = write_suites(tmp_path_factory.mktemp("suites"), seed=3, number=12, side=256)
    return {name: read_questions(path).records for name, path in paths.items()}


def test_names_and_numbers(suites: dict[str, list[VisualQuestion]]) -> None:
    assert {name: len(own) for name, own in suites.items()} == {
        "visual_search": 12,
        "large_pictures": 48,
        "presence": 12 * 3 * 4,
        "altered_pairs": 48,
    }
    assert Counter(q.category for q in suites["visual_search"]) == {
        "direct_attributes": 6,
        "relative_position": 6,
    }
    assert Counter(q.category for q in suites["large_pictures"]) == {"single": 24, "cross": 24}


def test_large_pictures_are_large_and_ask_in_four_orders(suites: dict[str, list[VisualQuestion]]) -> None:
    groups: dict[str, list[VisualQuestion]] = defaultdict(list)
    for question in suites["large_pictures"]:
        groups[question.id.rsplit("-", 1)[0]].append(question)
        assert load_image(question.image).size == (256, 256)
        assert all(x1 - x0 <= 24 and y1 - y0 <= 24 for x0, y0, x1, y1 in (t.box for t in question.targets))
    for group in groups.values():
        assert [question.answer for question in group] != [group[0].answer] * 4
        assert sorted(question.answer for question in group) == ["A", "B", "C", "D"]
        assert len({question.answer_text for question in group}) == 1


def test_presence_is_what_the_pictures_show(suites: dict[str, list[VisualQuestion]]) -> None:
    for negatives in ("random", "popular", "adversarial"):
        own = [question for question in suites["presence"] if question.category == negatives]
        assert Counter(question.answer_text for question in own) == {"yes": 24, "no": 24}
    asked = [q for q in suites["presence"] if q.id.endswith(("-0", "-1"))][:16]
    for question in asked:
        name = (
            question.question.removeprefix("Is there a")
            .removeprefix("n")
            .removesuffix(" in the picture?")
            .strip()
        )
        assert (count_objects(np.asarray(load_image(question.image)), name) > 0) == (
            question.answer_text == "yes"
        ), question.id


def test_altered_pairs_differ_in_one_thing(suites: dict[str, list[VisualQuestion]]) -> None:
    known = {question.id: question for question in suites["altered_pairs"]}
    for number in range(12):
        for which in ("changed", "kept"):
            before, after = (known[f"altered-{number:06d}-{which}-{half}"] for half in ("before", "after"))
            assert before.question == after.question
            assert (before.answer != after.answer) == (which == "changed")
            if which == "changed":
                assert (
                    before.category
                    == after.category
                    == ("added" if after.answer_text == "yes" else "removed")
                )
                there = after if after.targets else before
                pixels = {
                    half: np.asarray(load_image(q.image))
                    for half, q in (("before", before), ("after", after))
                }
                differs = (pixels["before"] != pixels["after"]).any(-1)
                x0, y0, x1, y1 = there.targets[0].box
                assert differs[y0:y1, x0:x1].any()
                differs[y0:y1, x0:x1] = False
                assert not differs.any()
    assert Counter(q.category for q in known.values()) == {"kept": 24, "added": 12, "removed": 12}
    assert Counter(q.answer for q in known.values()) == {"A": 24, "B": 24}


def seen_at(pixels: NDArray[np.uint8], target: Target) -> Sighting:
    """What the oracle finds of a target, in a part of the picture as large as a scene."""
    x, y = (min(max(start - 24, 0), pixels.shape[0] - SIZE) for start in target.box[:2])
    x0, y0, x1, y1 = target.box
    box = x0 - x, y0 - y, x1 - x, y1 - y
    seen = find(pixels[y : y + SIZE, x : x + SIZE], [target.name])
    return next(one for one in seen if near(one.box, box))


@pytest.mark.parametrize("suite", ["visual_search", "large_pictures"])
def test_targets_are_where_the_records_say_and_answers_are_right(
    suite: str, suites: dict[str, list[VisualQuestion]]
) -> None:
    for question in list({question.image: question for question in suites[suite]}.values())[:6]:
        pixels = np.asarray(load_image(question.image))
        found = [seen_at(pixels, target) for target in question.targets]
        if question.category in ("direct_attributes", "single"):
            assert [one.color for one in found] == [question.answer_text]
        else:
            (ax, ay, *_), (bx, by, *_) = (target.box for target in question.targets)
            across, down = ax - bx, ay - by
            way = ("left", "right") if abs(across) > abs(down) else ("above", "below")
            assert question.answer_text == way[max(across, down, key=abs) > 0]


def test_large_scenes_are_six_to_ten_things_on_the_whole_grid() -> None:
    scenes = [large_scene(np.random.default_rng([4, i]), 256) for i in range(30)]
    assert {len(scene.things) for scene in scenes} == {6, 7, 8, 9, 10}
    assert all(len({thing.name for thing in scene.things}) == len(scene.things) for scene in scenes)
    for axis in (0, 1):
        assert min(thing.box[axis] for scene in scenes for thing in scene.things) < CELL
        assert 256 - CELL < max(thing.box[axis + 2] for scene in scenes for thing in scene.things) <= 256
    for scene in scenes:
        for a, b in combinations(scene.things, 2):
            assert shared(a.box, b.box) == 0


def test_some_names_are_frequent_and_some_stand_together_but_not_look_alikes() -> None:
    scenes = [sociable_scene(np.random.default_rng([5, i])) for i in range(400)]
    counts = Counter(thing.name for scene in scenes for thing in scene.things)
    assert counts[SOCIABLE[0]] > 4 * counts[SOCIABLE[-1]]
    names = [{thing.name for thing in scene.things} for scene in scenes]
    friends = [set(SOCIABLE[i : i + 2]) for i in range(0, len(SOCIABLE), 2)]
    alike = [set(pair) for group in GROUPS for pair in combinations(group, 2)]
    often = [sum(pair <= own for own in names) for pair in friends]
    assert sum(often) > 0.6 * len(scenes)
    assert often[0] > 3 * max(sum(pair <= own for own in names) for pair in alike)


def test_the_same_bytes_and_other_ones_for_another_seed(tmp_path: Path) -> None:
    def digest(folder: Path, seed: int) -> str:
        write_suite(folder, "altered_pairs", seed=seed, number=3)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    assert digest(tmp_path / "a", 1) == digest(tmp_path / "b", 1) != digest(tmp_path / "c", 2)
    with pytest.raises(DataError, match="only visual_search"):
        write_suite(tmp_path, "vstar", seed=0, number=1)
    for side in (64, 100):
        with pytest.raises(DataError, match=f"72 pixels or more, a multiple of 8: {side}"):
            write_suite(tmp_path, "large_pictures", seed=0, number=1, side=side)
    assert len(set(STREAMS.values())) == 4
