"""Scene extension: sizes and places as they were drawn, boxes that move along, and the picture's own pixels
to the bit.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_checkpoints import picture
from sparring.config import ExtendSettings
from sparring.data.images import MAX_PIXELS
from sparring.data.records import Box, Target, VisualQuestion
from sparring.forge.extend import draw_extension, extend
from sparring.forge.painters import Edges


@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    seed=st.integers(0, 10**6),
    share=st.floats(0.01, 0.3),
    growth=st.floats(1.2, 4),
    corner=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_what_is_drawn_is_inside_its_bounds(
    size: tuple[int, int], seed: int, share: float, growth: float, corner: tuple[int, int]
) -> None:
    settings = ExtendSettings(share=(share, min(1.0, 2 * share)), growth=growth)
    box: Box = (corner[0], corner[1], corner[0] + 10, corner[1] + 8)
    plan = draw_extension(size, [box, box], settings, seed)
    if plan is None:
        # It would hardly grow: the core objects cover no more than they are to.
        assert 80 / (size[0] * size[1]) < 2 * share * settings.least * 1.1
        return
    assert plan == draw_extension(size, [box, box], settings, seed)
    for axis in (0, 1):
        assert size[axis] <= plan.size[axis] <= round(size[axis] * growth)
        assert 0 <= plan.offset[axis] <= plan.size[axis] - size[axis]
    assert plan.size[0] * plan.size[1] >= settings.least * size[0] * size[1]
    assert plan.share == pytest.approx(80 / (plan.size[0] * plan.size[1]))
    if all(side < round(own * growth) for side, own in zip(plan.size, size, strict=True)):
        assert share * 0.8 <= plan.share <= 2 * share * 1.25  # sides are whole pixels
    if plan.direction != "both":
        assert plan.size[plan.direction == "horizontal"] == size[plan.direction == "horizontal"]
    x0, y0, x1, y1 = plan.moved(box)
    assert (x1 - x0, y1 - y0) == (10, 8)
    assert 0 <= x0 < x1 <= plan.size[0]
    assert 0 <= y0 < y1 <= plan.size[1]


def test_no_picture_becomes_larger_than_what_is_read() -> None:
    settings = ExtendSettings(share=(0.01, 0.02), growth=9)
    for size in ((4000, 3000), (8192, 8192), (8191, 8190), (9, 700_000)):
        plans = [
            draw_extension(size, [(0, 0, size[0] // 2, size[1] // 2)], settings, seed) for seed in range(20)
        ]
        areas = [plan.size[0] * plan.size[1] for plan in plans if plan is not None]
        assert all(area <= MAX_PIXELS for area in areas)
        if size == (4000, 3000):
            assert max(areas) > 0.99 * MAX_PIXELS


def test_every_direction_is_drawn_and_without_boxes_a_picture_grows_too() -> None:
    settings = ExtendSettings(share=(0.02, 0.05))
    plans = [draw_extension((60, 40), [], settings, seed) for seed in range(30)]
    assert {plan.direction for plan in plans if plan} == {"horizontal", "vertical", "both"}
    assert draw_extension((60, 40), [(0, 0, 6, 6)], ExtendSettings(share=(0.5, 0.6)), 0) is None


def test_the_picture_stays_as_it_is_inside_the_extended_one() -> None:
    images = [picture(50, 40), picture(33, 47, seed=1)]
    box: Box = (5, 6, 30, 30)
    settings = ExtendSettings(share=(0.05, 0.06))
    plans = [draw_extension(image.size, [box], settings, seed) for seed, image in enumerate(images)]
    made = extend(Edges(), images, [plan for plan in plans if plan], settings, [1, 2])
    for image, plan, larger in zip(images, plans, made, strict=True):
        assert plan is not None
        assert larger.size == plan.size
        x, y = plan.offset
        np.testing.assert_array_equal(
            np.asarray(larger)[y : y + image.height, x : x + image.width], np.asarray(image)
        )
        question = plan.question(VisualQuestion("q", Path(), "?", ("a", "b"), "A", (Target("cup", box),)))
        x0, y0, x1, y1 = question.targets[0].box
        np.testing.assert_array_equal(np.asarray(larger)[y0:y1, x0:x1], np.asarray(image)[6:30, 5:30])
