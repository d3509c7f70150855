"""What hangs in the gallery: every kind, a bounded number, bounded bytes."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparring.report.gallery import (
    LARGEST,
    change_in_words,
    choose,
    data_uri,
    difference,
    hang,
    in_the_light_of,
)
from sparring.report.run import Exhibit, Reply


def exhibit(number: int, outcome: str, attacker: str = "round1", picture: Path = Path("none.png")) -> Exhibit:
    base = None if outcome == "rejected" else Reply("base", "text", "A", outcome == "held")
    return Exhibit(
        *(f"q{number}", "Where?", ("left", "right"), "A", None, (), picture, picture, attacker),
        *(0.9, outcome != "rejected", False, outcome != "rejected", None, True, base, None),
    )


def counts(chosen: list[Exhibit]) -> dict[str, int]:
    return {kind: sum(e.outcome == kind for e in chosen) for kind in ("fooled", "held", "rejected")}


def test_half_fooled_a_quarter_held_a_quarter_rejected() -> None:
    everything = [exhibit(i, kind) for kind in ("held", "rejected", "fooled") for i in range(50)]
    chosen = choose(everything, most=20)
    assert counts(chosen) == {"fooled": 10, "held": 5, "rejected": 5}
    assert [e.outcome for e in chosen] == sorted(
        (e.outcome for e in chosen), key=["fooled", "held", "rejected"].index
    )


def test_what_one_kind_lacks_the_others_fill() -> None:
    everything = [exhibit(i, "held") for i in range(50)] + [exhibit(i, "rejected") for i in range(2)]
    assert counts(choose(everything, most=20)) == {"fooled": 0, "held": 18, "rejected": 2}
    assert len(choose(everything[:3], most=20)) == 3


def test_attackers_take_turns() -> None:
    everything = [exhibit(i, "fooled", "bootstrap") for i in range(50)] + [
        exhibit(i, "fooled", "round2") for i in range(3)
    ]
    chosen = choose(everything, most=8)
    assert [e.attacker for e in chosen[:4]] == ["round2", "bootstrap", "round2", "bootstrap"]
    assert sum(e.attacker == "round2" for e in chosen) == 3


def test_items_that_were_wrong_when_clean_are_no_attacks() -> None:
    assert (
        choose(
            [
                replace(exhibit(0, "fooled"), clean_right=False),
                replace(exhibit(1, "fooled"), clean_right=None),
            ]
        )
        == []
    )


def test_the_order_does_not_depend_on_the_order_of_the_ledger() -> None:
    everything = [exhibit(i, "fooled") for i in range(30)]
    assert choose(everything, most=10) == choose(everything[::-1], most=10)


def test_the_bytes_are_bounded_and_every_kind_is_there(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    one = len(data_uri(Image.open(path).convert("RGB")))
    chosen = [exhibit(i, kind, picture=path) for kind in ("fooled", "held", "rejected") for i in range(10)]
    hung, notes = hang(chosen, most_bytes=10 * one)
    assert {item.exhibit.outcome for item in hung} == {"fooled", "held", "rejected"}
    assert sum(len(item.before + item.after + item.gap) for item in hung) <= 10 * one
    assert notes == [f"{30 - len(hung)} more are left out to keep this file small."]


@pytest.mark.parametrize(("side", "kind"), [(64, "png"), (128, "png"), (600, "webp")])
def test_small_pictures_stay_exact_and_large_ones_shrink(side: int, kind: str) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side // 2, 3), dtype=np.uint8))
    uri = data_uri(image)
    assert uri.startswith(f"data:image/{kind};base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    if kind == "png":
        assert np.array_equal(np.asarray(shown), np.asarray(image))
    else:
        assert shown.size == (LARGEST // 2, LARGEST)
    assert image.size == (side // 2, side)


def test_the_difference_is_dark_where_nothing_changed_and_amplified_elsewhere() -> None:
    before = np.full((4, 6, 3), 100, dtype=np.uint8)
    after = before.copy()
    after[1, 2] = (100, 116, 100)  # a quarter of the scale after amplification
    after[3, 4] = (20, 100, 100)  # beyond its end
    shown = np.asarray(difference(Image.fromarray(before), Image.fromarray(after))).astype(int).sum(-1)
    assert shown[0, 0] < shown[1, 2] < shown[3, 4]
    changed = {(int(y), int(x)) for y, x in np.argwhere(shown != shown[0, 0])}
    assert changed == {(1, 2), (3, 4)}
    assert shown[3, 4] > 600


def scene(seed: int = 0) -> np.ndarray:
    return (
        np.random.default_rng(seed).integers(40, 200, (12, 12, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    )


@pytest.mark.parametrize(
    ("gain", "offset"), [(0.6, 0), (1.0, -40), (1.2, 10), (np.array([0.9, 0.7, 0.6]), np.array([5, 0, -10]))]
)
def test_a_change_of_light_is_taken_out_and_an_object_stays(gain: float, offset: float) -> None:
    before = scene()
    after = np.clip(before * gain + offset, 0, 255)
    after[60:84, 8:36] = (250, 30, 30)
    lit = in_the_light_of(Image.fromarray(before), Image.fromarray(after.astype(np.uint8)))
    left = np.abs(np.asarray(lit, dtype=float) - after).max(-1)
    object_there = np.zeros((96, 96), dtype=bool)
    object_there[60:84, 8:36] = True
    assert np.quantile(left[~object_there], 0.95) <= 2
    assert np.median(left[object_there]) > 60
    plain = (
        np.asarray(difference(Image.fromarray(before), Image.fromarray(after.astype(np.uint8))))
        .astype(int)
        .sum(-1)
    )
    unlit = np.asarray(difference(lit, Image.fromarray(after.astype(np.uint8)))).astype(int).sum(-1)
    assert np.median(unlit[~object_there]) < np.median(plain[~object_there])
    words = change_in_words(Image.fromarray(before), Image.fromarray(after.astype(np.uint8)))
    assert "% of the picture changed beyond that, around the lower left" in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (0, "no change of light, and nothing else changed"),
        (-30, "30 grey levels darker on the whole, and nothing else changed"),
        (12, "12 grey levels lighter on the whole, and nothing else changed"),
    ],
)
def test_an_edit_is_told_in_words(change: int, words: str) -> None:
    before = scene()
    after = (before.astype(int) + change).astype(np.uint8)
    assert change_in_words(Image.fromarray(before), Image.fromarray(after)) == words


def test_pictures_of_one_colour_have_a_light_too() -> None:
    flat = Image.new("RGB", (9, 9), (50, 50, 50))
    assert in_the_light_of(flat, Image.new("RGB", (9, 9), (90, 80, 70))).getpixel((0, 0)) == (90, 80, 70)
    assert in_the_light_of(flat, flat).tobytes() == flat.tobytes()
