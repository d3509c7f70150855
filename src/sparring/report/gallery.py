"""Which held-out edits a reader sees: a sample of each kind, drawn without looking, with their pictures embedded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sparring.data.images import ImageError, load_image
from sparring.report.pictures import change_in_words, data_uri, difference, in_the_light_of, is_small
from sparring.report.run import Exhibit, Outcome

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

    Only items that the base Defender gets right on the clean picture. The order within a kind is that of a hash, so nobody picked;
    what one kind lacks, the others fill.
    """
    kinds: dict[Outcome, list[Exhibit]] = {
        outcome: _in_turns([e for e in exhibits if e.clean_right and e.outcome == outcome]) for outcome in OUTCOMES
    }
    chosen = {outcome: kinds[outcome][: round(SHARES[outcome] * most)] for outcome in OUTCOMES}
    for outcome in OUTCOMES:
        room = most - sum(len(some) for some in chosen.values())
        chosen[outcome] += kinds[outcome][len(chosen[outcome]) :][:room]
    return [exhibit for outcome in OUTCOMES for exhibit in chosen[outcome]]


def _in_turns(exhibits: Sequence[Exhibit]) -> list[Exhibit]:
    """One of every Attacker in turn, each Attacker's in the order of a hash; later Attackers come first."""
    piles: dict[str, list[Exhibit]] = {}
    for exhibit in sorted(exhibits, key=lambda e: hashlib.sha256(f"{e.attacker}/{e.question_id}".encode()).digest()):
        piles.setdefault(exhibit.attacker, []).append(exhibit)
    order = sorted(piles, key=lambda name: (name != "bootstrap", len(name), name), reverse=True)
    longest = max((len(pile) for pile in piles.values()), default=0)
    return [piles[name][i] for i in range(longest) for name in order if i < len(piles[name])]


def load_pair(exhibit: Exhibit) -> tuple[Image.Image, Image.Image]:
    """(before, after) of an exhibit, after in the size of before. Errors: ImageError where a file is gone or damaged."""
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
        shown[exhibit.outcome].append(Hung(exhibit, *uris, change_in_words(before, after), *before.size, is_small(before)))
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
    """The gallery's filters: outcomes and Attackers with their counts, and the combinations that show nothing."""
    attackers = sorted({item.exhibit.attacker for item in hung}, key=lambda name: (name != "bootstrap", len(name), name))
    outcomes = {outcome: sum(item.exhibit.outcome == outcome for item in hung) for outcome in OUTCOMES}
    pairs = {(item.exhibit.outcome, item.exhibit.attacker) for item in hung}
    return {
        "outcomes": outcomes,
        "attackers": [(place, name, sum(item.exhibit.attacker == name for item in hung)) for place, name in enumerate(attackers)],
        "place": {name: place for place, name in enumerate(attackers)},
        "empty": [(o, place) for o in OUTCOMES for place, name in enumerate(attackers) if (o, name) not in pairs]
        + [(o, None) for o in OUTCOMES if not outcomes[o]],
    }
