"""The oracle's coarse pass: every sprite, in every colour and a few sizes and angles, slid over a picture at
half resolution.

A place is measured in nats: `n log((s2 + variance left by the background) / (s2 + variance left by the
sprite)) / 2`, with n the pixels that the sprite covers and s2 the noise that is allowed for, so that of two
sprites that fit equally well the larger one wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sparring.scenes.sprites import COLORS, placed
from sparring.scenes.world import SIZE, Thing

Array = NDArray[np.float32]
SIZES = (14.8, 17.3, 20.2, 23.2, 26.2)
ANGLES = (-15.0, -5.0, 5.0, 15.0)
POSES = 2 * len(ANGLES)
EDGE = 2  # free pixels kept around a sprite on its canvas, for the ring in which the background is seen
REACH = 7.0  # pixels from a point within which a thing may be a rival for its place
FAINT = 8.0  # nats below which nothing was seen
# grey levels that a sprite may leave unexplained at half resolution, with a pose that is only nearly right
NOISE = 18.0
TONES = torch.tensor(list(COLORS.values()), dtype=torch.float32)


@dataclass(frozen=True)
class _Bank:
    """Sprites of one size on one canvas of side K at half resolution, in rows G. Colour c of a sprite is
    `tone_c * F + H`.

    maps_RK: a, a (1 - a), a F and the ring in which the background is seen (sum 1), one after the other, 4 G
    rows; own_GK: a H, the three channels side by side. sums_GS: the sums of a, a (1 - a)^2 and a (1 - a) F;
    own_sums_GC: of a (1 - a) H; square_GT: of a |sprite|^2 in each colour T.
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
    return np.asarray(
        canvas.reshape(canvas.shape[0] // 2, 2, canvas.shape[1] // 2, 2, 4).mean((1, 3)), dtype=np.float32
    )


@cache
def _bank(name: str, size: float) -> _Bank:
    """The sprites of one name at one size."""
    side = math.ceil((size * 1.23 + 2 * EDGE) / 2)
    maps: list[Array] = []
    owns, poses, sums, own_sums, squares = [], [], [], [], []
    tones = TONES.numpy()
    for mirror in (False, True):
        for angle in ANGLES:
            red, white = (
                np.asarray(placed.__wrapped__(name, color, size, angle, mirror), dtype=np.float32)
                for color in ("red", "white")
            )
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
            squares.append(
                [(alpha[..., None] * (shade[..., None] * tone + own) ** 2).sum() for tone in tones]
            )
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


def screen(
    pixels: Array,
    names: tuple[str, ...],
    most: int,
    shift: int,
    around: tuple[float, float] | None = None,
    above: float = 0,
    without: tuple[str, ...] = (),
) -> list[Thing]:
    """The coarse pass: at most `most` guesses, best first; with `around` only those whose middle is within
    REACH pixels of that point.

    Places are two pixels apart, from `shift` on, 0 or 1. Sizes are those larger than `above`. Names
    `without` are left out: cheaper than a tuple of names of its own, for each of which the sprites are kept.
    """
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    if around is None:
        tops = lefts = range((SIZE - 6) // 2)
    else:
        lefts, tops = (
            range(max(0, int(m - 23) // 2), max(1, min(SIZE - 6, int(m + 3)) // 2)) for m in around
        )
    shape = (len(names), len(tops), len(lefts))
    best_NYX, pose_NYX, color_NYX = (
        torch.zeros(shape),
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape, dtype=torch.long),
    )
    squared = picture.square().sum(1, keepdim=True)
    for number, size in enumerate(SIZES):
        if size < above:
            continue
        bank = _banks(names, size)
        width_G, height_G = torch.tensor([pose[2:] for pose in bank.poses]).T
        # Places where no sprite of this size would be inside are left out.
        rows, columns = (
            min(len(r), (SIZE - int(side_G.min())) // 2 + 1 - r.start)
            for r, side_G in ((tops, height_G), (lefts, width_G))
        )
        if rows < 1 or columns < 1:
            continue
        windows = []
        for image in (picture, squared):
            halved = F.avg_pool2d(
                F.pad(image, (EDGE, 2 * bank.side, EDGE, 2 * bank.side), mode="replicate")[
                    ..., shift:, shift:
                ],
                2,
            )
            part = halved[
                ...,
                tops.start : tops.start + rows + bank.side - 1,
                lefts.start : lefts.start + columns + bank.side - 1,
            ]
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
        nats, poses, colors = (
            value.view(len(names), rows, columns) for value in (nats_NP, best_NP + number * POSES, colors_NP)
        )
        part_NYX = (slice(None), slice(rows), slice(columns))
        better = nats > best_NYX[part_NYX]
        pose_NYX[part_NYX] = torch.where(better, poses, pose_NYX[part_NYX])
        color_NYX[part_NYX] = torch.where(better, colors, color_NYX[part_NYX])
        best_NYX[part_NYX] = torch.where(better, nats, best_NYX[part_NYX])
    best_NYX[[n for n, name in enumerate(names) if name in without]] = 0
    peak_NYX = best_NYX * (F.max_pool2d(best_NYX[None], 5, stride=1, padding=2)[0] == best_NYX)
    values, places = peak_NYX.flatten().topk(min(most, best_NYX.numel()))
    guesses = []
    for nats, place in zip(values.tolist(), places.tolist(), strict=True):
        n, y, x = (int(i) for i in np.unravel_index(place, shape))
        number, pose = divmod(int(pose_NYX[n, y, x]), POSES)
        angle, mirror, width, height = _bank(names[n], SIZES[number]).poses[pose]
        left, top = 2 * lefts[x] + shift, 2 * tops[y] + shift
        thing = Thing(
            names[n],
            tuple(COLORS)[int(color_NYX[n, y, x])],
            SIZES[number],
            angle,
            mirror,
            (left, top, left + width, top + height),
        )
        if nats > FAINT:
            guesses.append(thing)
    return guesses


def _nats(bank: _Bank, windows_3KP: Tensor, squares_KP: Tensor) -> tuple[Tensor, Tensor]:
    """The measure of every sprite at every place, in its best colour, and that colour.

    With b the background that the ring shows: sums of a |picture - (1 - a) b - sprite|^2 against sums of a
    |picture - b|^2.
    """
    light_3GP, edge_3GP, shade_3GP, ground_3GP = (bank.maps_RK @ windows_3KP).chunk(4, dim=1)
    square_GP = bank.maps_RK[: len(bank.poses)] @ squares_KP
    area_G1, rest_G1, edge_shade_G1 = bank.sums_GS.T[..., None]
    own_GP = bank.own_GK @ windows_3KP.reshape(-1, windows_3KP.shape[-1]) - torch.einsum(
        "gc,cgp->gp", bank.own_sums_GC, ground_3GP
    )
    shade_3GP = shade_3GP - edge_shade_G1 * ground_3GP
    cross_TGP = (TONES @ shade_3GP.reshape(3, -1)).view(len(TONES), *own_GP.shape)
    gain_GP, color_GP = (2 * cross_TGP - bank.square_GT.T[..., None]).max(0)
    ground_GP = ground_3GP.square().sum(0)
    left_GP = square_GP - gain_GP - 2 * own_GP - 2 * (ground_3GP * edge_3GP).sum(0) + rest_G1 * ground_GP
    plain_GP = square_GP - 2 * (ground_3GP * light_3GP).sum(0) + area_G1 * ground_GP
    # Half the logarithm for each of the four pixels that one stands for at half resolution.
    noise_G1 = 3 * NOISE**2 * area_G1
    return 2 * area_G1 * torch.log(
        (plain_GP.clamp(min=0) + noise_G1) / (left_GP.clamp(min=0) + noise_G1)
    ), color_GP
