"""Reading a picture's objects back from its pixels, without any learned player.

Matched filtering over the known sprites in two passes. A coarse pass at half resolution slides every sprite, in every colour and a few sizes and
angles, over the picture. Its best guesses are then fitted at full resolution with the renderer's own sprites (position, size, angle, mirror,
colour), and those that explain their pixels are kept, the best first, none on top of another.

A guess is measured in nats: `n log(s2 + variance left by the local background) / (s2 + variance left by the sprite)) / 2` with n the sprite's covered
pixels, so that of two sprites that fit equally well the larger one wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from sparring.data.records import Box
from sparring.scenes.sprites import COLORS, NAMES, placed
from sparring.scenes.world import SIZE, Thing

Array = NDArray[np.float32]
SIZES = (14.8, 17.3, 20.2, 23.2, 26.2)
ANGLES = (-15.0, -5.0, 5.0, 15.0)
SMALLEST, LARGEST, STEEPEST = 13.0, 28.0, 23.0
EDGE = 2  # free pixels kept around a sprite on its canvas, for the ring in which the background is seen
POSES = 2 * len(ANGLES)
REACH = 7.0  # pixels from a guess within which another thing may be a rival for its place
SHARED = 0.35  # part of a box from which another one claims the same place
FAINT = 8.0  # nats below which the coarse pass has seen nothing
GUESSES, FEW, ROUNDS = 14, 5, 6  # guesses that are fitted in a round over all names; over a few names, for each; rounds
# Explained shares: below which a first fit is not worth improving, from which it is worth a second try, from which it may be a thing, from which it
# is one if little is left, from which it is one beyond doubt.
HOPELESS, PROMISING, LIKELY, CLEAR, PLAIN = 0.3, 0.6, 0.77, 0.9, 0.96
TOLERANCE = 28.0  # grey levels that the sprite of a thing may leave unexplained, root mean square; half of it where there is no doubt
COARSE_NOISE, NOISE = 18.0, 6.0  # grey levels that a sprite may leave unexplained, in each pass
TONES = torch.tensor(list(COLORS.values()), dtype=torch.float32)
_render = placed.__wrapped__  # the fit asks for thousands of different sprites: they would only flush the renderer's cache


@dataclass(frozen=True, slots=True)
class Fit:
    """A thing and how well its sprite explains the pixels: `nats` as above, `explained` the share of the variance against the local background,
    `error` the root mean square residual under the sprite in grey levels."""

    thing: Thing
    nats: float
    explained: float
    error: float

    @property
    def likely(self) -> bool:
        """It may be a thing, if nothing else explains the place better."""
        return self.explained >= LIKELY and self.error <= TOLERANCE

    @property
    def plain(self) -> bool:
        """It is one beyond doubt."""
        return self.explained >= PLAIN or (self.explained >= CLEAR and self.error <= TOLERANCE / 2)


@dataclass(frozen=True)
class _Bank:
    """Sprites of one size on one canvas of side K at half resolution, in rows G. Colour c of a sprite is `tone_c * F + H`.

    maps_RK: a, a (1 - a), a F and the ring in which the background is seen (sum 1), one after the other, 4 G rows; own_GK: a H, the three channels
    side by side. sums_GS: the sums of a, a (1 - a)^2 and a (1 - a) F; own_sums_GC: of a (1 - a) H; square_GT: of a |sprite|^2 in each colour T.
    """

    side: int
    names: tuple[str, ...]
    poses: tuple[tuple[float, bool, int, int], ...]  # angle, mirror, width, height in pixels
    maps_RK: Tensor
    own_GK: Tensor
    sums_GS: Tensor
    own_sums_GC: Tensor
    square_GT: Tensor


def _half(canvas: Array) -> Array:
    return np.asarray(canvas.reshape(canvas.shape[0] // 2, 2, canvas.shape[1] // 2, 2, 4).mean((1, 3)), dtype=np.float32)


@cache
def _bank(name: str, size: float) -> _Bank:
    """The sprites of one name at one size."""
    side = math.ceil((size * 1.23 + 2 * EDGE) / 2)
    maps: list[Array] = []
    owns, poses, sums, own_sums, squares = [], [], [], [], []
    tones = TONES.numpy()
    for mirror in (False, True):
        for angle in ANGLES:
            red, white = (np.asarray(_render(name, color, size, angle, mirror), dtype=np.float32) for color in ("red", "white"))
            height, width = red.shape[:2]
            canvas = np.zeros((2, 2 * side, 2 * side, 4), dtype=np.float32)
            canvas[:, EDGE : EDGE + height, EDGE : EDGE + width] = red, white
            red, white = _half(canvas[0]), _half(canvas[1])
            alpha = white[..., 3] / np.float32(255)
            step = COLORS["white"][1] - COLORS["red"][1], COLORS["white"][2] - COLORS["red"][2]
            shade = ((white[..., 1] - red[..., 1]) / step[0] + (white[..., 2] - red[..., 2]) / step[1]) / 2
            own = white[..., :3] - shade[..., None] * tones[-1]
            ring = np.clip(_widened(alpha) - alpha, 0, 1) * (alpha < 0.3)
            edge = alpha * (1 - alpha)
            maps.append(np.stack([alpha, edge, alpha * shade, ring / ring.sum()]))
            owns.append((alpha[..., None] * own).transpose(2, 0, 1))
            sums.append([alpha.sum(), (edge * (1 - alpha)).sum(), (edge * shade).sum()])
            own_sums.append((edge[..., None] * own).sum((0, 1)))
            squares.append([(alpha[..., None] * (shade[..., None] * tone + own) ** 2).sum() for tone in tones])
            poses.append((angle, mirror, width, height))
    return _Bank(
        side,
        (name,) * len(poses),
        tuple(poses),
        torch.from_numpy(np.stack(maps, axis=1)).flatten(2).flatten(0, 1),
        torch.from_numpy(np.stack(owns)).flatten(1),
        *(torch.from_numpy(np.array(numbers, dtype=np.float32)) for numbers in (sums, own_sums, squares)),
    )


@cache
def _banks(names: tuple[str, ...], size: float) -> _Bank:
    """The sprites of several names at one size."""
    banks = [_bank(name, size) for name in names]
    parts = [bank.maps_RK.chunk(4) for bank in banks]
    return _Bank(
        banks[0].side,
        tuple(name for bank in banks for name in bank.names),
        tuple(pose for bank in banks for pose in bank.poses),
        torch.cat([part[i] for i in range(4) for part in parts]),
        torch.cat([bank.own_GK for bank in banks]),
        torch.cat([bank.sums_GS for bank in banks]),
        torch.cat([bank.own_sums_GC for bank in banks]),
        torch.cat([bank.square_GT for bank in banks]),
    )


def _widened(alpha: Array) -> Array:
    padded = np.pad(alpha, 1)
    shifted = [padded[y : y + alpha.shape[0], x : x + alpha.shape[1]] for y in range(3) for x in range(3)]
    return np.asarray(np.max(shifted, axis=0), dtype=np.float32)


def _screen(
    pixels: Array, names: tuple[str, ...], most: int, shift: int, around: tuple[float, float] | None = None, above: float = 0
) -> list[Fit]:
    """The coarse pass: at most `most` guesses, best first; with `around` only those whose middle is within REACH pixels of that point.

    Places are two pixels apart, from `shift` on, 0 or 1. Sizes are those larger than `above`.
    """
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    if around is None:
        tops = lefts = range((SIZE - 6) // 2)
    else:
        lefts, tops = (range(max(0, int(m - 23) // 2), max(1, min(SIZE - 6, int(m + 3)) // 2)) for m in around)
    shape = (len(names), len(tops), len(lefts))
    best_NYX, pose_NYX, color_NYX = torch.zeros(shape), torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    squared = picture.square().sum(1, keepdim=True)
    for number, size in enumerate(SIZES):
        if size < above:
            continue
        bank = _banks(names, size)
        width_G, height_G = torch.tensor([pose[2:] for pose in bank.poses]).T
        # Places where no sprite of this size would be inside are left out.
        rows, columns = (min(len(r), (SIZE - int(side_G.min())) // 2 + 1 - r.start) for r, side_G in ((tops, height_G), (lefts, width_G)))
        if rows < 1 or columns < 1:
            continue
        windows = []
        for image in (picture, squared):
            halved = F.avg_pool2d(F.pad(image, (EDGE, 2 * bank.side, EDGE, 2 * bank.side), mode="replicate")[..., shift:, shift:], 2)
            part = halved[..., tops.start : tops.start + rows + bank.side - 1, lefts.start : lefts.start + columns + bank.side - 1]
            windows.append(F.unfold(part.transpose(0, 1), bank.side))
        nats_GP, color_GP = _nats(bank, windows[0], windows[1][0])
        x_P = (2 * torch.arange(lefts.start, lefts.start + columns) + shift).repeat(rows)
        y_P = (2 * torch.arange(tops.start, tops.start + rows) + shift).repeat_interleave(columns)
        away = (x_P + width_G[:, None] > SIZE) | (y_P + height_G[:, None] > SIZE)
        if around is not None:
            away |= (x_P + width_G[:, None] / 2 - around[0]).abs() > REACH
            away |= (y_P + height_G[:, None] / 2 - around[1]).abs() > REACH
        nats_NP, best_NP = nats_GP.masked_fill_(away, 0).view(len(names), POSES, -1).max(1)
        colors_NP = color_GP.view(len(names), POSES, -1).gather(1, best_NP[:, None])
        nats, poses, colors = (value.view(len(names), rows, columns) for value in (nats_NP, best_NP + number * POSES, colors_NP))
        part_NYX = (slice(None), slice(rows), slice(columns))
        better = nats > best_NYX[part_NYX]
        pose_NYX[part_NYX] = torch.where(better, poses, pose_NYX[part_NYX])
        color_NYX[part_NYX] = torch.where(better, colors, color_NYX[part_NYX])
        best_NYX[part_NYX] = torch.where(better, nats, best_NYX[part_NYX])
    peak_NYX = best_NYX * (F.max_pool2d(best_NYX[None], 5, stride=1, padding=2)[0] == best_NYX)
    values, places = peak_NYX.flatten().topk(min(most, best_NYX.numel()))
    guesses = []
    for nats, place in zip(values.tolist(), places.tolist(), strict=True):
        n, y, x = (int(i) for i in np.unravel_index(place, shape))
        number, pose = divmod(int(pose_NYX[n, y, x]), POSES)
        angle, mirror, width, height = _bank(names[n], SIZES[number]).poses[pose]
        left, top = 2 * lefts[x] + shift, 2 * tops[y] + shift
        thing = Thing(
            names[n], tuple(COLORS)[int(color_NYX[n, y, x])], SIZES[number], angle, mirror, (left, top, left + width, top + height)
        )
        if nats > FAINT:
            guesses.append(Fit(thing, nats, 0.0, 0.0))
    return guesses


def _nats(bank: _Bank, windows_3KP: Tensor, squares_KP: Tensor) -> tuple[Tensor, Tensor]:
    """The measure of every sprite at every place, in its best colour, and that colour.

    With b the background that the ring shows: sums of a |picture - (1 - a) b - sprite|^2 against sums of a |picture - b|^2.
    """
    light_3GP, edge_3GP, shade_3GP, ground_3GP = (bank.maps_RK @ windows_3KP).chunk(4, dim=1)
    square_GP = bank.maps_RK[: len(bank.poses)] @ squares_KP
    area_G1, rest_G1, edge_shade_G1 = bank.sums_GS.T[..., None]
    own_GP = bank.own_GK @ windows_3KP.reshape(-1, windows_3KP.shape[-1]) - torch.einsum("gc,cgp->gp", bank.own_sums_GC, ground_3GP)
    shade_3GP = shade_3GP - edge_shade_G1 * ground_3GP
    cross_TGP = (TONES @ shade_3GP.reshape(3, -1)).view(len(TONES), *own_GP.shape)
    gain_GP, color_GP = (2 * cross_TGP - bank.square_GT.T[..., None]).max(0)
    ground_GP = ground_3GP.square().sum(0)
    left_GP = square_GP - gain_GP - 2 * own_GP - 2 * (ground_3GP * edge_3GP).sum(0) + rest_G1 * ground_GP
    plain_GP = square_GP - 2 * (ground_3GP * light_3GP).sum(0) + area_G1 * ground_GP
    noise_G1 = 3 * COARSE_NOISE**2 * area_G1
    return 2 * area_G1 * torch.log((plain_GP.clamp(min=0) + noise_G1) / (left_GP.clamp(min=0) + noise_G1)), color_GP


class Fitter:
    """Lays rendered sprites over one place of a picture and measures them against the background seen around a first guess."""

    def __init__(self, pixels: Array, guess: Thing) -> None:
        self.pixels, self.guess, self.name, self.color = pixels, guess, guess.name, guess.color
        x0, y0, x1, y1 = guess.box
        alpha = np.zeros((SIZE + 2 * EDGE, SIZE + 2 * EDGE), dtype=np.uint8)
        alpha[y0 + EDGE : y1 + EDGE, x0 + EDGE : x1 + EDGE] = self.sprite(guess.size, guess.angle, guess.mirror)[..., 3]
        x0, y0, x1, y1 = max(0, x0 - EDGE), max(0, y0 - EDGE), x1 + EDGE, y1 + EDGE
        free = alpha[EDGE:-EDGE, EDGE:-EDGE][y0:y1, x0:x1] < 20
        around = pixels[y0:y1, x0:x1][free]
        self.ground: Array = np.median(around, axis=0).astype(np.float32) if len(around) else pixels.mean((0, 1))

    def sprite(self, size: float, angle: float, mirror: bool) -> Array:
        return np.asarray(_render(self.name, self.color, size, angle, mirror), dtype=np.float32)

    def at(self, size: float, angle: float, mirror: bool, reach: int, center: tuple[float, float]) -> Fit:
        """The best fit whose middle is within `reach` pixels of `center` along each axis."""
        sprite = self.sprite(size, angle, mirror)
        height, width = sprite.shape[:2]
        alpha = sprite[..., 3] / 255
        model = sprite[..., :3] + (1 - alpha[..., None]) * self.ground
        (left, right), (top, bottom) = (
            (min(max(0, round(m - side / 2) - reach), SIZE - side), max(0, min(SIZE - side, round(m - side / 2) + reach)))
            for m, side in zip(center, (width, height), strict=True)
        )
        windows = sliding_window_view(self.pixels[top : bottom + height, left : right + width], (height, width), axis=(0, 1))
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
        cover = np.clip(self.sprite(self.guess.size, self.guess.angle, self.guess.mirror)[..., 3:] / 128, 0, 1)
        self.pixels[y0:y1, x0:x1] += cover * (self.ground - self.pixels[y0:y1, x0:x1])


def _fit(pixels: Array, guess: Thing) -> Fit:
    """The fine pass: the pose near the guess whose rendered sprite explains the pixels best, and the colour that does."""
    fitter = Fitter(pixels, guess)
    sizes = [min(max(guess.size * factor, SMALLEST), LARGEST) for factor in (0.92, 1.0, 1.08)]
    best = _climb(fitter, [fitter.at(size, guess.angle, mirror, 2, guess.center) for size in sizes for mirror in (False, True)])
    if best.explained > PROMISING and not best.plain:
        # Perhaps a summit beside the highest one: once more from far poses.
        pose = best.thing
        far = [
            (angle, mirror)
            for angle in (-18, -9, 0, 9, 18)
            for mirror in (False, True)
            if mirror != pose.mirror or abs(angle - pose.angle) > 6
        ]
        best = max(best, _climb(fitter, [fitter.at(pose.size, angle, mirror, 2, pose.center) for angle, mirror in far]), key=_by_nats)
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
                moves += [(pose.size + a * size_step, pose.angle + b * angle_step) for a in (-1, 1) for b in (-1, 1)]
            moves = [(size, angle) for size, angle in moves if SMALLEST <= size <= LARGEST and abs(angle) <= STEEPEST]
            top = max((fitter.at(*move, pose.mirror, 1, pose.center) for move in moves), key=_by_nats)
            if top.nats <= best.nats:
                break
            best = top
    return best


def _by_nats(fit: Fit) -> float:
    return fit.nats


def find(picture: NDArray[Any], names: Sequence[str] = NAMES, changed: NDArray[np.bool_] | None = None) -> list[Fit]:
    """The objects of these names in a picture, [SIZE, SIZE, 3] in 0 to 255, each with how well it fits; the best first.

    With few names this takes a few hundredths of a second. What looks like one of them only roughly is compared with all the other names.
    With `changed`, [SIZE, SIZE], only things are looked for whose box is at least a fifth changed.
    """
    wanted = tuple(dict.fromkeys(names))
    pixels = np.asarray(picture, dtype=np.float32)
    found: list[Fit] = []
    rest = pixels.copy()
    for rounds in range(ROUNDS):
        fits: list[Fit] = []
        few = len(wanted) <= FEW
        for guess in _screen(rest, wanted, FEW * len(wanted) if few else GUESSES, rounds % 2):
            x0, y0, x1, y1 = guess.thing.box
            if changed is not None and changed[y0:y1, x0:x1].mean() < 0.2:
                continue
            here = [fit for fit in fits if _distance(fit.thing, guess.thing) < 5]
            if len(here) < 4 and not any(fit.plain for fit in here):
                fits.append(_fit(rest, guess.thing))
        new: list[Fit] = []
        strangers: list[Fit] = []
        for fit in sorted(fits, key=_by_nats, reverse=True):
            if not fit.likely or any(_overlap(fit.thing.box, other.thing.box) > SHARED for other in new + strangers):
                continue
            stranger = rival(rest, fit, wanted)
            (new if stranger is None else strangers).append(stranger or fit)
        for fit in new + strangers:
            Fitter(rest, fit.thing).erase()
        found += new
        # A full reading looks on until it finds nothing, at least once from odd places; a short one only where other things were in the way.
        if not strangers and (few or (rounds and not new)):
            break
    return sorted(found, key=_by_nats, reverse=True)


def locate(picture: NDArray[Any], name: str, box: Box) -> Fit | None:
    """The thing of that name in that box of a picture, or None when none is there."""
    pixels = np.asarray(picture, dtype=np.float32)
    guesses = _screen(pixels, (name,), 2, 0, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    fits = [_fit(pixels, guess.thing) for guess in guesses]
    fits = [fit for fit in fits if fit.likely and all(abs(a - b) <= 3 for a, b in zip(fit.thing.box, box, strict=True))]
    return max(fits, key=_by_nats, default=None)


def rival(pixels: Array, fit: Fit, names: tuple[str, ...]) -> Fit | None:
    """The sprite of another name than these that explains the place of a fit better, if there is one."""
    others = tuple(name for name in NAMES if name not in names)
    if fit.plain or not others:
        return None
    for guess in _screen(pixels, others, 3, 0, fit.thing.center, 0.75 * fit.thing.size):
        other = _fit(pixels, guess.thing)
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
