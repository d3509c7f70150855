"""Local SSIM of 256 pairs of 64 x 64 pixels with two boxes each: ours in one call, against a loop over
scikit-image. One JSON line.

python benchmarks/ssim.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import torch
from skimage.metrics import structural_similarity

from sparring.data.records import Box
from sparring.judging.integrity import eroded, local_ssim

PAIRS, SIZE, REPEATS = 256, 64, 5


def rival(clean: np.ndarray, edited: np.ndarray, boxes: list[list[Box]]) -> np.ndarray:
    """The same figure a pair at a time: scikit-image's whole map, then the mean inside each eroded box.
    Pictures are [N, H, W, C].
    """
    worst = []
    for a, b, own in zip(clean, edited, boxes, strict=True):
        ssim_map = structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
            channel_axis=-1,
        )[1].mean(-1)
        worst.append(min(ssim_map[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in map(eroded, own)))
    return np.array(worst)


def seconds(work: Callable[[], object]) -> float:
    """The fastest of a few runs, after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    torch.set_num_threads(1)  # scikit-image uses one
    rng = np.random.default_rng(0)
    clean = rng.random((PAIRS, SIZE, SIZE, 3), dtype=np.float32)
    edited = np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32)
    boxes: list[list[Box]] = []
    for _ in range(PAIRS):
        own: list[Box] = []
        for _ in range(2):
            width, height = rng.integers(12, 25, size=2).tolist()
            x0, y0 = int(rng.integers(0, SIZE - width + 1)), int(rng.integers(0, SIZE - height + 1))
            own.append((x0, y0, x0 + width, y0 + height))
        boxes.append(own)
    clean_BCHW, edited_BCHW = (
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() for images in (clean, edited)
    )
    np.testing.assert_allclose(
        local_ssim(clean_BCHW, edited_BCHW, boxes).numpy(), rival(clean, edited, boxes), atol=1e-4
    )
    ours = seconds(lambda: local_ssim(clean_BCHW, edited_BCHW, boxes)) / PAIRS * 1e6
    theirs = seconds(lambda: rival(clean, edited, boxes)) / PAIRS * 1e6
    case = f"{PAIRS} pairs of {SIZE} x {SIZE} px, 2 boxes of 12 to 24 px, one thread"
    figures = {
        "ours": round(ours, 1),
        "rival": round(theirs, 1),
        "ratio": round(theirs / ours, 1),
        "unit": "microseconds a pair",
    }
    print(json.dumps({"benchmark": "local SSIM against scikit-image", "case": case} | figures))


if __name__ == "__main__":
    main()
