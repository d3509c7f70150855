from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.data import images
from sparring.data.images import ImageError, image_sha256, load_image


def gradient(width: int = 12, height: int = 8) -> Image.Image:
    pixels = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    return Image.fromarray(pixels)


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    picture.putpixel((1, 2), (0, 0, 255, 255))
    picture.save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.mode == "RGB"
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((1, 2)) == (0, 0, 255)


def test_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.putpixel((3, 3), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    loaded = load_image(tmp_path / "a.png")
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((3, 3)) == (200, 0, 0)


def test_exif_orientation_is_applied_once(tmp_path: Path) -> None:
    picture = gradient(12, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    loaded = load_image(tmp_path / "a.png")
    assert loaded.size == (8, 12)
    assert loaded.getpixel((7, 0)) == picture.getpixel((0, 0))
    loaded.save(tmp_path / "b.png")
    assert load_image(tmp_path / "b.png").size == (8, 12)


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_hash_is_of_the_pixels(tmp_path: Path) -> None:
    picture = gradient()
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.bmp")
    picture.save(tmp_path / "c.webp", lossless=True)
    hashes = {image_sha256(load_image(tmp_path / name)) for name in ("a.png", "b.bmp", "c.webp")}
    assert len(hashes) == 1
    other = picture.copy()
    other.putpixel((0, 0), (1, 1, 1))
    assert image_sha256(other) not in hashes
    # Same bytes in another shape are another picture.
    assert image_sha256(Image.new("RGB", (2, 3))) != image_sha256(Image.new("RGB", (3, 2)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert caught.value.reason in ("image broken", "not an image")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    gradient(64, 64).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 30] ^= 4
    path.write_bytes(data)
    with pytest.raises(ImageError, match="truncated or damaged"):
        load_image(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"hello", "not an image"),
        ("a.png", b"", "not an image"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / name)
    assert caught.value.reason == reason


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError) as caught:
            load_image(path)
        assert caught.value.reason == "image missing"


def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")  # 10 kB that would become 240 MB
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / "bomb.png")
    assert caught.value.reason == "image too large"


def test_limit_counts_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 96)
    gradient(12, 8).save(tmp_path / "a.png")
    gradient(13, 8).save(tmp_path / "b.png")
    assert load_image(tmp_path / "a.png").size == (12, 8)
    with pytest.raises(ImageError, match="13 x 8"):
        load_image(tmp_path / "b.png")
