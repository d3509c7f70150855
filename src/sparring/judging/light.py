"""The light of an edited picture: did its colours change as a whole, as no object could change them?

SSIM hardly sees a picture that is dimmed, and a Defender may fall for that. Here the protected boxes, and all
that lies outside them, are averaged over a grid of cells, and per channel a straight line from clean to
edited cell means is fitted that as many cells as possible obey. Its height is the change of the *mean*
colour, its slope that of the colours' *spread*. A cell in which an object was put, taken away or recoloured
obeys no such line: its weight goes to nothing (Tukey's biweight, iterated from a wide scale to a narrow one).
Noise, blur and compression leave cell means as they are. The measure and its constants are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.data.records import Box

Array = NDArray[np.float64]

CELLS, BOX_CELLS = 16, 6  # at most so many cells along either side of the picture, and of a box
SMALLEST = 4  # pixels along a cell's side: blur and compression reach so far
# grey levels from which a cell has no weight, one for each pass of the fit
SCALES = (96.0, 48.0, 24.0, 12.0, 12.0)
AGREES = 6.0  # grey levels, root mean square over the channels, up to which a cell obeys a line
MOST = 0.7  # share of the cells that must obey a line before it is the light
FEWEST = 0.2  # share of the cells that must have stayed nearly as they were to tell a slight change
BETTER = 0.1  # share of the cells that it must explain beyond those that stayed as they were
# grey levels: where cells spread no more than this, noise would tell the slope, which is then drawn to 1
TEXTURE = 8.0
DARK = 8.0  # grey levels added to both means, so that black has a logarithm


@dataclass(frozen=True, slots=True)
class LightChange:
    """How far the light is from the clean picture's: absolute logarithms of the gain of the mean colour and
    of its spread.

    Each is the largest over channels and regions (every box, and what lies outside them): 0.1 is about a
    tenth brighter or darker.
    """

    level: float = 0.0
    spread: float = 0.0


def light_change(clean: NDArray[np.uint8], edited: NDArray[np.uint8], boxes: Sequence[Box]) -> LightChange:
    """The change of light between two pictures of one size, [H, W, 3] in 0 to 255.

    boxes: the protected ones, (x0, y0, x1, y1) in pixels, half-open.
    """
    outside = np.ones(clean.shape[:2])
    for x0, y0, x1, y1 in boxes:
        outside[y0:y1, x0:x1] = 0
    found = [
        _change(
            _cells(clean, outside, CELLS),
            _cells(edited, outside, CELLS),
            _cells(outside[..., None], None, CELLS)[:, 0],
        )
    ]
    for x0, y0, x1, y1 in boxes:
        before, after = (_cells(picture[y0:y1, x0:x1], None, BOX_CELLS) for picture in (clean, edited))
        found.append(_change(before, after, np.ones(len(before))))
    return LightChange(max(change.level for change in found), max(change.spread for change in found))


def _cells(picture: NDArray[Any], weights: Array | None, cells: int) -> Array:
    """Weighted means over a grid of at most cells x cells, [N, channels]; a cell without weight is 0."""
    numbers = (max(1, min(cells, side // SMALLEST)) for side in picture.shape[:2])
    rows, columns = (np.arange(n) * side // n for n, side in zip(numbers, picture.shape[:2], strict=True))

    def sums(values: Array) -> Array:
        return np.asarray(
            np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1), dtype=np.float64
        )

    weight = np.ones(picture.shape[:2]) if weights is None else weights
    total = sums(picture * weight[..., None])
    return (total / np.maximum(sums(weight)[..., None], 1e-9)).reshape(-1, picture.shape[2])


def _change(before_NC: Array, after_NC: Array, weight_N: Array) -> LightChange:
    if weight_N.sum() <= 0:
        return LightChange()
    line = light_line(before_NC, after_NC, weight_N)
    mean_C = _mean(before_NC, line.weight_N)
    lit_C = line.slope_C * mean_C + line.offset_C
    level = np.abs(np.log((np.maximum(lit_C, 0) + DARK) / (mean_C + DARK)))
    variance_C = _mean(np.square(before_NC - mean_C), line.weight_N) + TEXTURE**2
    gain = float((line.slope_C * variance_C).sum() / variance_C.sum())
    return LightChange(float(level.max()), abs(math.log(max(gain, 1e-3))))


def picture_line(before: Array, after: Array) -> tuple[Array, Array]:
    """(slope, offset) per channel of the line from clean to edited that most of a picture [H, W, channels]
    obeys.
    """
    cells = [_cells(picture, None, CELLS) for picture in (before, after)]
    line = light_line(cells[0], cells[1], np.ones(len(cells[0])))
    return line.slope_C, line.offset_C


@dataclass(frozen=True, slots=True)
class Line:
    """edited = slope * clean + offset, per channel; `weight_N`: the cells' weights; `explained`: the share
    that obey it.
    """

    slope_C: Array
    offset_C: Array
    weight_N: Array
    explained: float


def light_line(before_NC: Array, after_NC: Array, weight_N: Array) -> Line:
    """The light that most cells are in.

    Cells that stayed as they were have the first word: another line must explain clearly more of them. Where
    too few do and no other line explains most, the picture is another one and nothing is known of its light:
    no change.
    """
    kept = _fit(
        before_NC, after_NC, weight_N, SCALES[-1:] * 3, _weights(after_NC - before_NC, weight_N, SCALES[-1])
    )
    relit = _fit(before_NC, after_NC, weight_N, SCALES, weight_N)
    if relit.explained >= MOST and relit.explained > kept.explained + BETTER:
        return relit
    if kept.explained >= FEWEST:
        return kept
    channels = before_NC.shape[1]
    return Line(np.ones(channels), np.zeros(channels), weight_N, 0.0)


def _fit(before_NC: Array, after_NC: Array, weight_N: Array, scales: Sequence[float], start_N: Array) -> Line:
    own_N, slope_C, offset_C = start_N, np.ones(before_NC.shape[1]), np.zeros(before_NC.shape[1])
    for scale in scales:
        if own_N.sum() <= 0:
            own_N = weight_N  # no cell is near: the picture is another one
        x_C, y_C = _mean(before_NC, own_N), _mean(after_NC, own_N)
        x_NC, y_NC = before_NC - x_C, after_NC - y_C
        covariance_C, variance_C = (_mean(x_NC * other_NC, own_N) for other_NC in (y_NC, x_NC))
        slope_C = np.maximum((covariance_C + TEXTURE**2) / (variance_C + TEXTURE**2), 0)
        offset_C = y_C - slope_C * x_C
        own_N = _weights(after_NC - slope_C * before_NC - offset_C, weight_N, scale)
    obey_N = _rms(after_NC - slope_C * before_NC - offset_C) < AGREES
    used_N = own_N if own_N.sum() > 0 else weight_N
    return Line(slope_C, offset_C, used_N, float((weight_N * obey_N).sum() / weight_N.sum()))


def _weights(residual_NC: Array, weight_N: Array, scale: float) -> Array:
    """Tukey's biweight of the cells' residuals, times their weights: [N]."""
    return np.asarray(
        weight_N * np.square(1 - np.minimum(_rms(residual_NC) / scale, 1) ** 2), dtype=np.float64
    )


def _rms(values_NC: Array) -> Array:
    return np.asarray(np.sqrt(np.square(values_NC).mean(1)), dtype=np.float64)


def _mean(values_NC: Array, weight_N: Array) -> Array:
    return np.asarray((values_NC * weight_N[:, None]).sum(0) / weight_N.sum(), dtype=np.float64)


def excess(change: LightChange, level: float | None, spread: float | None) -> float:
    """How far a change of light lies beyond the limits, in sum over those that are set; 0 within them."""
    pairs = ((change.level, level), (change.spread, spread))
    return math.fsum(max(0.0, value - limit) for value, limit in pairs if limit is not None)
