"""Crews: results in order, errors, members that die, and that nobody outlives the crew."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sparring.config import EngineSettings
from sparring.data.errors import DataError, ModelError, RecipeError
from sparring.engine.crew import (
    Alone,
    Crew,
    Engine,
    Luggage,
    Make,
    landed,
    landing,
    say_to_driver,
)
from sparring.engine.pool import WorkersLostError, gpus_of
from sparring.engine.ranks import Ranks

CPU = torch.device("cpu")


class Adder:
    """Adds to what it was made with."""

    def __init__(self, number: int) -> None:
        if number < 0:
            raise ModelError("there is no such model")
        self.number = number

    def add(self, other: int) -> int:
        if other == 7:
            raise DataError("7 is no number")
        return self.number + other

    def rank(self) -> tuple[int, int]:
        ranks = Ranks.here()
        assert ranks.gather([ranks.number]) == list(range(ranks.count))
        say_to_driver(f"{ranks.number} of {ranks.count}")
        return ranks.number, os.getpid()

    def fail_alone(self) -> int:
        """The first member fails, the others wait for it."""
        if Ranks.here().number == 0:
            raise DataError("no")
        return Ranks.here().before(1)

    def die_alone(self) -> int:
        if Ranks.here().number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return Ranks.here().before(1)

    def die(self, item: int) -> int:
        if item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return item


@contextmanager
def crew_of(
    workers: int, *, number: int = 10, together: bool = False, said: list[str] | None = None
) -> Iterator[Crew[Adder]]:
    engine = Engine(EngineSettings(workers=workers), CPU, (said if said is not None else []).append)
    with engine.crew("play", Make(Adder, (number,), together), lambda: Adder(number)) as crew:
        yield crew


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items_and_errors_in_their_turn(workers: int) -> None:
    with crew_of(workers) as crew:
        assert isinstance(crew, Alone) == (workers == 1)
        assert list(crew.map(Adder.add, range(7))) == [10 + item for item in range(7)]
        results = crew.map(Adder.add, range(9))
        assert [next(results) for _ in range(7)] == [10 + item for item in range(7)]
        with pytest.raises(DataError, match="7 is no number"):
            next(results)
        assert crew.all(Adder.add, 1) == [11] * workers


@pytest.mark.slow
def test_members_that_are_together_are_ranks_and_end_with_the_crew() -> None:
    said: list[str] = []
    with crew_of(2, together=True, said=said) as crew:
        (first, one), (second, two) = crew.all(Adder.rank)
    assert (first, second, len({one, two, os.getpid()})) == (0, 1, 3)
    assert said == ["0 of 2", "1 of 2"]
    for process in (one, two):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.slow
def test_an_error_of_one_member_is_told_although_the_others_wait_for_it() -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match="no"), crew_of(2, together=True) as crew:
        crew.all(Adder.fail_alone)
    assert time.monotonic() - began < 120


@pytest.mark.slow
def test_the_death_of_a_member_is_told_as_such() -> None:
    with pytest.raises(WorkersLostError), crew_of(2, together=True) as crew:
        crew.all(Adder.die_alone)
    with pytest.raises(WorkersLostError), crew_of(2) as crew:
        list(crew.map(Adder.die, range(6)))


@pytest.mark.slow
def test_a_host_that_cannot_be_made_is_told_with_its_machine() -> None:
    with pytest.raises(ModelError, match=r"on .+: there is no such model"), crew_of(2, number=-1):
        pass


@pytest.mark.parametrize(
    ("workers", "each", "expected"),
    [
        (2, 1.0, [[0], [1]]),
        (2, 2.0, [[0, 1], [2, 3]]),
        (3, 0.5, [[0], [0], [1]]),
        (1, 1.0, [[]]),
        (2, 0.0, [[], []]),
    ],
)
def test_workers_of_one_machine_share_out_its_gpus(
    workers: int, each: float, expected: list[list[int]]
) -> None:
    assert [list(gpus_of(number, workers, each)) for number in range(workers)] == expected


def test_files_are_carried_to_where_the_folder_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "round1/attacker/editor").mkdir(parents=True)
    (tmp_path / "round1/attacker/editor/lora.bin").write_bytes(b"\x00\x01")
    (tmp_path / "other").write_text("not carried")
    luggage = Luggage.pack(tmp_path, [tmp_path / "round1/attacker/editor", tmp_path / "absent"])
    root = landed(luggage)
    assert [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()] == [
        "round1/attacker/editor/lora.bin"
    ]
    assert (root / "round1/attacker/editor/lora.bin").read_bytes() == b"\x00\x01"
    assert landed(tmp_path) == tmp_path
    assert luggage.files == {}  # a saved state is large
    with landing(Luggage.pack(tmp_path, [tmp_path / "round1"])) as root:
        assert (root / "round1/attacker/editor/lora.bin").is_file()
    assert not root.exists()
    with landing(tmp_path) as root:
        assert root == tmp_path
    assert root.exists()


def test_without_ray_its_engine_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "sparring.engine.cluster", raising=False)
    with pytest.raises(RecipeError, match=r"pip install 'sparring\[ray\]'") as told:
        Engine(EngineSettings(kind="ray"), CPU, print)
    assert "\n" not in str(told.value)
