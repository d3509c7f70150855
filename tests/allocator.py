"""What torch's allocator says of a piece of work."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from torch.profiler import ProfilerActivity, profile


def peak(work: Callable[[], object]) -> int:
    """Bytes that torch's allocator held at most, above what it held at the start: the running sum of all that
    it gave and took back.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    # The raw events: profiler.events() folds what an operator allocates into the operator, and loses its
    # place in time.
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(change for _, change in changes))
