"""Figures and names as a person reads them. What is not known is a dash, never a zero."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.engine import screen

UNKNOWN = "–"
_NAMES = {
    "clean": "Clean",
    "reencoded": "Re-encoded",
    "bootstrap": "Bootstrap",
    "base": "Base",
    "untuned": "Untuned",
}
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
    return (
        UNKNOWN
        if low is None or high is None or not (rate or {}).get("n")
        else f"{100 * low:.1f} to {100 * high:.1f}"
    )


def points_interval(difference: Mapping[str, Any] | None) -> str:
    """The 95 % interval of a difference in percentage points."""
    low, high = (difference or {}).get("ci95", (None, None))
    return (
        UNKNOWN if low is None or high is None else f"{points(low)} to {points(high)}".replace("\u00b1", "")
    )


def change(ends: Mapping[str, float | None], digits: int | None = None) -> str:
    """From what to what a measure went: shares in per cent, or with so many decimals."""
    shown = (
        percent(end) if digits is None else UNKNOWN if end is None else f"{end:.{digits}f}"
        for end in (ends["before"], ends["after"])
    )
    return " → ".join(shown)


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return UNKNOWN if value is None else f"{int(value):,}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """Seconds as "3 h 20 min", "11 min 24 s" or "48 s"."""
    return UNKNOWN if seconds is None else screen.duration(seconds)


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
    known = {
        "flow_grpo": "Flow-GRPO",
        "diffusion_nft": "DiffusionNFT",
        "awm": "AWM",
        "dapo": "DAPO",
        "dr_grpo": "Dr. GRPO",
    }
    known |= {name: name.upper() for name in ("grpo", "gspo", "cispo", "sft")}
    return UNKNOWN if name is None else known.get(name, name)


Stops = tuple[str, ...]

ON_PAPER: Stops = ("#f3f1ea", "#8fc3c2", "#0f6f78", "#0a3a48")
"""From low to high on a light page: high is dark."""
ON_NIGHT: Stops = ("#22272b", "#1d5f68", "#3fa9a6", "#b5efe2")
"""From low to high on a dark page: high is bright."""
HEAT: Stops = ("#101519", "#17505a", "#3fa9a6", "#f4f0d8")
"""For difference pictures: nothing changed is nearly black."""

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def ramp(values: NDArray[np.floating], stops: Stops) -> NDArray[np.uint8]:
    """sRGB colours [..., 3] of values [...] in 0 to 1 (clipped), piecewise linear in OKLab between evenly
    spaced stops.
    """
    lab_S3 = _to_oklab(np.array([_rgb(stop) for stop in stops], dtype=np.float64) / 255)
    places = np.clip(values, 0, 1) * (len(stops) - 1)
    lab = np.stack(
        [np.interp(places, np.arange(len(stops)), lab_S3[:, channel]) for channel in range(3)], axis=-1
    )
    return (np.clip(_from_oklab(lab), 0, 1) * 255 + 0.5).astype(np.uint8)


def color_of(value: float, stops: Stops) -> str:
    """The hex colour of one value in 0 to 1."""
    red, green, blue = ramp(np.array(value), stops).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def ink_on(color: str) -> str:
    """Near-black or white, whichever reads better on a hex colour; the contrast (WCAG) is then at
    least 4.5.
    """
    return max(("#050506", "#ffffff"), key=lambda ink: contrast(ink, color))


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two hex colours, 1 to 21."""
    first, second = (
        float(_linear(np.array(_rgb(c)) / 255) @ np.array([0.2126, 0.7152, 0.0722])) for c in (a, b)
    )
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _linear(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _to_oklab(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    lab: NDArray[np.float64] = np.cbrt(_linear(srgb) @ _TO_LMS.T) @ _TO_LAB.T
    return lab


def _from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.clip((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
