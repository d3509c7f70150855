"""Semantic integrity of an edit: local SSIM of the protected boxes between the clean and the edited picture.

SSIM is that of Wang et al. 2004 (doi 10.1109/TIP.2003.819861): a Gaussian window of 11 x 11 with sigma 1.5,
population covariance, K1 = 0.01, K2 = 0.03, data range 1, per channel, then the mean over channels. Its map
is that of the *whole* picture, with the border mirrored as scikit-image does; what is averaged is the map
inside each box. Only the map inside the boxes is ever computed.

Erosion, threshold and region are ours: the paper publishes none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from sparring.data.errors import DataError
from sparring.data.records import Box

RADIUS = 5
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
# all boxes of a call are cut into square tiles of one of these sizes, so that they make one batch
TILES = (8, 16, 32, 64)
CHUNK = 2**16  # pixels of tiles handled at once: bounds memory, and keeps a CPU's cache in use


def local_ssim(clean_BCHW: Tensor, edited_BCHW: Tensor, boxes: Sequence[Sequence[Box]]) -> Tensor:
    """Integrity of a batch of edits: the smallest `box_ssim` of each picture, or 1 where it has no box.

    clean_BCHW, edited_BCHW: pictures of one size, floats in [0, 1] or bytes; a clean picture may be an
    expanded view. boxes: per picture its protected boxes, (x0, y0, x1, y1) in pixels, half-open. Returns
    float64 [B]. DataError for a box that is empty or outside the picture.
    """
    values_K, picture_K = box_ssim(clean_BCHW, edited_BCHW, boxes)
    # SSIM never exceeds 1, so starting from 1 changes no minimum.
    worst_B = torch.ones(clean_BCHW.shape[0], dtype=values_K.dtype, device=values_K.device)
    return worst_B.scatter_reduce(0, picture_K, values_K, "amin")


def box_ssim(
    clean_BCHW: Tensor, edited_BCHW: Tensor, boxes: Sequence[Sequence[Box]]
) -> tuple[Tensor, Tensor]:
    """Mean SSIM inside every (eroded) box of every picture: (values_K float64, picture_K), boxes in the order
    given.
    """
    if clean_BCHW.shape != edited_BCHW.shape or clean_BCHW.ndim != 4:
        raise DataError(
            f"clean pictures are {tuple(clean_BCHW.shape)}, edited ones {tuple(edited_BCHW.shape)}: one "
            f"[B, C, H, W] is needed of both"
        )
    if len(boxes) != clean_BCHW.shape[0]:
        raise DataError(
            f"{len(boxes)} lists of boxes for {clean_BCHW.shape[0]} pictures: one list a picture is needed"
        )
    height, width = clean_BCHW.shape[2:]
    device = clean_BCHW.device
    owners: list[int] = []
    regions: list[Box] = []
    for picture, own in enumerate(boxes):
        for box in own:
            x0, y0, x1, y1 = box
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                raise DataError(
                    f"picture {picture}: box {list(box)} is empty or lies outside the picture, which is "
                    f"{width} x {height} pixels"
                )
            owners.append(picture)
            regions.append(eroded(box))
    picture_K = torch.tensor(owners, dtype=torch.long, device=device)
    sums_K = torch.zeros(len(regions), dtype=torch.float64, device=device)
    if not regions:
        return sums_K, picture_K
    size = _tile_size(regions)
    tiles = [
        (k, y, x)
        for k, (x0, y0, x1, y1) in enumerate(regions)
        for y in range(y0, y1, size)
        for x in range(x0, x1, size)
    ]
    region_K4 = torch.tensor(regions, device=device)
    step_S = torch.arange(size, device=device)
    at_once = max(1, CHUNK // (size + 2 * RADIUS) ** 2)
    for start in range(0, len(tiles), at_once):
        box_T, top_T, left_T = torch.tensor(tiles[start : start + at_once], device=device).T
        map_YTX = _ssim_tiles(clean_BCHW, edited_BCHW, picture_K[box_T], top_T, left_T, size)
        inside_YT = step_S[:, None] + top_T < region_K4[box_T, 3]
        inside_TX = left_T[:, None] + step_S < region_K4[box_T, 2, None]
        inside_YTX = inside_YT[:, :, None] & inside_TX
        sums_K.index_add_(0, box_T, (map_YTX * inside_YTX).sum((0, 2), dtype=torch.float64))
    area_K = (region_K4[:, 2] - region_K4[:, 0]) * (region_K4[:, 3] - region_K4[:, 1])
    return sums_K / area_K, picture_K


def eroded(box: Box) -> Box:
    """The box without a rim as wide as the window's radius, so that no window reaches outside it; a rule of
    ours.

    A side too short for that is eroded as far as leaves its middle pixel, or its two middle pixels.
    """
    x0, y0, x1, y1 = box
    dx, dy = min(RADIUS, (x1 - x0 - 1) // 2), min(RADIUS, (y1 - y0 - 1) // 2)
    return x0 + dx, y0 + dy, x1 - dx, y1 - dy


def _ssim_tiles(
    clean_BCHW: Tensor, edited_BCHW: Tensor, picture_T: Tensor, top_T: Tensor, left_T: Tensor, size: int
) -> Tensor:
    """SSIM map, mean over channels, of square tiles whose top left map pixel is (top, left): [size, T, size],
    that is row, tile, column.
    """
    x, x_mean = _patches(clean_BCHW, picture_T, top_T, left_T, size)
    y, y_mean = _patches(edited_BCHW, picture_T, top_T, left_T, size)
    window_SP = _window(size, x.device)
    moments_PMTCP = torch.empty(x.shape[0], 5, *x.shape[1:], device=x.device)
    moments_PMTCP[:, 0], moments_PMTCP[:, 1] = x, y
    for m, (a, b) in enumerate(((x, x), (y, y), (x, y)), start=2):
        torch.mul(a, b, out=moments_PMTCP[:, m])
    # Rows first, columns last: each of the two passes is one plain matrix product.
    rows_SMTCP = (window_SP @ moments_PMTCP.flatten(1)).view(size, *moments_PMTCP.shape[1:])
    ux, uy, uxx, uyy, uxy = (rows_SMTCP @ window_SP.T).unbind(1)
    variances = uxx - ux * ux + uyy - uy * uy
    covariance = uxy - ux * uy
    ux, uy = ux + x_mean, uy + y_mean
    ssim = (2 * ux * uy + C1) * (2 * covariance + C2) / ((ux * ux + uy * uy + C1) * (variances + C2))
    return ssim.mean(2)


def _patches(
    images_BCHW: Tensor, picture_T: Tensor, top_T: Tensor, left_T: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Tiles with a rim of RADIUS pixels, the picture's border mirrored, less their own mean: float32 [P, T,
    C, P]; and that mean [T, C, 1].

    The mean is taken off because E[x^2] - E[x]^2 of a bright flat region loses its digits in float32, and C2
    is only 9e-4; variances do not see the shift, and the windowed means get it back.
    """
    reach_P = torch.arange(-RADIUS, size + RADIUS, device=images_BCHW.device)
    rows_PT = _mirrored(reach_P[:, None] + top_T, images_BCHW.shape[2])
    columns_TP = _mirrored(left_T[:, None] + reach_P, images_BCHW.shape[3])
    channel_C = torch.arange(images_BCHW.shape[1], device=images_BCHW.device)
    patches = images_BCHW[
        picture_T[:, None, None], channel_C[:, None], rows_PT[:, :, None, None], columns_TP[:, None, :]
    ]
    patches = patches.float() / 255 if patches.dtype == torch.uint8 else patches.float()
    mean = patches.mean((0, 3))[..., None]
    return patches - mean, mean


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Indices beyond either border, mirrored with the border pixel repeated (scipy's "reflect", NumPy's
    "symmetric").
    """
    index = index % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def _tile_size(regions: Sequence[Box]) -> int:
    """The tile size for which the fewest pixels are read: small boxes fill large tiles badly, and every tile
    has its rim.
    """

    def pixels(size: int) -> int:
        return (
            sum(-((x0 - x1) // size) * -((y0 - y1) // size) for x0, y0, x1, y1 in regions)
            * (size + 2 * RADIUS) ** 2
        )

    return min(TILES, key=pixels)


@cache
def _window(size: int, device: torch.device) -> Tensor:
    """The Gaussian window as a banded matrix [size, size + 10]: a separable convolution is this on both sides
    of a patch.
    """
    offset = torch.arange(size + 2 * RADIUS)[None, :] - torch.arange(size)[:, None] - RADIUS
    weights = torch.exp(-(offset.double() ** 2) / (2 * SIGMA**2)) * (offset.abs() <= RADIUS)
    return (weights / weights.sum(1, keepdim=True)).float().to(device)
