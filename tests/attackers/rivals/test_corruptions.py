"""The fifteen corruptions: sizes, seeds, order of severities; and each against what it is meant to be."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import color, data
from skimage.metrics import structural_similarity

from sparring.attackers.rivals.corruptions import (
    CORRUPTIONS,
    Corruption,
    Jpeg,
    brightness,
    contrast,
    convolve,
    corrupt,
    impulse_noise,
    plasma,
    shot_noise,
    smear,
    to_array,
)
from sparring.data.errors import RecipeError
from sparring.data.records import VisualQuestion

PHOTOS = [Image.fromarray(photo[:300, :300]) for photo in (data.astronaut(), data.coffee(), data.chelsea())]


def about(name: str) -> VisualQuestion:
    return VisualQuestion(name, Path("q.png"), "Where?", ("left", "right"), "A")


def ssim(a: Image.Image, b: Image.Image) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(np.asarray(a), np.asarray(b), channel_axis=-1, **options))


@pytest.mark.parametrize("size", [(64, 64), pytest.param((224, 180), marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_more_severe_the_less_similar(kind: str, size: tuple[int, int]) -> None:
    pictures = [photo.resize(size, Image.Resampling.LANCZOS) for photo in PHOTOS]
    similar = [
        np.mean(
            [
                ssim(p, corrupt(p, kind, severity, np.random.default_rng([i, j])))
                for i, p in enumerate(pictures)
                for j in range(2)
            ]
        )
        for severity in range(1, 6)
    ]
    assert all(before > after for before, after in pairwise(similar)), similar
    assert similar[0] < 0.99


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_sizes_stay_and_the_seed_and_the_question_decide(kind: str) -> None:
    image = PHOTOS[0].resize((49, 37))
    rival = Corruption(kind, 3)
    questions = [about("a"), about("b")]
    first, second = rival.edit(questions, [image, image], seed=4)
    assert first.image.size == second.image.size == image.size
    assert (first.question_id, first.attacker) == ("a", f"corruption:{kind}:3")
    (alone,) = rival.edit(questions[1:], [image], seed=4)
    assert alone.image.tobytes() == second.image.tobytes()
    if kind not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"):
        (other,) = rival.edit(questions[1:], [image], seed=5)
        assert len({edit.image.tobytes() for edit in (first, second, other)}) == 3


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_tiny_and_narrow_pictures_are_corrupted_too(kind: str) -> None:
    for size in ((1, 1), (20, 200)):
        assert corrupt(Image.new("RGB", size, (90, 120, 30)), kind, 5, np.random.default_rng(0)).size == size


def test_brightness_is_v_of_hsv_and_contrast_keeps_the_mean() -> None:
    picture = to_array(PHOTOS[1].resize((60, 50)))
    picture[0, 0] = 0
    hsv = color.rgb2hsv(picture)
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.3, 0, 1)
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(brightness(picture, 3, rng), color.hsv2rgb(hsv), atol=1e-9)
    flat = contrast(picture, 4, rng)
    np.testing.assert_allclose(flat.mean((0, 1)), picture.mean((0, 1)))
    np.testing.assert_allclose(flat.std((0, 1)), 0.1 * picture.std((0, 1)))


def test_noises_have_their_published_moments() -> None:
    grey = np.full((200, 200, 3), 0.4)
    salted = impulse_noise(grey, 5, np.random.default_rng(0))
    assert (salted == 1).mean() == pytest.approx(0.135, abs=0.005)
    assert (salted == 0).mean() == pytest.approx(0.135, abs=0.005)
    shot = shot_noise(grey, 2, np.random.default_rng(0))
    assert shot.mean() == pytest.approx(0.4, abs=0.003)
    assert shot.var() == pytest.approx(0.4 / 25, rel=0.03)
    noisy = to_array(
        corrupt(Image.new("RGB", (200, 200), (128, 128, 128)), "gaussian_noise", 1, np.random.default_rng(0))
    )
    assert noisy.std() == pytest.approx(0.08, rel=0.02)


def test_blurs_keep_the_light_and_a_smear_has_its_direction() -> None:
    point = np.zeros((61, 61, 3))
    point[30, 30] = 1
    trail = smear(point, 8, 6, 0)[..., 0]
    assert trail.sum() == pytest.approx(1)
    assert trail[30].sum() == pytest.approx(1)
    assert trail[30, 30] > trail[30, 36] > trail[30, 44] > 1e-4
    assert abs(trail[30, :30]).max() < 1e-9
    assert smear(point, 8, 6, np.pi / 2)[:, 30, 0].sum() == pytest.approx(1)
    flat = np.full((20, 30, 3), 0.3)
    np.testing.assert_allclose(convolve(flat, np.ones((5, 9))), flat)


def test_plasma_is_rougher_where_its_steps_decay_slowly() -> None:
    rough, smooth = (plasma(64, 64, decay, np.random.default_rng(0)) for decay in (1.4, 2.0))
    assert rough.min() == smooth.min() == 0
    assert rough.max() == smooth.max() == 1
    roughness, less = (np.abs(np.diff(cloud, n=2, axis=0)).mean() for cloud in (rough, smooth))
    assert roughness > 2 * less


def test_jpeg_is_pillows_and_values_out_of_range_are_errors(tmp_path: Path) -> None:
    PHOTOS[2].save(tmp_path / "p.jpg", quality=30)
    (edit,) = Jpeg(30).edit([about("a")], [PHOTOS[2]], seed=0)
    with Image.open(tmp_path / "p.jpg") as expected:
        assert edit.image.tobytes() == expected.tobytes()
    for wrong in (0, 101):
        with pytest.raises(RecipeError, match="quality"):
            Jpeg(wrong)
    with pytest.raises(RecipeError, match="severities 1 to 5"):
        Corruption("fog", 6)
