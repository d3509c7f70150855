import io
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, features

from sparring.data import images
from sparring.data.errors import DataError
from sparring.data.images import ImageError, image_sha256, load_image, upright_size
from sparring.data.questions import read_questions


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


# ---- kinds of pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((16, 24, 3), dtype=np.uint8)
    upright[:8, :8] = (250, 10, 10)  # a red corner at the top left, a blue one at the top right
    upright[:8, 16:] = (10, 10, 250)
    # What a camera held that way writes: the inverse of what the orientation asks for (EXIF 2.3, table 6).
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    lossless = (
        {"lossless": True}
        if suffix == "webp"
        else {"quality": 100, "subsampling": 0}
        if suffix == "jpg"
        else {}
    )
    Image.fromarray(np.ascontiguousarray(turned)).save(path, exif=exif, **lossless)
    loaded = load_image(path)
    assert loaded.size == (24, 16)
    assert np.abs(np.asarray(loaded).astype(int) - upright).mean() < 4


def test_boxes_are_those_of_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient(40, 20).save(tmp_path / "a.jpg", exif=exif)  # 40 x 20 in the file, shown as 20 x 40
    record = {"id": "a", "image": "a.jpg", "question": "Where?", "options": ["left", "right"], "answer": "A"}

    def read(box: list[int]) -> tuple[int, int, int, int]:
        (tmp_path / "q.jsonl").write_text(json.dumps(record | {"targets": [{"name": "cup", "box": box}]}))
        return read_questions(tmp_path / "q.jsonl").records[0].targets[0].box

    assert read([2, 25, 18, 40]) == (2, 25, 18, 40)
    with pytest.raises(DataError, match="20 x 40 pixels"):
        read([25, 2, 40, 18])


def test_a_damaged_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    gradient(12, 8).save(tmp_path / "a.jpg", exif=b"Exif\0\0no tags at all")
    assert load_image(tmp_path / "a.jpg").size == (12, 8)


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(np.asarray(load_image(tmp_path / "a.png")) - expected).max() <= 1
    grey = np.stack([pixels[..., 0], pixels[..., 3]], axis=-1)
    Image.fromarray(grey).save(tmp_path / "b.png")
    loaded = np.asarray(load_image(tmp_path / "b.png"))
    assert np.abs(loaded - (grey[..., :1] * alpha + 255 * (1 - alpha))).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_kinds_of_pixels_are_shown_as_pillow_shows_them(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(
        np.kron(
            np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)
        )
    )
    converted = picture.convert(mode)
    converted.save(tmp_path / "a.tiff")
    loaded = load_image(tmp_path / "a.tiff")
    assert loaded.mode == "RGB"
    assert np.array_equal(np.asarray(loaded), np.asarray(converted.convert("RGB")))


def test_sixteen_bit_colours_keep_their_upper_bits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tiff", pixels, photometric="rgb")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.tiff")), pixels >> 8)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff", "mpo"])
def test_of_an_animation_the_first_frame_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    r, g, b = load_image(tmp_path / f"a.{suffix}").getpixel((3, 3))  # type: ignore[misc]
    assert r > 240
    assert max(g, b) < 12


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
def test_the_content_decides_not_the_name(tmp_path: Path, suffix: str) -> None:
    gradient(12, 8).save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.exe")
    assert load_image(tmp_path / "a.exe").size == (12, 8)


# ---- colour profiles


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def icc(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2 with these tags, by the layout of ICC.1:2001-04."""
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += padded
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = (
        struct.pack(">I", offset + len(body))
        + b"\0" * 4
        + struct.pack(">I", 0x02400000)
        + kind
        + space
        + connection
    )
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + fixed(0.9642) + fixed(1.0) + fixed(0.8249) + b"\0" * 48
    assert len(head) == 128
    return head + struct.pack(">I", len(tags)) + table + body


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))


# Adobe RGB (1998): columns are the primaries in XYZ relative to D50 (its specification, annex); sRGB likewise
# (IEC 61966-2-1, Bradford).
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB_D50 = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)


def adobe_rgb() -> bytes:
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    for name, column in zip((b"r", b"g", b"b"), ADOBE.T, strict=True):
        tags |= {name + b"XYZ": xyz(column), name + b"TRC": curve(563 / 256)}
    return icc(b"RGB ", tags)


def srgb_of(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB levels of linear light in [0, 1] (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_a_wide_gamut_is_converted_to_srgb(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=adobe_rgb())
    expected = srgb_of(((pixels / 255) ** (563 / 256)) @ ADOBE.T @ np.linalg.inv(SRGB_D50).T)
    loaded = np.asarray(load_image(tmp_path / "a.png"))
    assert np.abs(loaded - expected).max() <= 2
    assert np.abs(loaded.astype(int) - pixels).max() > 20


def test_greys_have_profiles_too_sixteen_bits_as_well(tmp_path: Path) -> None:
    profile = icc(b"GRAY", {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"kTRC": curve(1.0)})
    levels = np.arange(256, dtype=np.uint8)[None]
    expected = srgb_of(levels / 255)[..., None]
    Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=profile)
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "b.png", icc_profile=profile)
    for name in ("a.png", "b.png"):
        assert np.abs(np.asarray(load_image(tmp_path / name)) - expected).max() <= 1


def test_ink_goes_through_its_own_table(tmp_path: Path) -> None:
    """A press whose cyan is as red as can be: without its profile, no reader could know."""
    # corners of the table, by C, M, Y, K: L* in 255ths, a* and b* from 128
    lab = np.full((2, 2, 2, 2, 3), 128.0)
    lab[..., 0] = 255
    lab[1, ..., 0], lab[1, ..., 1], lab[1, ..., 2] = 136, 208, 195  # Lab 53, 80, 67: sRGB's red
    lab[..., 1, :] = 0, 128, 128  # and black ink is black
    identity = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + b"".join(fixed(v) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table += identity * 4 + lab.astype(np.uint8).tobytes() + identity * 3
    profile = icc(b"CMYK", {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"A2B0": table}, b"Lab ")
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.jpg", icc_profile=profile, quality=100)
    r, g, b = load_image(tmp_path / "a.jpg").getpixel((4, 4))  # type: ignore[misc]
    assert r > 240
    assert max(g, b) < 25
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "b.jpg", quality=100)
    assert load_image(tmp_path / "b.jpg").getpixel((4, 4)) == pytest.approx((0, 255, 255), abs=2)


def test_alpha_is_laid_on_white_after_the_colours_are_converted(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[..., :3], pixels[..., 3] = (30, 200, 90), 128
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=adobe_rgb())
    opaque = srgb_of((np.array([30, 200, 90]) / 255) ** (563 / 256) @ ADOBE.T @ np.linalg.inv(SRGB_D50).T)
    expected = opaque * 128 / 255 + 255 * 127 / 255
    assert np.abs(np.asarray(load_image(tmp_path / "a.png"))[0, 0] - expected).max() <= 2


@pytest.mark.parametrize("kind", ["sRGB", "damaged", "of another kind of pixels"])
def test_profiles_that_change_no_pixel(tmp_path: Path, kind: str) -> None:
    profiles = {
        "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "damaged": adobe_rgb()[:200],
        "of another kind of pixels": icc(b"GRAY", {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"kTRC": curve(1.0)}),
    }
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png", icc_profile=profiles[kind])
    picture.save(tmp_path / "b.png")
    assert (
        image_sha256(load_image(tmp_path / "a.png"))
        == image_sha256(load_image(tmp_path / "b.png"))
        == image_sha256(picture)
    )
    assert "icc_profile" not in load_image(tmp_path / "a.png").info


def test_a_profile_that_swells_is_refused(tmp_path: Path) -> None:
    """A compressed chunk of a few kilobytes that would become megabytes."""
    picture = io.BytesIO()
    gradient(12, 8).save(picture, "PNG", icc_profile=b"\0" * 50_000_000)
    (tmp_path / "a.png").write_bytes(picture.getvalue())
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / "a.png")
    assert caught.value.reason == "image broken"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("size", [2**21, 2**25])
@pytest.mark.parametrize("after", [False, True])
def test_long_texts_in_a_png_do_not_cost_the_picture(
    tmp_path: Path, kind: bytes, size: int, after: bool
) -> None:
    gradient().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    plain = b"x" * size
    text = {
        b"zTXt": b"note\0\0" + zlib.compress(plain),
        b"iTXt": b"note\0\1\0\0\0" + zlib.compress(plain),
        b"tEXt": b"note\0" + plain,
    }[kind]
    place = data.index(b"IEND" if after else b"IDAT") - 4
    (tmp_path / "b.png").write_bytes(data[:place] + chunk(kind, text) + data[place:])
    assert image_sha256(load_image(tmp_path / "b.png")) == image_sha256(gradient())


def test_a_damaged_picture_with_long_texts_is_still_damaged(tmp_path: Path) -> None:
    gradient(64, 64).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[data.index(b"IDAT") + 30] ^= 4
    place = data.index(b"IDAT") - 4
    long = chunk(b"zTXt", b"note\0\0" + zlib.compress(b"x" * 2**25))
    (tmp_path / "b.png").write_bytes(bytes(data[:place]) + long + bytes(data[place:]))
    with pytest.raises(ImageError, match="truncated or damaged"):
        load_image(tmp_path / "b.png")


def test_a_profile_of_megabytes_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    profile = adobe_rgb()
    long = (
        struct.pack(">I", len(profile) + 3_000_000) + profile[4:] + np.random.default_rng(0).bytes(3_000_000)
    )
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=long)
    Image.fromarray(pixels).save(tmp_path / "b.png", icc_profile=profile)
    assert image_sha256(load_image(tmp_path / "a.png")) == image_sha256(load_image(tmp_path / "b.png"))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_grey_levels_of_a_tiff_are_of_the_smallest_range_that_holds_them(tmp_path: Path, kind: str) -> None:
    levels = np.arange(256).reshape(16, 16)
    tifffile.imwrite(tmp_path / "a.tiff", levels.astype(kind))
    if kind == "float64":  # Pillow does not read it
        with pytest.raises(ImageError):
            load_image(tmp_path / "a.tiff")
        return
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.tiff"))[..., 0], levels)


def test_deep_grey_levels_are_scaled(tmp_path: Path) -> None:
    levels = np.arange(256).reshape(16, 16)
    made = {
        "uint16": levels * 257,
        "uint32": levels * 257,
        "int32": levels * 257,
        "uint32 full": levels * 16843009,
        "float32": levels / 255,
        "float32 large": levels * 257.0,
    }
    for name, values in made.items():
        tifffile.imwrite(tmp_path / "a.tiff", values.astype(name.split()[0]))
        assert np.abs(np.asarray(load_image(tmp_path / "a.tiff"))[..., 0].astype(int) - levels).max() <= 1, (
            name
        )
    tifffile.imwrite(tmp_path / "a.tiff", np.array([[-5, 0, 255]], dtype=np.int32))
    assert np.asarray(load_image(tmp_path / "a.tiff"))[0, :, 0].tolist() == [0, 0, 255]
    tifffile.imwrite(tmp_path / "a.tiff", np.array([[np.nan, 0, 1]], dtype=np.float32))
    with pytest.raises(ImageError, match="no numbers"):
        load_image(tmp_path / "a.tiff")


def test_a_dark_deep_png_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (0, 0, 0)


def test_the_clear_level_of_greys_and_colours_is_white(tmp_path: Path) -> None:
    levels = np.array([[0, 1000, 60000]])
    Image.fromarray(levels.astype(np.uint16)).save(tmp_path / "deep.png", transparency=1000)
    assert np.asarray(load_image(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 255, 60000 >> 8]
    Image.fromarray(np.array([[0, 5, 9]], dtype=np.uint8)).save(tmp_path / "grey.png", transparency=5)
    assert np.asarray(load_image(tmp_path / "grey.png"))[0, :, 0].tolist() == [0, 255, 9]
    # 16-bit colours: Pillow cannot write them.
    rows = b"".join(
        b"\0" + struct.pack(">9H", *(1000, 2000, 3000), *(40000, 0, 0), *(1, 2, 3)) for _ in range(2)
    )
    head = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    parts = [
        (b"IHDR", head),
        (b"tRNS", struct.pack(">3H", 1000, 2000, 3000)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    (tmp_path / "colour.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)
    )
    shown = np.asarray(load_image(tmp_path / "colour.png"))[0]
    assert shown.tolist() == [[255, 255, 255], [156, 0, 0], [0, 0, 0]]


def test_the_size_is_told_from_the_head_of_the_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation, size in ((1, (12, 8)), (3, (12, 8)), (6, (8, 12)), (8, (8, 12))):
        exif[0x0112] = orientation
        for suffix in ("jpg", "png", "webp", "tiff"):
            gradient(12, 8).save(tmp_path / f"a.{suffix}", exif=exif)
            assert upright_size(tmp_path / f"a.{suffix}") == size == load_image(tmp_path / f"a.{suffix}").size
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert upright_size(tmp_path / "b.png") is None
    assert upright_size(tmp_path / "none.png") is None


def test_pillow_was_built_with_what_this_needs() -> None:
    assert features.check("littlecms2")
    assert features.check("webp")
