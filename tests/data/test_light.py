"""A picture put back into another one's light."""

from __future__ import annotations

import numpy as np

from sparring.data.pixels import same_light

GREY = np.full((40, 48, 3), 120, dtype=np.float32)


def test_gains_are_undone_and_what_is_local_stays() -> None:
    dim = GREY * np.array([0.7, 0.8, 0.75], dtype=np.float32)
    assert np.allclose(same_light(GREY, dim), GREY)
    dim[5:15, 5:15] = (200, 10, 10)
    lit = same_light(GREY, dim)
    assert np.allclose(lit[20:], GREY[20:])
    assert lit[10, 10, 0] > 250
    assert lit.dtype == GREY.dtype


def test_within_bounds_light_is_undone_and_beyond_them_it_is_a_change() -> None:
    bounds = {"gain": 1.8, "tint": 1.25}
    assert np.allclose(same_light(GREY, GREY * 0.7, **bounds), GREY)
    assert same_light(GREY, GREY * 0.2, **bounds).mean() < 60
    assert (
        np.ptp(same_light(GREY, GREY * np.array([0.5, 1.0, 1.5], dtype=np.float32), **bounds).mean((0, 1)))
        > 30
    )


def test_where_light_left_no_room_the_clean_pixel_stands() -> None:
    bright = GREY.copy()
    bright[:4] = 240
    assert np.allclose(same_light(bright, np.minimum(bright * 1.4, 255)), bright)
