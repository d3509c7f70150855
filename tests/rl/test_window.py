"""Windows of denoising steps: where they lie, how they move, and that every process sees the same ones."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sparring.rl.flow import Window, choose_window


def test_the_last_step_is_never_in_the_window() -> None:
    for steps in (2, 3, 6, 10):
        for size in (None, 1, 2):
            if size == 2 and steps == 2:
                continue
            for update in range(20):
                window = choose_window(0, update, steps, Window(size=size))
                assert steps - 1 not in window
                assert len(window) >= 1
    assert choose_window(0, 0, 6, Window()) == range(5)
    assert choose_window(0, 0, 6, Window(first=1, last=3)) == range(1, 3)


def test_the_window_moves_with_the_update_and_ignores_the_global_generator() -> None:
    torch.manual_seed(0)
    windows = [choose_window(5, update, 8, Window(2, 1, 6)) for update in range(40)]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert windows == [choose_window(5, update, 8, Window(2, 1, 6)) for update in range(40)]
    assert torch.equal(state, torch.get_rng_state())
    assert {window.start for window in windows} == {1, 2, 3, 4}
    assert windows != [choose_window(6, update, 8, Window(2, 1, 6)) for update in range(40)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": 1, "size": 1},
        {"steps": 4, "size": 4},
        {"steps": 6, "size": 2, "first": 4},
        {"steps": 1, "size": None},
    ],
)
def test_a_window_that_does_not_fit_is_an_error(arguments: dict[str, int]) -> None:
    steps = arguments.pop("steps")
    with pytest.raises(ValueError, match="does not fit"):
        choose_window(0, 0, steps, Window(**arguments))


def starts(updates: int, **changes: object) -> list[int]:
    window = replace(Window(2, 1, 7), **changes)  # type: ignore[arg-type]
    return [choose_window(3, update, 8, window).start for update in range(updates)]


def test_a_fixed_window_stays_at_its_first_step() -> None:
    assert starts(9, move="fixed") == [1] * 9


def test_a_sliding_window_moves_on_after_so_many_updates_and_stays_at_the_end() -> None:
    assert starts(12, move="slide", every=2) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5]
    # a stride that does not end on the last place is cut short
    assert starts(6, move="slide", stride=3) == [1, 4, 5, 5, 5, 5]
    assert choose_window(0, 10**6, 8, Window(3, move="slide")) == range(4, 7)  # up to the last step but one


def test_a_sliding_window_may_begin_again() -> None:
    assert starts(12, move="slide", wrap=True) == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]


def test_all_steps_leave_nothing_to_move() -> None:
    for move in ("random", "fixed", "slide"):
        assert choose_window(0, 3, 6, Window(move=move)) == range(5)  # type: ignore[arg-type]


def test_every_rank_sees_the_same_windows() -> None:
    """Processes that differ in all that a rank may differ in: its number, its hash seed, its global
    generators.
    """
    program = (
        "import os, random, torch; from sparring.rl.flow import Window, choose_window\n"
        "torch.manual_seed(int(os.environ['RANK'])); random.seed(os.environ['RANK'])\n"
        "moves = ('random', 'slide', 'fixed')\n"
        "print([choose_window(7, u, 10, Window(3, move=m, every=2, wrap=True)) for m in moves for u in "
        "range(50)])"
    )
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"RANK": str(rank), "PYTHONHASHSEED": str(rank)},
        )
        for rank in range(2)
    ]
    told = [rank.communicate(timeout=240)[0] for rank in ranks]
    here = [
        choose_window(7, u, 10, Window(3, move=m, every=2, wrap=True))
        for m in ("random", "slide", "fixed")
        for u in range(50)
    ]  # type: ignore[arg-type]
    assert told == [f"{here}\n"] * 2
