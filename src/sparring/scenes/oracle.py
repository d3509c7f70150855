"""Reading a picture's objects back from its pixels, without any learned player.

Matched filtering over the known sprites in two passes. The coarse one (`filters.py`) guesses what may be
where; here the guesses are fitted at full resolution with the renderer's own sprites (position, size, angle,
mirror, colour), and those that explain their pixels are kept, the best first, none on top of another. What
was found is erased, and what it hid is looked for again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sparring.data.records import Box
from sparring.scenes.filters import EDGE, Array, screen
from sparring.scenes.sprites import COLORS, NAMES, placed
from sparring.scenes.world import SIZE, Thing

SMALLEST, LARGEST, STEEPEST = 13.0, 28.0, 23.0  # sizes in pixels and degrees within which poses are fitted
SHARED = 0.35  # part of a box from which another one claims the same place
# guesses that are fitted in a round over all names; over a few names, for each; rounds
GUESSES, FEW, ROUNDS = 14, 5, 6
# Explained shares: below which a first fit is not worth improving, from which it is worth a second try, from
# which it may be a thing, from which it is one if little is left, from which it is one beyond doubt.
HOPELESS, PROMISING, LIKELY, CLEAR, PLAIN = 0.3, 0.6, 0.77, 0.9, 0.96
# grey levels that the sprite of a thing may leave unexplained, root mean square; half of it where there is no
# doubt
TOLERANCE = 28.0
FEWEST = 40.0  # nats of a thing; thin ones of 14 pixels have some 60
NOISE = 6.0  # grey levels that the sprite of a thing leaves unexplained at best
# the fit asks for thousands of different sprites: they would only flush the renderer's cache
_render = placed.__wrapped__


@dataclass(frozen=True, slots=True)
class Fit:
    """A thing and how well its sprite explains the pixels: `nats` as in `filters.py`, `explained` the share
    of the variance against the local background, `error` the root mean square residual under the sprite in
    grey levels.
    """

    thing: Thing
    nats: float
    explained: float
    error: float

    @property
    def likely(self) -> bool:
        """It may be a thing, if nothing else explains the place better."""
        return self.explained >= LIKELY and self.error <= TOLERANCE and self.nats >= FEWEST

    @property
    def plain(self) -> bool:
        """It is one beyond doubt."""
        return self.explained >= PLAIN or (self.explained >= CLEAR and self.error <= TOLERANCE / 2)


class Fitter:
    """Lays rendered sprites over one place of a picture and measures them against the background seen around
    a first guess.
    """

    def __init__(self, pixels: Array, guess: Thing) -> None:
        self.pixels, self.guess, self.name, self.color = pixels, guess, guess.name, guess.color
        x0, y0, x1, y1 = guess.box
        alpha = np.zeros((SIZE + 2 * EDGE, SIZE + 2 * EDGE), dtype=np.uint8)
        alpha[y0 + EDGE : y1 + EDGE, x0 + EDGE : x1 + EDGE] = self.sprite(
            guess.size, guess.angle, guess.mirror
        )[..., 3]
        x0, y0, x1, y1 = max(0, x0 - EDGE), max(0, y0 - EDGE), x1 + EDGE, y1 + EDGE
        free = alpha[EDGE:-EDGE, EDGE:-EDGE][y0:y1, x0:x1] < 20
        around = pixels[y0:y1, x0:x1][free]
        self.ground: Array = (
            np.median(around, axis=0).astype(np.float32) if len(around) else pixels.mean((0, 1))
        )

    def sprite(self, size: float, angle: float, mirror: bool) -> Array:
        return np.asarray(_render(self.name, self.color, size, angle, mirror), dtype=np.float32)

    def at(self, size: float, angle: float, mirror: bool, reach: int, center: tuple[float, float]) -> Fit:
        """The best fit whose middle is within `reach` pixels of `center` along each axis."""
        sprite = self.sprite(size, angle, mirror)
        height, width = sprite.shape[:2]
        alpha = sprite[..., 3] / 255
        model = sprite[..., :3] + (1 - alpha[..., None]) * self.ground
        (left, right), (top, bottom) = (
            (
                min(max(0, round(m - side / 2) - reach), SIZE - side),
                max(0, min(SIZE - side, round(m - side / 2) + reach)),
            )
            for m, side in zip(center, (width, height), strict=True)
        )
        windows = sliding_window_view(
            self.pixels[top : bottom + height, left : right + width], (height, width), axis=(0, 1)
        )
        errors = np.einsum("yxchw,hw->yx", np.square(windows - model.transpose(2, 0, 1)), alpha)
        dy, dx = (int(i) for i in np.unravel_index(errors.argmin(), errors.shape))
        area = float(alpha.sum())
        left_over = float(errors[dy, dx]) / area
        plain = float((np.square(windows[dy, dx] - self.ground[:, None, None]) * alpha).sum()) / area
        nats = area / 2 * math.log((plain + 3 * NOISE**2) / (left_over + 3 * NOISE**2))
        x, y = left + dx, top + dy
        thing = Thing(self.name, self.color, size, angle, mirror, (x, y, x + width, y + height))
        return Fit(thing, nats, 1 - left_over / max(plain, 1.0), math.sqrt(left_over / 3))

    def erase(self) -> None:
        """Lay the background seen around the first guess over it, in the picture itself."""
        x0, y0, x1, y1 = self.guess.box
        cover = np.clip(
            self.sprite(self.guess.size, self.guess.angle, self.guess.mirror)[..., 3:] / 128, 0, 1
        )
        self.pixels[y0:y1, x0:x1] += cover * (self.ground - self.pixels[y0:y1, x0:x1])


def _fit(pixels: Array, guess: Thing) -> Fit:
    """The fine pass: the pose near the guess whose rendered sprite explains the pixels best, and the colour
    that does.
    """
    fitter = Fitter(pixels, guess)
    sizes = [min(max(guess.size * factor, SMALLEST), LARGEST) for factor in (0.92, 1.0, 1.08)]
    best = _climb(
        fitter,
        [fitter.at(size, guess.angle, mirror, 2, guess.center) for size in sizes for mirror in (False, True)],
    )
    if best.explained > PROMISING and not best.plain:
        # Perhaps a summit beside the highest one: once more from far poses.
        pose = best.thing
        far = [
            (angle, mirror)
            for angle in (-18, -9, 0, 9, 18)
            for mirror in (False, True)
            if mirror != pose.mirror or abs(angle - pose.angle) > 6
        ]
        best = max(
            best,
            _climb(fitter, [fitter.at(pose.size, angle, mirror, 2, pose.center) for angle, mirror in far]),
            key=_by_nats,
        )
    pose = best.thing
    for fitter.color in COLORS:
        if fitter.color != pose.color:
            best = max(best, fitter.at(pose.size, pose.angle, pose.mirror, 0, pose.center), key=_by_nats)
    return best


def _climb(fitter: Fitter, starts: Sequence[Fit]) -> Fit:
    """The best fit that is reached from the best of the starts by ever smaller changes of size and angle."""
    best = max(starts, key=_by_nats)
    for number, (size_step, angle_step) in enumerate(((1.6, 5.0), (0.8, 2.5), (0.4, 1.2))):
        if best.explained < HOPELESS + 0.15 * number:
            break
        for _ in range(3):
            pose = best.thing
            moves = [(pose.size + step, pose.angle) for step in (size_step, -size_step)]
            moves += [(pose.size, pose.angle + step) for step in (angle_step, -angle_step)]
            if size_step < 1 and not best.plain:
                moves += [
                    (pose.size + a * size_step, pose.angle + b * angle_step) for a in (-1, 1) for b in (-1, 1)
                ]
            moves = [
                (size, angle)
                for size, angle in moves
                if SMALLEST <= size <= LARGEST and abs(angle) <= STEEPEST
            ]
            top = max((fitter.at(*move, pose.mirror, 1, pose.center) for move in moves), key=_by_nats)
            if top.nats <= best.nats:
                break
            best = top
    return best


def _by_nats(fit: Fit) -> float:
    return fit.nats


def find(
    picture: NDArray[Any], names: Sequence[str] = NAMES, changed: NDArray[np.bool_] | None = None
) -> list[Fit]:
    """The objects of these names in a picture, [SIZE, SIZE, 3] in 0 to 255, each with how well it fits; the
    best first.

    With few names this takes a few hundredths of a second. What looks like one of them only roughly is
    compared with all the other names. With `changed`, [SIZE, SIZE], only things are looked for whose box is
    at least a fifth changed.
    """
    wanted = tuple(dict.fromkeys(names))
    pixels = np.asarray(picture, dtype=np.float32)
    found: list[Fit] = []
    rest = pixels.copy()
    for rounds in range(ROUNDS):
        fits: list[Fit] = []
        few = len(wanted) <= FEW
        for guess in screen(rest, wanted, FEW * len(wanted) if few else GUESSES, rounds % 2):
            x0, y0, x1, y1 = guess.box
            if changed is not None and changed[y0:y1, x0:x1].mean() < 0.2:
                continue
            here = [fit for fit in fits if _distance(fit.thing, guess) < 5]
            if len(here) < 4 and not any(fit.plain for fit in here):
                fits.append(_fit(rest, guess))
        new: list[Fit] = []
        strangers: list[Fit] = []
        for fit in sorted(fits, key=_by_nats, reverse=True):
            if not fit.likely or any(
                _overlap(fit.thing.box, other.thing.box) > SHARED for other in new + strangers
            ):
                continue
            stranger = rival(rest, fit, wanted)
            (new if stranger is None else strangers).append(stranger or fit)
        for fit in new + strangers:
            Fitter(rest, fit.thing).erase()
        found += new
        # A full reading looks on until it finds nothing, at least once from odd places; a short one only
        # where other things were in the way.
        if not strangers and (few or (rounds and not new)):
            break
    return sorted(found, key=_by_nats, reverse=True)


def locate(picture: NDArray[Any], name: str, box: Box) -> Fit | None:
    """The thing of that name in that box of a picture, or None when none is there."""
    pixels = np.asarray(picture, dtype=np.float32)
    center = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    fits: list[Fit] = []
    for shift in (0, 1):
        fits += [_fit(pixels, guess) for guess in screen(pixels, (name,), 2, shift, center)]
        fits = [
            fit
            for fit in fits
            if fit.likely and all(abs(a - b) <= 3 for a, b in zip(fit.thing.box, box, strict=True))
        ]
        if any(fit.plain for fit in fits):
            break
    return max(fits, key=_by_nats, default=None)


def identify(picture: NDArray[Any], center: tuple[float, float]) -> Fit | None:
    """The thing of any name whose middle is near a point of a picture, or None when none is: quicker than
    reading the whole picture.
    """
    pixels = np.asarray(picture, dtype=np.float32)
    for shift in (0, 1):
        fits = [
            fit
            for fit in (_fit(pixels, guess) for guess in screen(pixels, tuple(NAMES), 3, shift, center))
            if fit.likely
        ]
        if fits:
            return max(fits, key=_by_nats)
    return None


def rival(pixels: Array, fit: Fit, names: tuple[str, ...]) -> Fit | None:
    """The sprite of another name than these that explains the place of a fit better, if there is one."""
    if fit.plain:
        return None
    for guess in screen(pixels, tuple(NAMES), 3, 0, fit.thing.center, 0.75 * fit.thing.size, without=names):
        other = _fit(pixels, guess)
        if other.nats > fit.nats and _overlap(other.thing.box, fit.thing.box) > SHARED:
            return other
    return None


def _distance(a: Thing, b: Thing) -> float:
    return max(abs(a.center[0] - b.center[0]), abs(a.center[1] - b.center[1]))


def _overlap(a: Box, b: Box) -> float:
    """The shared area, as a part of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0, width) * max(0, height) / smaller


def read_objects(picture: NDArray[np.uint8]) -> list[Thing]:
    """All objects of a picture, uint8 [SIZE, SIZE, 3], in reading order of their middles."""
    return sorted((fit.thing for fit in find(picture)), key=lambda thing: (thing.center[1], thing.center[0]))


def count_objects(picture: NDArray[np.uint8], name: str, *names: str) -> int:
    """How many objects of these names are in a picture, uint8 [SIZE, SIZE, 3]."""
    return len(find(picture, (name, *names)))
