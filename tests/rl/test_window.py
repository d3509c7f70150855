"""Windows of denoising steps: where they lie, how they move, and that every process sees the same ones."""

import os
import subprocess
import sys

import pytest
import torch

from sparring.rl.window import choose_window


def test_the_last_step_is_never_in_the_window() -> None:
    for steps in (2, 3, 6, 10):
        for size in (None, 1, 2):
            if size == 2 and steps == 2:
                continue
            for update in range(20):
                window = choose_window(0, update, steps, size=size)
                assert steps - 1 not in window
                assert len(window) >= 1
    assert choose_window(0, 0, 6, size=None) == range(5)
    assert choose_window(0, 0, 6, size=None, first=1, last=3) == range(1, 3)


def test_the_window_moves_with_the_update_and_ignores_the_global_generator() -> None:
    torch.manual_seed(0)
    windows = [choose_window(5, update, 8, size=2, first=1, last=6) for update in range(40)]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert windows == [choose_window(5, update, 8, size=2, first=1, last=6) for update in range(40)]
    assert torch.equal(state, torch.get_rng_state())
    assert {window.start for window in windows} == {1, 2, 3, 4}
    assert windows != [choose_window(6, update, 8, size=2, first=1, last=6) for update in range(40)]


@pytest.mark.parametrize(
    "arguments", [{"steps": 1, "size": 1}, {"steps": 4, "size": 4}, {"steps": 6, "size": 2, "first": 4}, {"steps": 1, "size": None}]
)
def test_a_window_that_does_not_fit_is_an_error(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        choose_window(0, 0, **arguments)
