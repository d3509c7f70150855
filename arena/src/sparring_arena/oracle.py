"""What is in a picture, read from its pixels: every thing, in every colour, laid over every place.

A place is measured in nats, `n log((s2 + variance left by the background) / (s2 + variance left by the
sprite)) / 2`, with n the pixels that the sprite covers and s2 the noise that is allowed for, so that of two
sprites that fit equally well the larger one wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
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
WHOLE = SIDE + 2 * RING
MIDDLE = 127.5  # taken from every pixel and tone: sums of squares stay small
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
    """Sprites N on blocks of side K with their ring. Weights are squared opacities. A sprite's straight
    colour is, in channel t and to half a grey level, its tone[t] * light + rest[t] (see `sprite`), so that
    its colours need no correlations of their own.
    """

    weight_NKK: Tensor
    ring_NKK: Tensor
    light_NKK: Tensor
    rest_N3KK: Tensor
    tone_C3: Tensor
    boxes: tuple[Box, ...]  # of N, within the block with its ring

    @cached_property
    def area_N(self) -> Tensor:
        return self.weight_NKK.sum((1, 2))

    @cached_property
    def masks_NK2(self) -> Tensor:
        """Weights and rings, the block's pixels in one row."""
        import torch

        return torch.stack([self.weight_NKK, self.ring_NKK], 3).flatten(1, 2)

    @cached_property
    def square_NC(self) -> Tensor:
        """Of every sprite in every colour C, the sum of weight times colour squared."""
        straight = self.tone_C3[..., None, None] * self.light_NKK[:, None, None] + self.rest_N3KK[:, None]
        return (self.weight_NKK[:, None, None] * straight.square()).sum((2, 3, 4))

    def laid_over(self, pixels_3YX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At every place of a block, [N, Y, X]: the sum of squares under a sprite's weights, what of it the
        sprite leaves in the colour that fits best, and the number of that colour. All correlations are made
        by Fourier transforms, of a size that these are quick at.
        """
        import torch

        sizes = [-(-side // 16) * 16 for side in pixels_3YX.shape[1:]]
        rows, columns = (side - WHOLE + 1 for side in pixels_3YX.shape[1:])
        weight, light, rest = _spectra(*sizes)
        spectrum = torch.fft.rfft2(pixels_3YX, sizes)
        square = torch.fft.rfft2(pixels_3YX.square().sum(0), sizes)
        parts = torch.cat(
            [(square * weight)[:, None], spectrum * light[:, None], (spectrum * rest).sum(1, keepdim=True)], 1
        )
        laid = torch.fft.irfft2(parts, sizes)[..., :rows, :columns]
        cross = torch.einsum("ct,ntyx->ncyx", self.tone_C3, laid[:, 1:4]) + laid[:, None, 4]
        best, color = (self.square_NC[..., None, None] - 2 * cross).min(1)
        return laid[:, 0], (laid[:, 0] + best).clamp(min=0), color


@cache
def _spectra(height: int, width: int) -> tuple[Tensor, ...]:
    import torch

    bank = _bank()
    kernels = (
        bank.weight_NKK,
        bank.weight_NKK * bank.light_NKK,
        bank.weight_NKK[:, None] * bank.rest_N3KK,
    )
    return tuple(torch.fft.rfft2(kernel, (height, width)).conj().resolve_conj() for kernel in kernels)


@cache
def _bank() -> _Bank:
    import torch

    tone = np.array(list(COLORS.values()), dtype=np.float32)
    weights, rings, lights, rests, boxes = [], [], [], [], []
    for name in NAMES:
        straights = []
        for color in COLORS:
            rgba = np.asarray(sprite(name, color), dtype=np.float32)
            tall, wide = rgba.shape[:2]
            x, y = RING + (SIDE - wide) // 2, RING + (SIDE - tall) // 2
            canvas = np.zeros((WHOLE, WHOLE, 4), dtype=np.float32)
            canvas[y : y + tall, x : x + wide] = rgba
            alpha = canvas[..., 3] / 255
            straights.append(canvas[..., :3] / np.maximum(alpha, 1e-3)[..., None] - MIDDLE)
        weights.append(alpha**2)
        ring = (alpha < 0.04).astype(np.float32)
        rings.append(ring / ring.sum())
        boxes.append((x, y, x + wide, y + tall))
        straight = np.stack(straights).transpose(0, 3, 1, 2)  # [C, 3, K, K]
        parts = np.zeros((tone.size, 4), dtype=np.float32)
        parts[:, 0], parts[:, 1:] = tone.ravel(), np.tile(np.eye(3), (len(COLORS), 1))
        found = np.linalg.lstsq(parts, straight.reshape(tone.size, -1), rcond=None)[0]
        lights.append(found[0].reshape(WHOLE, WHOLE))
        rests.append(found[1:].reshape(3, WHOLE, WHOLE))
    weight_NKK, ring_NKK, light_NKK, rest_N3KK = (
        torch.from_numpy(np.stack(part)) for part in (weights, rings, lights, rests)
    )
    return _Bank(weight_NKK, ring_NKK, light_NKK, rest_N3KK, torch.from_numpy(tone), tuple(boxes))


def find(picture: NDArray[Any], names: Sequence[str] = NAMES) -> list[Sighting]:
    """The things of these names in a picture, [SIZE, SIZE, 3] in 0 to 255, best first.

    Things of all names are looked for, so that a thing is never taken for another one that looks like it.
    """
    import torch  # late, because a recipe that names an audit is to be planned at once
    import torch.nn.functional as F

    bank = _bank()
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) - MIDDLE).permute(2, 0, 1)
    padded = F.pad(pixels[None], (RING,) * 4, mode="replicate")[0]
    square_NYX, left_NYX, color_NYX = bank.laid_over(padded)
    # Only where a sprite leaves little is it worth to see what the background would leave.
    n, y, x = ((left_NYX / (3 * bank.area_N[:, None, None])).sqrt() <= TOLERANCE).nonzero(as_tuple=True)
    area, left = bank.area_N[n], left_NYX[n, y, x]
    blocks_P3K = padded.unfold(1, WHOLE, 1).unfold(2, WHOLE, 1)[:, y, x].transpose(0, 1).flatten(2)
    sums_P32 = blocks_P3K @ bank.masks_NK2[n]
    weighted, ground = sums_P32.unbind(2)
    plain = square_NYX[n, y, x] - (ground * (2 * weighted - area[:, None] * ground)).sum(1)
    noise = 3 * NOISE**2 * area
    nats = 0.5 * area * torch.log((plain.clamp(min=0) + noise) / (left + noise))
    explained = 1 - left / plain.clamp(min=1)
    error = (left / (3 * area)).sqrt()
    seen: list[Sighting] = []
    for place in nats.argsort(descending=True).tolist():
        if nats[place] < FEWEST:
            break
        if explained[place] < LIKELY:
            continue
        row, column, thing = int(y[place]), int(x[place]), int(n[place])
        x0, y0, x1, y1 = bank.boxes[thing]
        box = (column + x0 - RING, row + y0 - RING, column + x1 - RING, row + y1 - RING)
        if all(shared(box, other.box) <= SHARED for other in seen):
            color = tuple(COLORS)[int(color_NYX[thing, row, column])]
            numbers = (float(value[place]) for value in (nats, explained, error))
            seen.append(Sighting(NAMES[thing], color, box, *numbers))
    return [sighting for sighting in seen if sighting.name in names]


def shared(a: Box, b: Box) -> float:
    """The shared area, as a part of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0, width) * max(0, height) / smaller


def count_objects(picture: NDArray[np.uint8], name: str, *names: str) -> int:
    """How many things of these names are in a picture, uint8 [SIZE, SIZE, 3]."""
    return len(find(picture, (name, *names)))
