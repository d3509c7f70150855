"""Which device computes, and with how many threads."""

from __future__ import annotations

import torch

from sparring.data.errors import RecipeError


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("device is cuda, but torch sees no CUDA device. Use --set device=cpu or auto.")
    return torch.device(name)


def begin_computing(device: str, threads: int | None) -> torch.device:
    """The device of that name (see `choose_device`), with torch set to so many CPU threads; None leaves its
    choice.

    The bars of transformers and diffusers, one for every checkpoint read or written, would break a run's
    own: they are turned off.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    chosen = choose_device(device)
    for logging in (transformers_logging, diffusers_logging):
        logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    return chosen
