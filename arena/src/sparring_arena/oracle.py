"""What is in a picture, read from its pixels: every thing, in every colour, laid over every place.

A place is measured in nats, `n log((s2 + variance left by the background) / (s2 + variance left by the
sprite)) / 2`, with n the pixels that the sprite covers and s2 the noise that is allowed for, so that of two
sprites that fit equally well the larger one wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparring.data.records import Box
from sparring_arena.sprites import COLORS, NAMES, sprite
from sparring_arena.world import BLOCK, CELL

if TYPE_CHECKING:
    from torch import Tensor

RING = 2  # pixels around a block in which the background is seen too
SIDE = BLOCK * CELL
NOISE = 8.0  # grey levels that a sprite may leave unexplained
LIKELY = 0.75  # share of the variance against the background from which something is a thing
TOLERANCE = 30.0  # grey levels, root mean square, that the sprite of a thing may leave unexplained
FEWEST = 60.0  # nats of a thing
SHARED = 0.35  # part of a box from which another one claims the same place


@dataclass(frozen=True, slots=True)
class Sighting:
    """A thing in a picture: name, colour, box in pixels; how much better than the background it explains the
    pixels (nats, share of the variance), and what it leaves unexplained (root mean square, grey levels).
    """

    name: str
    color: str
    box: Box
    nats: float
    explained: float
    error: float

    @property
    def center(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclass(frozen=True)
class _Bank:
    """Sprites N x colours C on blocks of side K + 2 RING, for convolutions. Weights are squared opacities."""

    weight_N1KK: Tensor
    area_N: Tensor
    ring_N1KK: Tensor
    toned_G3KK: Tensor  # weight times the sprite's straight colour, rows N x C
    square_G: Tensor  # sum of weight times that colour squared
    boxes: tuple[Box, ...]  # of N, within the block with its ring


@cache
def _bank() -> _Bank:
    import torch

    whole = SIDE + 2 * RING
    weights, rings, toned, squares, boxes = [], [], [], [], []
    for name in NAMES:
        for number, color in enumerate(COLORS):
            rgba = np.asarray(sprite(name, color), dtype=np.float32)
            height, width = rgba.shape[:2]
            x, y = RING + (SIDE - width) // 2, RING + (SIDE - height) // 2
            canvas = np.zeros((whole, whole, 4), dtype=np.float32)
            canvas[y : y + height, x : x + width] = rgba
            alpha = canvas[..., 3:] / 255
            weight, straight = alpha**2, canvas[..., :3] / np.maximum(alpha, 1e-3)
            if number == 0:
                weights.append(weight.transpose(2, 0, 1))
                ring = (alpha[..., 0] < 0.04).astype(np.float32)
                rings.append(ring[None] / ring.sum())
                boxes.append((x, y, x + width, y + height))
            toned.append((weight * straight).transpose(2, 0, 1))
            squares.append((weight * straight**2).sum())
    weight_N1KK = torch.from_numpy(np.stack(weights))
    return _Bank(
        weight_N1KK,
        weight_N1KK.sum((1, 2, 3)),
        torch.from_numpy(np.stack(rings)),
        torch.from_numpy(np.stack(toned)),
        torch.tensor(np.array(squares), dtype=torch.float32),
        tuple(boxes),
    )


def find(picture: NDArray[Any], names: Sequence[str] = NAMES) -> list[Sighting]:
    """The things of these names in a picture, [SIZE, SIZE, 3] in 0 to 255, best first.

    Things of all names are looked for, so that a thing is never taken for another one that looks like it.
    """
    import torch  # late, because a recipe that names an audit is to be planned at once
    import torch.nn.functional as F

    bank, colors = _bank(), len(COLORS)
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1)[None]
    padded = F.pad(pixels, (RING,) * 4, mode="replicate")
    channels = padded.transpose(0, 1)  # every channel a picture of its own
    weighted_CNYX = F.conv2d(channels, bank.weight_N1KK)
    ground_CNYX = F.conv2d(channels, bank.ring_N1KK)
    square_NYX = F.conv2d(padded.square().sum(1, keepdim=True), bank.weight_N1KK)[0]
    area_N11 = bank.area_N[:, None, None]
    plain_NYX = square_NYX - 2 * (weighted_CNYX * ground_CNYX).sum(0) + area_N11 * ground_CNYX.square().sum(0)
    cross_GYX = F.conv2d(padded, bank.toned_G3KK)[0]
    left_NCYX = square_NYX[:, None] - (2 * cross_GYX - bank.square_G[:, None, None]).unflatten(
        0, (-1, colors)
    )
    left_NYX, color_NYX = left_NCYX.clamp(min=0).min(1)
    noise_N11 = 3 * NOISE**2 * area_N11
    nats_NYX = 0.5 * area_N11 * torch.log((plain_NYX.clamp(min=0) + noise_N11) / (left_NYX + noise_N11))
    explained_NYX = 1 - left_NYX / plain_NYX.clamp(min=1)
    error_NYX = (left_NYX / (3 * area_N11)).sqrt()
    likely = (explained_NYX >= LIKELY) & (error_NYX <= TOLERANCE) & (nats_NYX >= FEWEST)
    places = likely.nonzero()
    order = nats_NYX[likely].argsort(descending=True)
    seen: list[Sighting] = []
    for n, y, x in places[order].tolist():
        x0, y0, x1, y1 = bank.boxes[n]
        box = (x + x0 - RING, y + y0 - RING, x + x1 - RING, y + y1 - RING)
        if all(shared(box, other.box) <= SHARED for other in seen):
            color = tuple(COLORS)[int(color_NYX[n, y, x])]
            numbers = (float(value[n, y, x]) for value in (nats_NYX, explained_NYX, error_NYX))
            seen.append(Sighting(NAMES[n], color, box, *numbers))
    return [sighting for sighting in seen if sighting.name in names]


def shared(a: Box, b: Box) -> float:
    """The shared area, as a part of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0, width) * max(0, height) / smaller


def count_objects(picture: NDArray[np.uint8], name: str, *names: str) -> int:
    """How many things of these names are in a picture, uint8 [SIZE, SIZE, 3]."""
    return len(find(picture, (name, *names)))
