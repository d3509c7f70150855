"""Figures and names as a person reads them. What is not known is a dash, never a zero."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UNKNOWN = "–"
_NAMES = {"clean": "Clean", "reencoded": "Re-encoded", "bootstrap": "Bootstrap", "base": "Base", "untuned": "Untuned"}
_NAMES |= {"light": "Light", "cut_out": "Cut-out", "look_alike": "Look-alike"}
_KINDS = {
    "add": "Added",
    "remove": "Removed",
    "replace": "Replaced",
    "hybrid": "Several",
    "imperceptible": "Imperceptible, light",
    "unchanged": "Unchanged",
}


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return UNKNOWN if value is None else f"{100 * value:.1f}\u202f%"


def points(value: float | None) -> str:
    """A difference of shares in percentage points, signed."""
    if value is None:
        return UNKNOWN
    rounded = round(100 * value, 1)
    sign = "+" if rounded > 0 else "\u2212" if rounded < 0 else "\u00b1"
    return f"{sign}{abs(rounded):.1f}"


def interval(rate: Mapping[str, Any] | None) -> str:
    """The 95 % interval of a rate in per cent, without the sign of per cent."""
    low, high = (rate or {}).get("ci95", (None, None))
    return UNKNOWN if low is None or high is None or not (rate or {}).get("n") else f"{100 * low:.1f} to {100 * high:.1f}"


def points_interval(difference: Mapping[str, Any] | None) -> str:
    """The 95 % interval of a difference in percentage points."""
    low, high = (difference or {}).get("ci95", (None, None))
    return UNKNOWN if low is None or high is None else f"{points(low)} to {points(high)}"


def change(ends: Mapping[str, float | None], digits: int | None = None) -> str:
    """From what to what a measure went: shares in per cent, or with so many decimals."""
    shown = (percent(end) if digits is None else UNKNOWN if end is None else f"{end:.{digits}f}" for end in (ends["before"], ends["after"]))
    return " → ".join(shown)


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return UNKNOWN if value is None else f"{int(value):,}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """Seconds as "3 h 20 min", "11 min 24 s" or "48 s"."""
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def player(name: str) -> str:
    """The name of a player or opponent in the ledger, for a heading: "round2" becomes "Round 2"."""
    numbered = re.fullmatch(r"round(\d+)", name)
    return f"Round {numbered[1]}" if numbered else _NAMES.get(name, name)


def kind(name: str) -> str:
    """What an edit did, as a heading."""
    return _KINDS.get(name, name)


def hits(rate: Mapping[str, Any]) -> str:
    """How many of its n a rate stands for."""
    return UNKNOWN if rate["value"] is None else count(round(rate["value"] * rate["n"]))


def algorithm(name: str | None) -> str:
    """The written name of a training algorithm."""
    known = {"flow_grpo": "Flow-GRPO", "diffusion_nft": "DiffusionNFT", "awm": "AWM", "dapo": "DAPO", "dr_grpo": "Dr. GRPO"}
    known |= {name: name.upper() for name in ("grpo", "gspo", "cispo", "sft")}
    return UNKNOWN if name is None else known.get(name, name)
