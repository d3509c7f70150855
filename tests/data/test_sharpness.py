"""The variance of the Laplacian against an explicit sum, and what blur and grain do to it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage.data import coffee

from sparring.data.pixels import sharpness, sharpness_ratio


def test_it_is_the_variance_of_the_four_neighbour_laplacian() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 13), dtype=np.uint8)
    padded = np.pad(grey.astype(float), 1, mode="reflect")
    sums = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    assert sharpness(Image.fromarray(grey)) == pytest.approx((sums - 4 * grey.astype(float)).var())


def test_blur_lowers_the_ratio_and_grain_raises_it() -> None:
    clean = Image.fromarray(coffee())
    assert sharpness_ratio(clean, clean) == 1
    assert sharpness_ratio(clean, clean.filter(ImageFilter.GaussianBlur(1.5))) < 0.3
    noise = np.random.default_rng(0).normal(0, 20, (clean.height, clean.width, 3))
    assert (
        sharpness_ratio(clean, Image.fromarray((np.asarray(clean) + noise).clip(0, 255).astype(np.uint8))) > 2
    )
    brighter = Image.fromarray((np.asarray(clean) * 0.9).astype(np.uint8))
    assert sharpness_ratio(clean, brighter) == pytest.approx(0.81, abs=0.05)


def test_only_where_something_changed_counts() -> None:
    clean = Image.fromarray(coffee())
    box = (100, 80, 220, 200)
    edit = clean.copy()
    edit.paste(clean.crop(box).filter(ImageFilter.GaussianBlur(2)), box)
    assert sharpness_ratio(clean, edit) == pytest.approx(
        sharpness_ratio(clean.crop(box), edit.crop(box)), rel=0.05
    )
    assert sharpness_ratio(clean, edit) < 0.3


def test_flat_pictures_divide_by_no_zero() -> None:
    assert sharpness_ratio(Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (9, 9, 9))) == 1
