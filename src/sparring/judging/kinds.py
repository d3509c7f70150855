"""What kind of attack an edit was: unchanged, imperceptible, addition, removal, replacement, or several
(hybrid).

The kinds are the paper's (arXiv 2602.22227) and the picture that was not changed at all; the paper's rule is
not published. Ours: the difference map, less a change of light of the whole picture, gives changed regions;
a judge says which objects are to be seen there before and after; what is new was added, what is gone was
removed, and what is new where something is gone has replaced it. A recoloured object is a replaced one: what
was there is gone, and the picture now shows something else in its place. An edit without any of these is
called imperceptible: noise, light, compression. A region that changed much and in which the judge names
nothing, before or after, counts by whether something stands out from its surroundings there; without a judge
(`nobody`) every region does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from scipy import ndimage

from sparring.config import KindSettings
from sparring.data.errors import DataError
from sparring.data.pixels import same_light
from sparring.data.records import Box, Target
from sparring.judging.light import picture_line

Kind = Literal["unchanged", "imperceptible", "add", "remove", "replace", "hybrid"]
KINDS: tuple[Kind, ...] = ("unchanged", "imperceptible", "add", "remove", "replace", "hybrid")
Look = Callable[[Sequence[Image], Sequence[Box]], list[list[Target]]]
"""Pictures and a region in each: the objects to be seen there, with their boxes in the picture; an empty list
where there is only background.
"""

Array = NDArray[np.float64]
UNNAMED, ANOTHER = "something", "something else"
# median deviations of the surroundings from their colour within which a pixel may be one of them
VARIATION = 2.5
OCCUPIED = 0.25  # share of the changed pixels that must stand out for something to be there
SAME_PLACE = 0.3  # share of the smaller of two boxes that both cover, from which they are at one place


@dataclass(frozen=True, slots=True)
class EditKind:
    """The kind of an edit and what led to it. `replaced`: (before, after). `change`: root mean square
    difference in grey levels, light included.
    """

    kind: Kind
    added: tuple[Target, ...]
    removed: tuple[Target, ...]
    replaced: tuple[tuple[Target, Target], ...]
    regions: tuple[Box, ...]
    change: float


def classify(
    cleans: Sequence[Image], edits: Sequence[Image], look: Look, settings: KindSettings = KindSettings()
) -> list[EditKind]:
    """The kind of every edit. The judge is asked once about all regions of all pictures, before and after.

    DataError for an edit that has not the size of its clean picture.
    """
    if len(cleans) != len(edits):
        raise DataError(f"{len(cleans)} clean pictures and {len(edits)} edits: there must be as many")
    pairs = []
    for number, (clean, edit) in enumerate(zip(cleans, edits, strict=True)):
        if clean.size != edit.size:
            raise DataError(
                f"edit {number} is {edit.width} x {edit.height} pixels, its clean picture {clean.width} x "
                f"{clean.height}"
            )
        pairs.append((_pixels(clean), _pixels(edit)))
    found = [in_the_light_of(before, after, settings) for before, after in pairs]
    pictures = zip(cleans, edits, strict=True)
    asked = [
        (image, box) for pair, (_, own) in zip(pictures, found, strict=True) for box in own for image in pair
    ]
    seen = iter(look([image for image, _ in asked], [box for _, box in asked]) if asked else [])
    kinds = []
    for (before, after), (lit, own) in zip(pairs, found, strict=True):
        gone: list[Target] = []
        new: list[Target] = []
        for box in own:
            was, now = next(seen), next(seen)
            if not was and not now:
                was, now = standing_out(before, lit, box, settings)
            gone += was
            new += now
        kinds.append(_kind(gone, new, own, float(np.sqrt(np.square(after - before).mean()))))
    return kinds


def nobody(images: Sequence[Image], boxes: Sequence[Box]) -> list[list[Target]]:
    """A `Look` that names nothing: regions then count by how what they hold stands out. It needs no model."""
    return [[] for _ in boxes]


def _kind(gone: list[Target], new: list[Target], regions: list[Box], change: float) -> EditKind:
    gone, new = _distinct(gone), _distinct(new)
    kept = [(a, b) for a in gone for b in new if a.name == b.name and overlap(a.box, b.box) >= SAME_PLACE]
    gone = [a for a in gone if all(a is not k for k, _ in kept)]
    new = [b for b in new if all(b is not k for _, k in kept)]
    replaced: list[tuple[Target, Target]] = []
    for a in gone:
        over = [
            b
            for b in new
            if overlap(a.box, b.box) >= SAME_PLACE and all(b is not other for _, other in replaced)
        ]
        if over:
            replaced.append((a, max(over, key=lambda b: overlap(a.box, b.box))))
    removed = tuple(a for a in gone if all(a is not other for other, _ in replaced))
    added = tuple(b for b in new if all(b is not other for _, other in replaced))
    by_kind: dict[Kind, object] = {"add": added, "remove": removed, "replace": replaced}
    found = [kind for kind, own in by_kind.items() if own]
    nothing: Kind = "imperceptible" if change > 0 else "unchanged"
    kind: Kind = nothing if not found else found[0] if len(found) == 1 else "hybrid"
    return EditKind(kind, added, removed, tuple(replaced), tuple(regions), change)


def _distinct(targets: list[Target]) -> list[Target]:
    """Each object once: it may lie in several regions."""
    found: list[Target] = []
    for target in targets:
        if all(target.name != other.name or overlap(target.box, other.box) < SAME_PLACE for other in found):
            found.append(target)
    return found


def changed_regions(before: Array, after: Array, settings: KindSettings) -> list[Box]:
    """Boxes of the connected changed regions of a picture, [H, W, 3] in 0 to 255, largest first; small ones
    are left out.

    A change of light, as gains of the channels, is no change.
    """
    return _regions(before, same_light(before, after), settings)


def _regions(before: Array, after: Array, settings: KindSettings) -> list[Box]:
    side = min(before.shape[:2])
    changed = difference_map(before, after, settings) > settings.threshold
    # Parts of one object are joined, threads between two are not.
    reach = max(1, round(settings.join * side))
    labels, _ = ndimage.label(
        ndimage.binary_closing(np.pad(changed, reach), iterations=reach)[reach:-reach, reach:-reach],
        np.ones((3, 3)),
    )
    places = ndimage.find_objects(labels)
    areas = ndimage.sum_labels(changed, labels, range(1, len(places) + 1))
    order = np.argsort(-np.asarray(areas), kind="stable")
    least = max(4.0, settings.smallest * changed.size)
    return [
        (places[i][1].start, places[i][0].start, places[i][1].stop, places[i][0].stop)
        for i in order
        if areas[i] >= least
    ]


def difference_map(before: Array, after: Array, settings: KindSettings) -> Array:
    """Mean absolute difference of the channels, in grey levels, smoothed as finely as the eye sees a picture
    of that size: [H, W].
    """
    sigma = max(0.8, settings.smooth * min(before.shape[:2]))
    return np.asarray(ndimage.gaussian_filter(np.abs(after - before).mean(-1), sigma), dtype=np.float64)


def in_the_light_of(before: Array, after: Array, settings: KindSettings) -> tuple[Array, list[Box]]:
    """The edited picture in the clean one's light, and its changed regions.

    Gains are taken off first. If regions are left, so is the straight line that most of the picture obeys
    (`light`), which a change of contrast is; it stands where it leaves fewer regions.
    """
    lit = same_light(before, after)
    regions = _regions(before, lit, settings)
    if regions:
        slope_C, offset_C = picture_line(before, after)
        other = (after - offset_C) / np.maximum(slope_C, 1e-3)
        left = _regions(before, other, settings)
        if len(left) < len(regions):
            return other, left
    return lit, regions


def standing_out(
    before: Array, after: Array, box: Box, settings: KindSettings
) -> tuple[list[Target], list[Target]]:
    """What an unnamed change is, by contrast alone: does it hold something before, and after? Pictures in one
    light.

    On each side something is there where a quarter of the changed pixels are far from the colour around
    them, far by `stands_out` and beside the surroundings' own variation. Something on both sides is
    something else, replaced or recoloured, if the change is as large as that; a smaller one is the same
    thing, blurred or repainted by the editor.
    """
    x0, y0, x1, y1 = box
    changed = np.zeros(before.shape[:2], dtype=bool)
    difference = difference_map(before, after, settings)
    changed[y0:y1, x0:x1] = difference[y0:y1, x0:x1] > settings.threshold
    ring = ndimage.binary_dilation(
        changed, iterations=max(2, round(0.05 * min(changed.shape)))
    ) & ~ndimage.binary_dilation(changed)
    if not ring.any():
        return [], []
    there = []
    for picture in (before, after):
        far = np.abs(picture - np.median(picture[ring], axis=0)).mean(-1)
        limit = max(settings.stands_out, VARIATION * float(np.median(far[ring])))
        there.append(float((far[changed] > limit).mean()) >= OCCUPIED)
    was, now = ([Target(UNNAMED, box)] if side else [] for side in there)
    if not (was and now):
        return was, now
    return (was, [Target(ANOTHER, box)]) if difference[changed].mean() >= settings.stands_out else ([], [])


def overlap(a: Box, b: Box) -> float:
    """The shared area, as a share of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0, width) * max(0, height) / max(smaller, 1)


def _pixels(image: Any) -> Array:
    return np.asarray(image.convert("RGB"), dtype=np.float64)
