"""Reading a picture's objects back from its pixels, without any learned player.

Matched filtering over the known sprites in two passes. A coarse pass at half resolution slides every sprite, in every colour and a few sizes and
angles, over the picture. Its best guesses are then fitted at full resolution with the renderer's own sprites (position, size, angle, mirror,
colour), and those that explain their pixels are kept, the best first, none on top of another.

A guess is measured in nats: `n log(s2 + variance left by the local background) / (s2 + variance left by the sprite)) / 2` with n the sprite's covered
pixels, so that of two sprites that fit equally well the larger one wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image
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
REACH = 5.0  # pixels from a guess within which another thing is a rival for the same place
FAINT = 20.0  # nats below which the coarse pass has seen nothing
GUESSES, FEW, MOST = 14, 4, 10  # guesses that are fitted in a round over all names; over a few names, for each; objects in a picture
LIKELY, PLAIN = 0.7, 0.96  # explained shares from which a fit may be a thing, and from which it is one beyond doubt
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


@dataclass(frozen=True)
class _Bank:
    """Sprites of one size on one canvas of side K at half resolution, in rows G. Colour c of a sprite is `tone_c * F + H`.

    maps_RK: a^2, a F and the ring (sum 1), one after the other, 3 G rows; own_GK: a H, the three channels side by side.
    """

    side: int
    names: tuple[str, ...]
    poses: tuple[tuple[float, bool, int, int], ...]  # angle, mirror, width, height in pixels
    maps_RK: Tensor
    own_GK: Tensor
    area_G: Tensor
    square_GC: Tensor  # |a-weighted sprite|^2 in each colour


def _half(canvas: Array) -> Array:
    return canvas.reshape(canvas.shape[0] // 2, 2, canvas.shape[1] // 2, 2, *canvas.shape[2:]).mean((1, 3))


@cache
def _bank(name: str, size: float) -> _Bank:
    """The sprites of one name at one size."""
    side = math.ceil((size * 1.23 + 2 * EDGE) / 2)
    maps: dict[str, list[Array]] = {"square": [], "shade": [], "ring": [], "own": []}
    poses, areas, squares = [], [], []
    tones = TONES.numpy()
    for mirror in (False, True):
        for angle in ANGLES:
            red, white = (np.asarray(_render(name, color, size, angle, mirror), dtype=np.float32) for color in ("red", "white"))
            height, width = red.shape[:2]
            canvas = np.zeros((2, 2 * side, 2 * side, 4), dtype=np.float32)
            canvas[:, EDGE : EDGE + height, EDGE : EDGE + width] = red, white
            red, white = _half(canvas[0]), _half(canvas[1])
            alpha = white[..., 3] / 255
            step = COLORS["white"][1] - COLORS["red"][1], COLORS["white"][2] - COLORS["red"][2]
            shade = ((white[..., 1] - red[..., 1]) / step[0] + (white[..., 2] - red[..., 2]) / step[1]) / 2
            own = white[..., :3] - shade[..., None] * tones[-1]
            ring = np.clip(_widened(alpha) - alpha, 0, 1) * (alpha < 0.3)
            maps["square"].append(alpha**2)
            maps["shade"].append(alpha * shade)
            maps["ring"].append(ring / ring.sum())
            maps["own"].append((alpha[..., None] * own).transpose(2, 0, 1))
            poses.append((angle, mirror, width, height))
            areas.append((alpha**2).sum())
            squares.append([((shade[..., None] * tone + own) ** 2).sum() for tone in tones])
    stack = {key: torch.from_numpy(np.stack(value)).flatten(1) for key, value in maps.items()}
    rows = torch.cat([stack["square"], stack["shade"], stack["ring"]])
    return _Bank(side, (name,) * len(poses), tuple(poses), rows, stack["own"], torch.tensor(areas), torch.tensor(np.array(squares), dtype=torch.float32))


@cache
def _banks(names: tuple[str, ...], size: float) -> _Bank:
    """The sprites of several names at one size."""
    banks = [_bank(name, size) for name in names]
    thirds = [bank.maps_RK.chunk(3) for bank in banks]
    return _Bank(
        banks[0].side,
        tuple(name for bank in banks for name in bank.names),
        tuple(pose for bank in banks for pose in bank.poses),
        torch.cat([third[i] for i in range(3) for third in thirds]),
        torch.cat([bank.own_GK for bank in banks]),
        torch.cat([bank.area_G for bank in banks]),
        torch.cat([bank.square_GC for bank in banks]),
    )


def _widened(alpha: Array) -> Array:
    padded = np.pad(alpha, 1)
    return np.max([padded[y : y + alpha.shape[0], x : x + alpha.shape[1]] for y in range(3) for x in range(3)], axis=0)


def _screen(pixels: Array, names: tuple[str, ...], most: int, around: tuple[float, float] | None = None) -> list[Fit]:
    """The coarse pass: at most `most` guesses, best first; with `around` only those whose middle is within REACH pixels of that point."""
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    if around is None:
        tops = lefts = range(0, (SIZE - 6) // 2)
    else:
        lefts, tops = (range(max(0, int(m - 20) // 2), max(1, min(SIZE - 6, int(m)) // 2)) for m in around)
    shape = (len(names), len(tops), len(lefts))
    best_NYX, pose_NYX, color_NYX = torch.zeros(shape), torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    x_1P = (2 * torch.tensor(lefts)).repeat(len(tops))[None]
    y_1P = (2 * torch.tensor(tops)).repeat_interleave(len(lefts))[None]
    for number, size in enumerate(SIZES):
        bank = _banks(names, size)
        halved = F.avg_pool2d(F.pad(picture, (EDGE, 2 * bank.side, EDGE, 2 * bank.side), mode="replicate"), 2)
        part = halved[..., tops.start : tops.stop + bank.side - 1, lefts.start : lefts.stop + bank.side - 1]
        nats_GP, color_GP = _nats(bank, F.unfold(part, bank.side).view(3, bank.side**2, -1))
        width_G1, height_G1 = torch.tensor([pose[2:] for pose in bank.poses])[:, :, None].unbind(1)
        away = (x_1P + width_G1 > SIZE) | (y_1P + height_G1 > SIZE)
        if around is not None:
            away |= (x_1P + width_G1 / 2 - around[0]).abs() > REACH
            away |= (y_1P + height_G1 / 2 - around[1]).abs() > REACH
        nats_NP, pose_NP = nats_GP.masked_fill_(away, 0).view(len(names), POSES, -1).max(1)
        color_NP = color_GP.view(len(names), POSES, -1).gather(1, pose_NP[:, None])
        better = nats_NP.view(shape) > best_NYX
        best_NYX = torch.where(better, nats_NP.view(shape), best_NYX)
        pose_NYX = torch.where(better, pose_NP.view(shape) + number * POSES, pose_NYX)
        color_NYX = torch.where(better, color_NP.view(shape), color_NYX)
    peak_NYX = best_NYX * (F.max_pool2d(best_NYX[None], 5, stride=1, padding=2)[0] == best_NYX)
    values, places = peak_NYX.flatten().topk(min(most, best_NYX.numel()))
    guesses = []
    for nats, place in zip(values.tolist(), places.tolist(), strict=True):
        n, y, x = (int(i) for i in np.unravel_index(place, shape))
        number, pose = divmod(int(pose_NYX[n, y, x]), POSES)
        angle, mirror, width, height = _bank(names[n], SIZES[number]).poses[pose]
        left, top = 2 * lefts[x], 2 * tops[y]
        thing = Thing(names[n], tuple(COLORS)[int(color_NYX[n, y, x])], SIZES[number], angle, mirror, (left, top, left + width, top + height))
        if nats > FAINT:
            guesses.append(Fit(thing, nats, 0.0, 0.0))
    return guesses


def _nats(bank: _Bank, columns_3KP: Tensor) -> tuple[Tensor, Tensor]:
    """The measure of every sprite at every place, in its best colour, and that colour."""
    rows = len(bank.poses)
    light_CGP, shade_CGP, ground_CGP = (bank.maps_RK @ columns_3KP).split(rows, dim=1)
    square_GP = bank.maps_RK[:rows] @ columns_3KP.square().sum(0)
    own_GP = bank.own_GK @ columns_3KP.reshape(-1, columns_3KP.shape[-1])
    cross_TGP = (TONES @ shade_CGP.reshape(3, -1)).view(len(TONES), *own_GP.shape)
    gain_GP, color_GP = (2 * cross_TGP - bank.square_GC.T[..., None]).max(0)
    area_G1 = bank.area_G[:, None]
    left_GP = (square_GP - gain_GP - 2 * own_GP).clamp(min=0) / area_G1
    plain_GP = (square_GP - 2 * (ground_CGP * light_CGP).sum(0)).div_(area_G1).add_(ground_CGP.square().sum(0)).clamp_(min=0)
    noise = 3 * COARSE_NOISE**2
    return 2 * area_G1 * torch.log((plain_GP + noise) / (left_GP + noise)), color_GP


class _Fitter:
    """Lays rendered sprites over one place of a picture and measures them against the background seen around a first guess."""

    def __init__(self, pixels: Array, guess: Thing) -> None:
        self.pixels, self.name, self.color, self.center = pixels, guess.name, guess.color, guess.center
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
        windows = sliding_window_view(self.pixels[top : bottom + height, left : right + width], (height, width), axis=(0, 1))  # type: ignore[call-overload]
        errors = np.einsum("yxchw,hw->yx", np.square(windows - model.transpose(2, 0, 1)), alpha)
        dy, dx = (int(i) for i in np.unravel_index(errors.argmin(), errors.shape))
        area = float(alpha.sum())
        left_over = float(errors[dy, dx]) / area
        plain = float((np.square(windows[dy, dx] - self.ground[:, None, None]) * alpha).sum()) / area
        nats = area / 2 * math.log((plain + 3 * NOISE**2) / (left_over + 3 * NOISE**2))
        x, y = left + dx, top + dy
        thing = Thing(self.name, self.color, size, angle, mirror, (x, y, x + width, y + height))
        return Fit(thing, nats, 1 - left_over / max(plain, 1.0), math.sqrt(left_over / 3))


def _fit(pixels: Array, guess: Thing) -> Fit:
    """The fine pass: the pose near the guess whose rendered sprite explains the pixels best, and the colour that does."""
    fitter = _Fitter(pixels, guess)
    best = max((fitter.at(guess.size, guess.angle, mirror, 2, guess.center) for mirror in (guess.mirror, not guess.mirror)), key=_by_nats)
    for size_step, angle_step in ((1.6, 5.0), (0.8, 2.5), (0.4, 1.2)):
        for _ in range(3):
            pose = best.thing
            moves = [(pose.size + step, pose.angle) for step in (size_step, -size_step) if SMALLEST <= pose.size + step <= LARGEST]
            moves += [(pose.size, pose.angle + step) for step in (angle_step, -angle_step) if abs(pose.angle + step) <= STEEPEST]
            top = max((fitter.at(*move, pose.mirror, 1, pose.center) for move in moves), key=_by_nats)
            if top.nats <= best.nats:
                break
            best = top
    pose = best.thing
    for fitter.color in COLORS:
        if fitter.color != pose.color:
            best = max(best, fitter.at(pose.size, pose.angle, pose.mirror, 0, pose.center), key=_by_nats)
    return best


def _by_nats(fit: Fit) -> float:
    return fit.nats


def find(picture: NDArray[np.uint8], names: Sequence[str] = NAMES) -> list[Fit]:
    """The objects of these names in a picture, uint8 [SIZE, SIZE, 3], each with how well it fits; the best first.

    With few names this takes a few hundredths of a second. What looks like one of them only roughly is compared with all the other names.
    """
    wanted = tuple(dict.fromkeys(names))
    pixels = np.asarray(picture, dtype=np.float32)
    found: list[Fit] = []
    rest = pixels.copy()
    while len(found) < MOST:
        fits: list[Fit] = []
        for guess in _screen(rest, wanted, GUESSES if len(wanted) > FEW else FEW * len(wanted)):
            here = [fit for fit in fits if _distance(fit.thing, guess.thing) < REACH]
            if len(here) < 3 and not any(fit.explained > PLAIN for fit in here):
                fits.append(_fit(rest, guess.thing))
        new: list[Fit] = []
        for fit in sorted(fits, key=_by_nats, reverse=True):
            if fit.explained >= LIKELY and not any(_overlap(fit.thing.box, other.thing.box) > 0.35 for other in new) and _stands(rest, fit, wanted):
                new.append(fit)
        if not new:
            break
        found += new
        for fit in new:
            _erase(rest, fit.thing)
    return sorted(found, key=_by_nats, reverse=True)


def _stands(pixels: Array, fit: Fit, names: tuple[str, ...]) -> bool:
    """No sprite of a name that was not searched for explains the place better."""
    others = tuple(name for name in NAMES if name not in names)
    if fit.explained > PLAIN or not others:
        return True
    rivals = _screen(pixels, others, 2, fit.thing.center)
    return all(_fit(pixels, rival.thing).nats < fit.nats for rival in rivals)


def _erase(pixels: Array, thing: Thing) -> None:
    """Lay the background seen around a thing over it."""
    fitter = _Fitter(pixels, thing)
    x0, y0, x1, y1 = thing.box
    cover = np.clip(fitter.sprite(thing.size, thing.angle, thing.mirror)[..., 3:] / 128, 0, 1)
    pixels[y0:y1, x0:x1] += cover * (fitter.ground - pixels[y0:y1, x0:x1])


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
