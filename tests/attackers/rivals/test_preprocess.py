"""The differentiable preprocessing is the processor's own, in every family's numbers, and its gradient is the
transpose of the resize.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, Qwen2VLImageProcessorPil

from sparring.attackers.rivals.pgd import PatchPixels, resize, weights
from sparring.data.errors import ModelError

SIZES = [(64, 64), (97, 61), (300, 180), (33, 40), (224, 224)]
FAMILIES = {
    "qwen2-vl": Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 150 * 150}),
    "qwen3-vl": Qwen2VLImageProcessorPil(patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3, size={"shortest_edge": 4096, "longest_edge": 40000}),
    "bundled": Qwen2VLImageProcessorPil(patch_size=8, image_mean=[0.5] * 3, image_std=[0.5] * 3, size={"shortest_edge": 4096, "longest_edge": 4096}),
}  # fmt: skip


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES)
def test_pixel_values_are_the_processors_own(family: str, size: tuple[int, int]) -> None:
    processor = FAMILIES[family]
    images = [picture(*size, seed=seed) for seed in range(2)]
    official = processor(images=images, return_tensors="pt")
    grid = official["image_grid_thw"][0].tolist()
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).float()
    ours = PatchPixels(processor)(pixels, (grid[1], grid[2]))
    assert ours.shape == official["pixel_values"].shape
    torch.testing.assert_close(ours, official["pixel_values"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("old", "new"), [((40, 30), (64, 64)), ((200, 331), (50, 77)), ((64, 64), (64, 96)), ((9, 250), (120, 8))]
)
def test_resize_is_pillows(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = picture(old[1], old[0], seed=3)
    pixels = torch.from_numpy(np.asarray(image).copy()).double().permute(2, 0, 1)[None]
    theirs = np.asarray(image.resize((new[1], new[0]), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize(pixels, new)[0].permute(1, 2, 0).numpy(), theirs)


def test_the_gradient_is_the_resize_transposed_and_rounding_does_not_stop_it() -> None:
    pixels = torch.from_numpy(np.asarray(picture(30, 20, seed=1)) * 0.5 + 60.2).requires_grad_(True)
    processor = FAMILIES["bundled"]
    values = PatchPixels(processor)(pixels[None], (8, 8))
    weight = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad((values * weight).sum(), pixels)
    # Patches back to a picture, then through both matrices; two frames of a still picture add up.
    frames = weight.view(4, 4, 2, 2, 3, 2, 8, 8).sum(5)
    image = frames.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, 64, 64).double() / 255 / 0.5
    expected = weights(20, 64).T @ image @ weights(30, 64)
    torch.testing.assert_close(slope.permute(2, 0, 1), expected, atol=1e-5, rtol=1e-4)


def test_other_processors_are_refused() -> None:
    with pytest.raises(ModelError, match="CLIPImageProcessorPil"):
        PatchPixels(CLIPImageProcessorPil())
    with pytest.raises(ModelError, match="bicubic"):
        PatchPixels(Qwen2VLImageProcessorPil(do_normalize=False))
