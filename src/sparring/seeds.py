"""Seeds: every random choice is a function of the run's seed and of where it is made, never of what
happened before."""

from __future__ import annotations

import hashlib


def derive_seed(*where: int | str) -> int:
    """A seed in [0, 2^62) from the run's seed and the place of use: derive_seed(7, "round1/attacker", 12)."""
    text = "\x1f".join(str(part) for part in where)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2
