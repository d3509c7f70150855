"""Which device computes, with how many threads, and how fast at its peak."""

from __future__ import annotations

import ctypes
import os
import re
import sys

import torch

from sparring.data.errors import ModelError, RecipeError, RunError

# TFLOP/s of tensor cores in bfloat16 and float16, summed in float32, without sparsity (where a data sheet
# gives the figure with sparsity alone, half of it). From NVIDIA's data sheets: A100 Tensor Core GPU; H100
# Tensor Core GPU (SXM, PCIe, NVL); H200 Tensor Core GPU (SXM, NVL); HGX B200; L40S; and for the RTX 4090 the
# white paper of the Ada GPU architecture, appendix A. The first name that fits counts.
PEAKS = (
    (r"A100", 312.0),
    (r"H100 PCIe", 756.0),
    (r"H[12]00 NVL", 835.0),
    (r"H[12]00", 989.0),
    (r"B200", 2250.0),
    (r"L40S", 362.0),
    (r"RTX 4090", 165.2),
)
OTHERS = re.compile(r"\b(MIG|Laptop|4090 D)\b")
"""Parts of such GPUs, and slower ones of a like name."""

FATAL = (ModelError, RecipeError, RunError)
"""Errors that no other record would be spared: they stop a job, which can be started again."""

# Options of glibc's mallopt, from its malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


def peak_tflops(name: str) -> float | None:
    """TFLOP/s of a GPU by the name that CUDA gives it, dense, in 16 bits; None where it is not known."""
    if OTHERS.search(name):
        return None
    return next((peak for known, peak in PEAKS if re.search(rf"\b{known}\b", name)), None)


def is_of_the_machine(error: BaseException) -> bool:
    """Does an error say that memory or the device is at an end, and nothing of what was being computed?"""
    kinds = MemoryError, torch.OutOfMemoryError, getattr(torch, "AcceleratorError", MemoryError)
    # PyTorch's allocator on a CPU has no error of its own.
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def spares_no_other(error: BaseException) -> bool:
    """Does an error that one record raised await all others too?"""
    return isinstance(error, FATAL) or is_of_the_machine(error)


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("device is cuda, but torch sees no CUDA device. Use --set device=cpu or auto.")
    return torch.device(name)


def begin_computing(device: str, threads: int | None) -> torch.device:
    """The device of that name (see `choose_device`), with torch set to so many CPU threads; None leaves its
    choice. On a CPU, memory that was freed stays with this process.

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
    if chosen.type == "cpu":
        keep_freed_memory()
    return chosen


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for what is allocated next, but for a free end of its heap beyond 2 GiB;
    the process does not shrink. By itself glibc gives blocks over 32 MiB back at once and smaller ones often,
    and the system clears every page anew: `benchmarks/memory.py`. Other allocators are left as they are, and
    so is this one where the environment tells it what to do (MALLOC_..., GLIBC_TUNABLES).
    """
    told = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if sys.platform == "linux" and not told and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(MMAP_MAX, 0)
