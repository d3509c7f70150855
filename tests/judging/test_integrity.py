"""Local SSIM against scikit-image, and what a change in one place may and may not do to the boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from sparring.data.errors import DataError, SparringError
from sparring.data.records import Box
from sparring.judging.integrity import RADIUS, box_ssim, eroded, local_ssim


def ssim_map(clean: torch.Tensor, edited: torch.Tensor) -> np.ndarray:
    """scikit-image's map of two [C, H, W] pictures in float64, mean over channels."""
    return structural_similarity(
        clean.permute(1, 2, 0).double().numpy(),
        edited.permute(1, 2, 0).double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
        channel_axis=-1,
    )[1].mean(-1)


def pictures(n: int, height: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noise = torch.randn(n, 3, height, width, generator=generator)
    strength = torch.linspace(0.0, 0.4, n)[:, None, None, None]
    return clean, (clean + strength * noise).clamp(0, 1)


def random_boxes(rng: np.random.Generator, height: int, width: int, n: int) -> list[Box]:
    boxes = []
    for _ in range(n):
        x0, y0 = int(rng.integers(0, width)), int(rng.integers(0, height))
        boxes.append((x0, y0, int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1))))
    return boxes


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 97), (130, 33), (11, 11)])
def test_box_ssim_is_scikit_images_on_random_boxes(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    clean, edited = pictures(8, height, width, seed=height)
    whole, strip = (0, 0, width, height), (0, height - 1, width, height)
    boxes = [[*random_boxes(rng, height, width, 5), whole, strip] for _ in range(8)]
    values, owners = box_ssim(clean, edited, boxes)
    expected = []
    for i, own in enumerate(boxes):
        reference = ssim_map(clean[i], edited[i])
        for x0, y0, x1, y1 in map(eroded, own):
            expected.append(reference[y0:y1, x0:x1].mean())
    assert owners.tolist() == [i for i in range(8) for _ in range(7)]
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-5)
    worst = np.array(expected).reshape(8, 7).min(1)
    np.testing.assert_allclose(local_ssim(clean, edited, boxes).numpy(), worst, atol=1e-5)


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (63, 63, 64, 64), (0, 20, 3, 50), (30, 0, 64, 2), (20, 21, 30, 32), (5, 6, 16, 17)]
)
def test_tiny_boxes_and_boxes_at_the_border(box: Box) -> None:
    clean, edited = pictures(3, 64, 64, seed=4)
    x0, y0, x1, y1 = eroded(box)
    expected = [ssim_map(a, b)[y0:y1, x0:x1].mean() for a, b in zip(clean, edited, strict=True)]
    np.testing.assert_allclose(local_ssim(clean, edited, [[box]] * 3).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, 0.97, 1.0])
def test_flat_and_grey_pictures_lose_no_digits(level: float) -> None:
    clean = torch.full((1, 3, 48, 48), level)
    edited = clean.clone()
    # one grey level of 255, the same in all channels
    edited[:, :, ::3, ::2] = (clean[:, :, ::3, ::2] - 0.004).abs()
    x0, y0, x1, y1 = eroded((4, 4, 40, 40))
    expected = ssim_map(clean[0], edited[0])[y0:y1, x0:x1].mean()
    assert local_ssim(clean, edited, [[(4, 4, 40, 40)]]).item() == pytest.approx(expected, abs=1e-5)
    assert local_ssim(clean, clean, [[(4, 4, 40, 40)]]).item() == pytest.approx(1.0, abs=1e-6)


def test_large_boxes_in_a_large_picture() -> None:
    clean, edited = pictures(2, 300, 420, seed=1)
    boxes: list[list[Box]] = [[(10, 20, 400, 290)], [(0, 0, 420, 300), (100, 3, 111, 14)]]
    expected = []
    for i, own in enumerate(boxes):
        reference = ssim_map(clean[i], edited[i])
        expected.append(min(reference[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in map(eroded, own)))
    np.testing.assert_allclose(local_ssim(clean, edited, boxes).numpy(), expected, atol=1e-5)


def test_a_box_is_x_before_y() -> None:
    clean = torch.rand(1, 3, 40, 64, generator=torch.Generator().manual_seed(0))
    edited = clean.clone()
    edited[:, :, 2:14, 44:62] = 0.5  # rows 2 to 13, columns 44 to 61
    assert local_ssim(clean, edited, [[(44, 2, 62, 14)]]).item() < 0.3
    assert local_ssim(clean, edited, [[(2, 20, 32, 36)]]).item() == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(DataError):
        box_ssim(clean, edited, [[(2, 44, 14, 62)]])  # y before x falls outside this picture


@pytest.mark.parametrize("seed", range(6))
def test_a_change_inside_one_box_lowers_only_that_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    boxes: list[Box] = [(2, 3, 20, 28), (30, 4, 55, 18), (25, 35, 60, 62)]
    struck = int(rng.integers(3))
    x0, y0, x1, y1 = boxes[struck]
    edited = clean.clone()
    x, y = int(rng.integers(x0 + 5, x1 - 7)), int(rng.integers(y0 + 5, y1 - 7))
    edited[:, :, y : y + 3, x : x + 3] = 1 - edited[:, :, y : y + 3, x : x + 3]
    values, _ = box_ssim(clean, edited, [boxes])
    others = [values[k].item() for k in range(3) if k != struck]
    assert values[struck] < 0.995
    assert others == pytest.approx([1.0, 1.0], abs=1e-6)
    assert local_ssim(clean, edited, [boxes]).item() == values[struck].item()


def test_a_change_right_outside_an_eroded_box_does_not_touch_it_and_inside_it_does() -> None:
    clean = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(7))
    box = (20, 18, 40, 34)
    beside, within = clean.clone(), clean.clone()
    beside[:, :, :, :20] = beside[:, :, :, 40:] = beside[:, :, :18] = beside[:, :, 34:] = 0.0
    within[:, :, 20 - 2 : 34, 20:21] = 1 - within[:, :, 18:34, 20:21]
    assert local_ssim(clean, beside, [[box]]).item() == pytest.approx(1.0, abs=1e-6)
    assert local_ssim(clean, within, [[box]]).item() < 1 - 1e-5


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 40, 60), (15, 25, 35, 55)),
        ((0, 0, 11, 12), (5, 5, 6, 7)),
        ((0, 0, 10, 9), (4, 4, 6, 5)),
        ((3, 3, 4, 5), (3, 3, 4, 5)),
        ((0, 0, 30, 4), (5, 1, 25, 3)),
    ],
)
def test_erosion_takes_the_radius_where_the_box_allows(box: Box, expected: Box) -> None:
    assert RADIUS == 5
    assert eroded(box) == expected


def test_a_picture_without_boxes_is_intact_and_rows_do_not_mix() -> None:
    clean, edited = pictures(4, 32, 32, seed=2)
    boxes: list[list[Box]] = [[], [(4, 4, 28, 28)], [], [(0, 0, 9, 9), (12, 12, 30, 30)]]
    together = local_ssim(clean, edited, boxes)
    assert together[[0, 2]].tolist() == [1.0, 1.0]
    for i in (1, 3):
        alone = local_ssim(clean[i : i + 1], edited[i : i + 1], boxes[i : i + 1])
        assert together[i].item() == pytest.approx(alone.item(), abs=1e-7)
    assert local_ssim(clean, edited, [[]] * 4).tolist() == [1.0] * 4


def test_bytes_are_read_as_255_levels() -> None:
    clean, edited = ((images * 255).round().to(torch.uint8) for images in pictures(3, 40, 40, seed=5))
    boxes: list[list[Box]] = [[(3, 5, 30, 37)]] * 3
    assert torch.equal(local_ssim(clean, edited, boxes), local_ssim(clean / 255, edited / 255, boxes))


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (-1, 0, 4, 4), (0, 0, 33, 8), (0, 0, 8, 33)])
def test_bad_boxes_are_errors_that_name_picture_and_box(box: Box) -> None:
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(SparringError, match="picture 1") as raised:
        local_ssim(images, images, [[], [box]])
    assert str(list(box)) in str(raised.value)


def test_shapes_that_do_not_belong_together_are_errors() -> None:
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(DataError, match="one list"):
        local_ssim(images, images, [[]])
    with pytest.raises(DataError, match="clean pictures are"):
        local_ssim(images, images[:, :, :30], [[], []])
