"""Stages: done once, cut off anywhere and continued with the same figures; the plateau rule; seeded draws."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sparring.engine.ledger import Ledger
from sparring.engine.stages import Schedule, Stage, plateaued, train
from sparring.seeds import draw, shuffled


class Walker:
    """A trainer whose every update depends on all before it."""

    def __init__(self) -> None:
        self.value = 1.0

    def update(self, step: int) -> dict[str, Any]:
        self.value = (self.value * 1.7 + step) % 3.1
        return {"reward_mean": self.value}

    def save(self, folder: Path) -> None:
        (folder / "walker.json").write_text(json.dumps(self.value))

    def load(self, folder: Path) -> None:
        self.value = json.loads((folder / "walker.json").read_text())


class CutOffError(Exception):
    pass


def run(
    out: Path, steps: int = 10, every: int = 3, patience: int | None = None, cut_at: int | None = None
) -> list[float]:
    ledger, walker = Ledger(out), Walker()
    stage = Stage(out, "round1/attacker", ledger)
    stage.begin(resumes=True)

    def update(step: int) -> dict[str, Any]:
        if step == cut_at:
            raise CutOffError
        return walker.update(step)

    history = train(
        stage,
        walker,
        update,
        Schedule(steps, every, patience),
        on_update=lambda metrics: None,
    )
    stage.finish({"last": walker.value})
    return [metrics["reward_mean"] for metrics in history]


def test_after_the_first_update_it_says_how_long_the_others_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, said, walker = [0.0], list[str](), Walker()
    monkeypatch.setattr("sparring.engine.stages.time.monotonic", lambda: now[0])

    def update(step: int) -> dict[str, Any]:
        now[0] += 42.0
        if step == 6:
            raise CutOffError
        return walker.update(step)

    def play(steps: int) -> None:
        stage = Stage(tmp_path, "round1/attacker", Ledger(tmp_path))
        stage.begin(resumes=True)
        train(
            stage,
            walker,
            update,
            Schedule(steps, 2),
            on_update=lambda metrics: None,
            say=said.append,
        )

    with pytest.raises(CutOffError):
        play(11)
    assert said == ["round1/attacker: an update takes 42 s, the 10 left some 7 min 00 s"]
    monkeypatch.setattr(walker, "load", lambda folder: None)
    with pytest.raises(CutOffError):
        play(11)  # from update 6 on, which is cut off again: nothing is known of its length
    assert len(said) == 1


@pytest.mark.parametrize("cut_at", range(10))
def test_a_phase_cut_off_at_any_update_goes_on_as_if_it_had_not_been(tmp_path: Path, cut_at: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(tmp_path / "a")
    with pytest.raises(CutOffError):
        run(tmp_path / "b", cut_at=cut_at)
    states = sorted(f.name for f in (tmp_path / "b/round1/attacker").glob("state/*"))
    assert states == ([f"{cut_at // 3 * 3:06d}"] if cut_at >= 3 else [])
    assert run(tmp_path / "b") == whole
    assert Ledger(tmp_path / "b").updates("round1/attacker") == Ledger(tmp_path / "a").updates(
        "round1/attacker"
    )
    assert not (tmp_path / "b/round1/attacker/state").exists()


def test_a_half_written_state_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(CutOffError):
        run(tmp_path, cut_at=5)
    half = tmp_path / "round1/attacker/state/000006.partial"
    half.mkdir()
    (half / "walker.json").write_text("tru")
    assert len(run(tmp_path)) == 10


def test_done_is_marked_last_and_gives_back_its_result(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "round1/curriculum", Ledger(tmp_path))
    assert not stage.done
    stage.begin()
    assert not stage.done
    assert stage.finish({"edits": 3, "names": ("a",)}) == {"edits": 3, "names": ["a"]}
    assert Stage(tmp_path, "round1/curriculum", Ledger(tmp_path)).done
    assert not list(tmp_path.rglob("*.partial"))


def test_beginning_again_drops_what_a_cut_off_try_wrote_unless_it_is_resumed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record_update("s", 4, {"reward_mean": 0.0})
    Stage(tmp_path, "s", ledger).begin(resumes=True)
    assert ledger.count("updates", "s") == 1
    Stage(tmp_path, "s", ledger).begin()
    assert ledger.count("updates", "s") == 0


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "s", Ledger(tmp_path))
    stage.begin()

    def fails(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise CutOffError

    with pytest.raises(CutOffError):
        stage.folder_written_whole("model", fails)
    assert not (tmp_path / "s/model").exists()
    stage.folder_written_whole("model", lambda folder: (folder / "weights").write_text("whole"))
    assert (tmp_path / "s/model/weights").read_text() == "whole"


def test_plateau() -> None:
    rising = [0.1 * i for i in range(10)]
    assert not plateaued(rising, 3)
    assert not plateaued(rising, None)
    assert plateaued([0.5] * 6, 3)
    assert not plateaued([0.5] * 5, 3)  # two windows of three need six updates
    assert plateaued([*rising, 0.5, 0.5, 0.5], 3)
    assert not plateaued([*rising, 2.0, 2.0, 2.0], 3)


def test_a_phase_ends_on_a_plateau_also_when_resumed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "a", steps=50, patience=4)
    assert len(whole) < 50
    with pytest.raises(CutOffError):
        run(tmp_path / "b", steps=50, patience=4, cut_at=len(whole) - 1)
    assert run(tmp_path / "b", steps=50, patience=4) == whole


@pytest.mark.parametrize(("size", "count"), [(10, 4), (7, 7), (5, 3), (100, 8)])
def test_draws_are_distinct_and_cover_all_evenly(size: int, count: int) -> None:
    steps = [draw(range(size), count, step, 3, "x") for step in range(40)]
    assert all(len(set(chosen)) == count for chosen in steps)
    seen = Counter(item for chosen in steps for item in chosen)
    assert max(seen.values()) - min(seen[i] for i in range(size)) <= 1 + 40 * count // size // 2
    assert set(seen) == set(range(size)) or size > 40 * count
    assert steps[7] == draw(range(size), count, 7, 3, "x")
    assert [draw(range(size), count, step, 4, "x") for step in range(40)] != steps


def test_an_epoch_goes_through_everything_once() -> None:
    assert sorted(item for step in range(4) for item in draw(range(20), 5, step, 0)) == list(range(20))


def test_more_than_there_is_comes_again() -> None:
    assert Counter(draw("ab", 4, 0, 1)) == {"a": 2, "b": 2}
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([], 1, 0)


def test_order_depends_on_the_place_of_use() -> None:
    assert shuffled(range(50), 1, "a") == shuffled(range(50), 1, "a") != shuffled(range(50), 1, "b")
