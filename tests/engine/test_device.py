"""What a process does about memory before it computes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from sparring.engine.device import begin_computing

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(10_000_000).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
plain = faults()
begin_computing("cpu", 1)
faults()
print(plain, faults())
"""


def faults(**environment: str) -> tuple[int, int]:
    """Pages that the system gave a process for the same large tensors before and after it began to
    compute.
    """
    told = subprocess.run(
        [sys.executable, "-c", FAULTS],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        | environment,
    )
    plain, kept = (int(number) for number in told.stdout.split())
    return plain, kept


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")


@glibc
def test_memory_that_was_freed_is_used_again_without_the_system() -> None:
    """By itself glibc gives a block of 40 MB back, and every page of the next one is cleared anew."""
    plain, kept = faults()
    assert kept < plain / 10


@glibc
def test_who_has_settled_it_otherwise_is_left_alone() -> None:
    plain, kept = faults(MALLOC_MMAP_THRESHOLD_="1000000")
    assert kept > plain / 10
