"""Which denoising steps of an update are stochastic and trained: all of them (Flow-GRPO), or a short window (Flow-GRPO-Fast, MixGRPO)."""

from __future__ import annotations

from typing import Literal

from sparring.rl.seeds import derive_seed

Move = Literal["random", "fixed", "slide"]


def choose_window(
    seed: int,
    update: int,
    steps: int,
    *,
    size: int | None = None,
    first: int = 0,
    last: int | None = None,
    move: Move = "random",
    every: int = 1,
    stride: int = 1,
    wrap: bool = False,
) -> range:
    """The window of one update: `size` steps in a row out of `steps`, from `first` on. size None: all of them.

    They end before step `last`, and never hold the very last step (steps - 1), whose Gaussian collapses at sigma 0.
    "random": anywhere, drawn anew for every update. "fixed": at `first`. "slide" (MixGRPO, arXiv 2507.21802, section 3.2): at `first`, and
    `stride` steps further after every `every` updates, until it has come to the end, where it stays; with `wrap` it begins again.
    A pure function of its arguments: no generator is shared, so every process of a run and a resumed run see the same windows.
    Raises ValueError when no window fits.
    """
    end = steps - 1 if last is None else min(last, steps - 1)
    length = end - first if size is None else size
    if length < 1 or first + length > end:
        raise ValueError(
            f"a window of {size or 'all'} steps between step {first} and step {end} does not fit: {steps} roll-out steps leave {steps - 1} that can be "
            "stochastic (the last cannot). Use more roll-out steps or a smaller window."
        )
    places = end - length - first + 1
    if move == "random":
        start = first + derive_seed(seed, "window", update) % places
    elif move == "slide":
        moved = update // every * stride
        start = first + (moved % places if wrap else min(moved, places - 1))
    else:
        start = first
    return range(start, start + length)
