"""Which items a round's Defender sees: the shares, the fall-backs that are said, and that clean_share 1 means
no edit at all.
"""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from sparring.config import CurriculumSettings
from sparring.data.records import VisualQuestion
from sparring.selfplay.curriculum import Curriculum, compose

COLOURS = {"clean": (255, 0, 0), "fresh": (0, 255, 0), "replay": (0, 0, 255)}


@pytest.fixture
def pools(tmp_path: Path) -> tuple[list[VisualQuestion], list[tuple[str, Path]], list[tuple[str, Path]]]:
    for kind, colour in COLOURS.items():
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{kind}.png")
    clean = [VisualQuestion(f"q{i}", tmp_path / "clean.png", "?", ("a", "b"), "A") for i in range(5)]
    return (
        clean,
        [(f"q{i}", tmp_path / "fresh.png") for i in range(3)],
        [(f"q{i}", tmp_path / "replay.png") for i in range(2, 4)],
    )


def kinds(curriculum: Curriculum, count: int, *where: int | str) -> list[tuple[str, str]]:
    names = {colour: kind for kind, colour in COLOURS.items()}
    return [
        (names[image.getpixel((0, 0))], question.id)
        for image, question in islice(curriculum.stream(*where), count)
    ]  # type: ignore[index]


def test_shares(pools) -> None:
    curriculum, warnings = compose(*pools, CurriculumSettings(clean_share=0.25, replay_share=0.2))
    assert warnings == []
    counts = Counter(kind for kind, _ in kinds(curriculum, 1200, 0))
    assert counts["clean"] == pytest.approx(300, abs=50)
    assert counts["replay"] == pytest.approx(240, abs=45)
    assert counts["fresh"] == pytest.approx(660, abs=60)


def test_clean_share_one_uses_no_edit(pools) -> None:
    curriculum, warnings = compose(*pools, CurriculumSettings(clean_share=1.0, replay_share=0.2))
    assert warnings == []
    assert {kind for kind, _ in kinds(curriculum, 500, 1)} == {"clean"}


def test_nothing_to_replay_gives_the_share_to_fresh_edits(pools) -> None:
    clean, fresh, _ = pools
    curriculum, _ = compose(clean, fresh, [], CurriculumSettings(clean_share=0.5, replay_share=0.5))
    counts = Counter(kind for kind, _ in kinds(curriculum, 1000, 2))
    assert counts["fresh"] == pytest.approx(500, abs=60)


@pytest.mark.parametrize("with_replay", [True, False])
def test_without_fresh_edits_the_defender_gets_clean_ones_and_it_is_said(pools, with_replay: bool) -> None:
    clean, _, replay = pools
    curriculum, warnings = compose(
        clean, [], replay if with_replay else [], CurriculumSettings(clean_share=0.25, replay_share=0.2)
    )
    assert "no edit was accepted" in warnings[0]
    counts = Counter(kind for kind, _ in kinds(curriculum, 1000, 3))
    assert counts["fresh"] == 0
    assert counts["replay"] == (pytest.approx(200, abs=50) if with_replay else 0)


def test_none_comes_twice_before_all_of_its_kind_have_come(pools) -> None:
    curriculum, _ = compose(*pools, CurriculumSettings(clean_share=0.0, replay_share=0.0))
    names = [name for _, name in kinds(curriculum, 6, 4)]
    assert sorted(names[:3]) == sorted(names[3:]) == ["q0", "q1", "q2"]


def test_the_stream_is_a_function_of_the_place_of_use(pools) -> None:
    curriculum, _ = compose(*pools, CurriculumSettings())
    assert kinds(curriculum, 50, 0, "round1/defender", 3) == kinds(curriculum, 50, 0, "round1/defender", 3)
    assert kinds(curriculum, 50, 0, "round1/defender", 3) != kinds(curriculum, 50, 0, "round1/defender", 4)
