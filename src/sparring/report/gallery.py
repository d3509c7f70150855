"""Which held-out edits a reader sees: a sample of each kind, drawn without looking, with their pictures
embedded.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sparring.data.images import ImageError, load_image
from sparring.report.numbers import HEAT, ramp
from sparring.report.run import Exhibit, Outcome

SMALL = 128
"""Pictures whose longer side has at most so many pixels are kept as they are, and shown enlarged with hard
pixels.
"""
LARGEST = 320
"""Longer side of what is embedded of a larger picture."""
FITS, EXPLAINED = 3, 0.7
"""Light is fitted so many times, each time to this share of the pixels that the fit before explained best."""
CHANGED = 20
"""Grey levels from which a pixel counts as changed."""
AMPLIFIED = 4.0
"""A change of 255 / 4 grey levels is already as bright as can be."""


def difference(before: Image.Image, after: Image.Image) -> Image.Image:
    """Where two pictures of one size differ: the largest change of the three channels, amplified, dark where
    nothing changed.
    """
    gap = np.abs(np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)).max(-1) / 255
    return Image.fromarray(ramp(np.clip(gap * AMPLIFIED, 0, 1), HEAT))


def in_the_light_of(before: Image.Image, after: Image.Image) -> Image.Image:
    """The picture before the edit in the light of the one after it: each channel times a gain plus an
    offset, both fitted by least squares.

    The fit (ours) is repeated on the pixels that it explains best, so that an object that was put in does
    not pass for light.
    """
    old, new = (np.asarray(image, dtype=np.float64).reshape(-1, 3) for image in (before, after))
    lit = np.empty_like(old)
    for channel in range(3):
        x, y = old[:, channel], new[:, channel]
        kept = np.ones(len(x), dtype=bool)
        for _ in range(FITS):
            spread = x[kept].var()
            gain = (
                ((x[kept] - x[kept].mean()) * (y[kept] - y[kept].mean())).mean() / spread
                if spread > 1e-9
                else 1.0
            )
            lit[:, channel] = gain * (x - x[kept].mean()) + y[kept].mean()
            residual = np.abs(y - lit[:, channel])
            kept = residual <= np.quantile(residual, EXPLAINED)
    return Image.fromarray((np.clip(lit, 0, 255) + 0.5).astype(np.uint8).reshape(np.asarray(before).shape))


def change_in_words(before: Image.Image, after: Image.Image) -> str:
    """What a difference picture shows, for those who do not see it: how much of the picture changed, where
    most, and the change of light."""
    old, new = (np.asarray(image, dtype=np.float64) for image in (before, after))
    light = round(float((new - old).mean()))
    shade = (
        "no change of light"
        if abs(light) < 2
        else f"{abs(light)} grey levels {'darker' if light < 0 else 'lighter'} on the whole"
    )
    rest = np.abs(new - np.asarray(in_the_light_of(before, after), dtype=np.float64)).max(-1)
    changed = rest > CHANGED
    if not changed.any():
        return f"{shade}, and nothing else changed"
    height, width = changed.shape
    y, x = (places.mean() / size for places, size in zip(np.nonzero(changed), (height, width), strict=True))
    across, down = (
        ("left", "middle", "right")[min(2, int(3 * x))],
        ("upper", "middle", "lower")[min(2, int(3 * y))],
    )
    where = "middle" if across == down else f"{down} {across}"
    share = max(1, round(100 * changed.mean()))
    return f"{shade}; {share} % of the picture changed beyond that, around the {where}"


def is_small(image: Image.Image) -> bool:
    """The picture is shown pixel by pixel."""
    return max(image.size) <= SMALL


def data_uri(image: Image.Image) -> str:
    """The picture as a data URI: small ones exactly (PNG), larger ones reduced to `LARGEST` pixels (WebP)."""
    stream = io.BytesIO()
    if is_small(image):
        image.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        reduced = image.copy()
        reduced.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        reduced.save(stream, "WEBP", quality=80)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


OUTCOMES: tuple[Outcome, ...] = ("fooled", "held", "rejected")
SHARES = {"fooled": 0.5, "held": 0.25, "rejected": 0.25}
MOST_ITEMS = 48
MOST_BYTES = 4_500_000


@dataclass(frozen=True, slots=True)
class Hung:
    """An exhibit with its pictures as data URIs: before, after, where they differ, and where they differ
    with the change of light taken out.

    change: what differs, in words. width and height are the clean picture's, to which the boxes refer."""

    exhibit: Exhibit
    before: str
    after: str
    gap: str
    unlit_gap: str
    change: str
    width: int
    height: int
    small: bool


def choose(exhibits: Sequence[Exhibit], most: int = MOST_ITEMS) -> list[Exhibit]:
    """At most so many exhibits: half fooled, a quarter held, a quarter rejected, evenly over the Attackers.

    Only items that the base Defender gets right on the clean picture. The order within a kind is that of a
    hash, so nobody picked; what one kind lacks, the others fill.
    """
    kinds: dict[Outcome, list[Exhibit]] = {
        outcome: _in_turns([e for e in exhibits if e.clean_right and e.outcome == outcome])
        for outcome in OUTCOMES
    }
    chosen = {outcome: kinds[outcome][: round(SHARES[outcome] * most)] for outcome in OUTCOMES}
    for outcome in OUTCOMES:
        room = most - sum(len(some) for some in chosen.values())
        chosen[outcome] += kinds[outcome][len(chosen[outcome]) :][:room]
    return [exhibit for outcome in OUTCOMES for exhibit in chosen[outcome]]


def _in_turns(exhibits: Sequence[Exhibit]) -> list[Exhibit]:
    """One of every Attacker in turn, each Attacker's in the order of a hash; later Attackers come first."""
    piles: dict[str, list[Exhibit]] = {}
    for exhibit in sorted(
        exhibits, key=lambda e: hashlib.sha256(f"{e.attacker}/{e.question_id}".encode()).digest()
    ):
        piles.setdefault(exhibit.attacker, []).append(exhibit)
    order = sorted(piles, key=lambda name: (name != "bootstrap", len(name), name), reverse=True)
    longest = max((len(pile) for pile in piles.values()), default=0)
    return [piles[name][i] for i in range(longest) for name in order if i < len(piles[name])]


def load_pair(exhibit: Exhibit) -> tuple[Image.Image, Image.Image]:
    """(before, after) of an exhibit, after in the size of before. Errors: ImageError where a file is gone or
    damaged.
    """
    before, after = load_image(exhibit.image), load_image(exhibit.picture)
    return before, after if after.size == before.size else after.resize(before.size, Image.Resampling.LANCZOS)


def hang(exhibits: Sequence[Exhibit], most_bytes: int = MOST_BYTES) -> tuple[list[Hung], list[str]]:
    """Embed the exhibits' pictures until the room is used up; also says, in words, what could not be shown.

    Room is spent on the kinds in turn, so that a gallery of large pictures still has all three.
    """
    shown: dict[str, list[Hung]] = {outcome: [] for outcome in OUTCOMES}
    broken, used = 0, 0
    queue = _alternating(exhibits)
    for done, exhibit in enumerate(queue):
        try:
            before, after = load_pair(exhibit)
        except ImageError:
            broken += 1
            continue
        gap, unlit_gap = difference(before, after), difference(in_the_light_of(before, after), after)
        uris = (data_uri(before), data_uri(after), data_uri(gap), data_uri(unlit_gap))
        if used + sum(map(len, uris)) > most_bytes:
            notes = [f"{len(queue) - done} more are left out to keep this file small."]
            return _hung(shown), notes + _gone(broken)
        used += sum(map(len, uris))
        shown[exhibit.outcome].append(
            Hung(exhibit, *uris, change_in_words(before, after), *before.size, is_small(before))
        )
    return _hung(shown), _gone(broken)


def _alternating(exhibits: Sequence[Exhibit]) -> list[Exhibit]:
    kinds = [[e for e in exhibits if e.outcome == outcome] for outcome in OUTCOMES]
    longest = max((len(kind) for kind in kinds), default=0)
    return [kind[i] for i in range(longest) for kind in kinds if i < len(kind)]


def _hung(shown: dict[str, list[Hung]]) -> list[Hung]:
    return [item for outcome in OUTCOMES for item in shown[outcome]]


def _gone(broken: int) -> list[str]:
    return [f"{broken} are not shown because a picture's file is gone or damaged."] if broken else []


def gallery_filters(hung: Sequence[Hung]) -> dict[str, Any]:
    """The gallery's filters: outcomes and Attackers with their counts, and the combinations that show
    nothing.
    """
    attackers = sorted(
        {item.exhibit.attacker for item in hung}, key=lambda name: (name != "bootstrap", len(name), name)
    )
    outcomes = {outcome: sum(item.exhibit.outcome == outcome for item in hung) for outcome in OUTCOMES}
    pairs = {(item.exhibit.outcome, item.exhibit.attacker) for item in hung}
    return {
        "outcomes": outcomes,
        "attackers": [
            (place, name, sum(item.exhibit.attacker == name for item in hung))
            for place, name in enumerate(attackers)
        ],
        "place": {name: place for place, name in enumerate(attackers)},
        "empty": [
            (o, place) for o in OUTCOMES for place, name in enumerate(attackers) if (o, name) not in pairs
        ]
        + [(o, None) for o in OUTCOMES if not outcomes[o]],
    }
