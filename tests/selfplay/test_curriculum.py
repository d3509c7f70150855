"""Which items a round's Defender sees: the shares, the fall-backs that are said, and that clean_share 1 means
no edit at all.
"""

import random
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from sparring.config import CurriculumSettings
from sparring.data.records import Answer, VisualQuestion
from sparring.engine.ledger import Ledger
from sparring.selfplay.curriculum import Curriculum, Place, Silence, compose

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
        (names[image.load().getpixel((0, 0))], question.id)
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


def test_what_gave_no_signal_comes_more_rarely_and_the_kinds_as_often(pools) -> None:
    settings = CurriculumSettings(clean_share=0.5, replay_share=0.0, revisit=0.5)
    curriculum, _ = compose(*pools, settings)
    clean, fresh = pools[0][0].image, pools[1][0][1]
    silent = {("q0", clean): 1, ("q1", clean): 3, ("q2", clean): 60, ("q0", fresh): 0}
    count = 30_000
    found = Counter(islice(curriculum.order(7, silent=silent), count))
    often = found["q3", clean]
    assert sum(found[f"q{i}", clean] for i in range(5)) == pytest.approx(count / 2, rel=0.03)
    assert found["q0", clean] / often == pytest.approx(0.5, rel=0.1)
    assert found["q1", clean] / often == pytest.approx(0.125, rel=0.15)
    assert found["q2", clean] / often == pytest.approx(0.05, rel=0.25)
    assert found["q0", fresh] == pytest.approx(found["q1", fresh], rel=0.05)
    off, _ = compose(*pools, settings.model_copy(update={"revisit": 1.0}))
    assert [name for name, _ in islice(off.order(7), 500)] == [name for _, name in kinds(off, 500, 7)]


def test_silence_is_read_off_the_ledger_and_again_after_a_stop(pools, tmp_path: Path) -> None:
    curriculum, _ = compose(*pools, CurriculumSettings(clean_share=0.5, replay_share=0.2, revisit=0.5))
    with closing(Ledger(tmp_path)) as ledger:
        silence = Silence(curriculum, ledger, "round1/defender", 3)
        rng, want = random.Random(0), dict[Place, int]()
        for step in range(6):
            silent = dict(silence.before(step))
            assert silent == want
            places = list(islice(curriculum.order(3, step, silent=silent), 12))
            rows = list[tuple[int, int, Answer]]()
            for sample, place in enumerate(places):
                right = rng.choice([(True, True), (False, False), (True, False)])
                rows += [
                    (sample, trial, Answer(place[0], "d", "", None, "", own))
                    for trial, own in enumerate(right)
                ]
                want[place] = want.get(place, 0) + 1 if len(set(right)) == 1 else 0
            samples, trials, answers = zip(*rows, strict=True)
            ledger.record_answers("round1/defender", step, answers, samples=samples, trials=trials)
        assert max(want.values()) > 1
        again = Silence(curriculum, ledger, "round1/defender", 3)
        assert again.before(6) == silence.before(6) == want
        later = Silence(curriculum, ledger, "round2/defender", 5, want)
        assert later.before(0) == want
        always = Silence(replace(curriculum, revisit=1.0), ledger, "round1/defender", 3)
        assert always.before(6) == {}
