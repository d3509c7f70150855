"""Charts: up is more, right is later, gaps stay gaps, boxes lie where the targets are."""

import math
import re

import numpy as np
import pytest

from sparring.data.records import Target
from sparring.report import numbers
from sparring.report.axes import Series, Whisker, curves, smoothed, span_of, ticks
from sparring.report.charts import boxes, heat_map, interval_bar, progress_chart, shares_chart
from sparring.report.numbers import HEAT, ON_NIGHT, ON_PAPER, color_of, contrast, ink_on, ramp


def line(svg: str, kind: str = "line accent") -> str:
    return re.search(rf'<path class="{kind}" d="([^"]*)"', svg)[1]  # type: ignore[index]


def test_higher_values_are_drawn_higher_and_later_ones_further_right() -> None:
    svg = curves(
        [Series("r", ((1, 0.0), (2, 1.0), (3, 0.5)))], label="l", y_range=(0, 1), x_range=(1, 3), y_label="y"
    )
    places = [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", line(svg))]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x0 < x1 < x2
    assert y1 < y2 < y0
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.11)


def test_a_gap_breaks_the_line() -> None:
    points = ((1, 0.0), (2, 1.0), (3, math.nan), (4, 1.0), (5, 0.0))
    path = line(curves([Series("r", points)], label="l", y_range=(0, 1), x_range=(1, 5), y_label="y"))
    assert re.sub(r"[\d. ]", "", path) == "MLML"


def test_axes_are_named_and_text_is_escaped() -> None:
    svg = curves(
        [Series("<a>", ((1, 0.0),)), Series("b", ((1, 1.0),))],
        label='"<',
        y_range=(0, 1),
        x_range=(1, 5),
        y_label="mean <reward>",
    )
    assert "update</text>" in svg
    assert "mean &lt;reward&gt;" in svg
    assert "&lt;a&gt;" in svg
    assert 'aria-label="&#34;&lt;. &lt;a&gt;: from 0 to 0' in svg


def test_shares_fill_their_bar_in_order_and_an_empty_one_says_so() -> None:
    svg = shares_chart({"Round 1": {"add": 0.25, "replace": 0.75}, "<b>": {}}, label="l")
    bars = re.findall(r'<rect class="kind-(\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', svg)
    assert [kind for kind, *_ in bars] == ["add", "replace"]
    (x0, w0), (x1, w1) = ((float(x), float(width)) for _, x, _, width in bars)
    assert x0 + w0 == pytest.approx(x1, abs=0.11)
    assert w1 == pytest.approx(3 * w0, abs=0.3)
    assert "none</text>" in svg
    assert 'aria-label="l. Round 1: Added 25.0\u202f%, Replaced 75.0\u202f%. &lt;b&gt;: none"' in svg
    assert "&lt;b&gt;" in svg


def test_labels_at_line_ends_do_not_overlap() -> None:
    series = [Series(f"s{i}", ((1, 0.5), (2, 0.0))) for i in range(3)]
    svg = curves(series, label="l", y_range=(0, 1), x_range=(1, 2), y_label="y")
    places = sorted(float(y) for y in re.findall(r'class="end accent" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(places) == 3
    assert min(np.diff(places)) >= 11.9
    assert places[-1] <= 190


def test_smoothing_keeps_the_mean_of_a_line_and_gaps() -> None:
    straight = [(float(i), 2.0 * i) for i in range(12)]
    assert smoothed(straight)[2:-2] == straight[2:-2]
    holed = [(x, math.nan if x == 5 else y) for x, y in straight]
    assert math.isnan(smoothed(holed)[5][1])
    assert smoothed(holed)[4][1] == pytest.approx((4 + 6 + 8) / 3)
    assert smoothed(holed)[6][1] == pytest.approx((12 + 14 + 16) / 3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (40, 100, [40, 60, 80, 100]), (-0.3, 0.3, [-0.2, 0, 0.2]), (2, 2, [2])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_a_range_holds_its_series() -> None:
    low, high = span_of([Series("a", ((0, 1.0), (1, math.nan), (2, 3.0)))])
    assert low < 1 < 3 < high
    assert span_of([Series("a", ((0, 0.2),))], floor=0.0, ceiling=1.0) == (0.0, 1.0)
    low, high = span_of([Series("a", ((0, 32.0), (1, 32.0)))])
    assert low < 32 < high
    assert span_of([]) == (-0.06, 1.06)


def test_the_interval_bar_has_its_value_on_the_right_side_of_zero() -> None:
    def places(value: float, ends: list[float]) -> tuple[float, float]:
        svg = interval_bar({"value": value, "ci95": ends}, (-0.5, 0.5), "l")
        zero = float(re.search(r'class="zero" x1="([\d.]+)"', svg)[1])  # type: ignore[index]
        return float(re.search(r'cx="([\d.]+)"', svg)[1]) - zero, zero  # type: ignore[index]

    assert places(0.25, [0.1, 0.4])[0] == pytest.approx(-places(-0.25, [-0.4, -0.1])[0], abs=0.2)
    assert places(0.25, [0.1, 0.4])[0] > 50
    assert "circle" not in interval_bar({"value": None, "ci95": [None, None]}, (-0.5, 0.5), "l")


def test_the_progress_chart_draws_each_opponent_with_its_intervals() -> None:
    lines = {
        "Clean": [Whisker(0, 0.9, 0.85, 0.95), Whisker(1, 0.9, 0.85, 0.95)],
        "vs. Round 1": [Whisker(0, 0.5, 0.4, 0.6)],
    }
    svg = progress_chart(
        ["Base", "Round 1"],
        lines,
        {"Clean": "ink", "vs. Round 1": "accent"},
        label="l",
        x_label="Defender",
        y_label="accuracy",
    )
    assert len(re.findall('class="whisker', svg)) == 3
    assert "Clean: 90.0 % (85.0 to 95.0)" in svg


def test_boxes_lie_on_their_targets() -> None:
    svg = boxes((Target("cup & <saucer>", (10, 20, 30, 60)),), 64, 80)
    assert 'viewBox="0 0 64 80"' in svg
    assert '<rect x="10" y="20" width="20" height="40"><title>cup &amp; &lt;saucer&gt;</title></rect>' in svg


@pytest.mark.parametrize("stops", [ON_PAPER, ON_NIGHT, HEAT])
def test_a_ramp_goes_evenly_through_its_stops_and_text_on_it_is_legible(stops: tuple[str, ...]) -> None:
    assert [color_of(i / (len(stops) - 1), stops) for i in range(len(stops))] == list(stops)
    assert color_of(-1.0, stops) == stops[0]
    assert color_of(2.0, stops) == stops[-1]
    colors = [color_of(v, stops) for v in np.linspace(0, 1, 101)]
    luminance = [contrast(color, "#000000") for color in colors]
    assert luminance in (sorted(luminance), sorted(luminance, reverse=True))
    assert min(contrast(color, ink_on(color)) for color in colors) >= 4.5
    assert ramp(np.zeros((3, 2)), stops).shape == (3, 2, 3)


def test_oklab_is_oklab() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    # The middle between black and white in OKLab has L = 0.5, which is linear 0.125, which is sRGB 99.
    assert color_of(0.5, ("#000000", "#ffffff")) == "#636363"


def test_a_heat_map_says_what_it_does_not_know() -> None:
    rate = {"value": 0.625, "n": 8, "ci95": [0.3, 0.86]}
    table = heat_map(
        ["base", "Round 1"],
        ["clean", "Round 1"],
        [[rate, None], [{"value": None, "n": 0, "ci95": [0, 1]}, rate]],
        "accuracy",
    )
    assert [[cell.text for cell in row] for row in table.cells] == [["62.5", "not yet"], ["–", "62.5"]]
    assert table.cells[0][0].interval == "30.0 to 86.0"
    assert (table.low, table.high) == (0.6, 0.7)
    assert table.rows == ("base", "Round 1")
    assert "--l:#" in table.cells[0][0].style
    assert table.cells[0][1].style == ""


def test_numbers_as_people_read_them() -> None:
    assert numbers.percent(0.8437) == "84.4\u202f%"
    assert numbers.percent(None) == "–"
    assert [numbers.points(v) for v in (0.2751, -0.025, 0.0, -0.0001, None)] == [
        "+27.5",
        "\u22122.5",
        "\u00b10.0",
        "\u00b10.0",
        "–",
    ]
    assert numbers.points_interval({"value": 0.1, "ci95": [-0.05, 0.25]}) == "\u22125.0 to +25.0"
    assert numbers.points_interval({"value": None, "ci95": [None, None]}) == "–"
    assert numbers.interval({"value": None, "n": 0, "ci95": [0.0, 1.0]}) == "–"
    assert [numbers.duration(s) for s in (48.2, 684.2, 12000, None)] == [
        "48 s",
        "11 min 24 s",
        "3 h 20 min",
        "–",
    ]
    assert numbers.count(15360) == "15\u202f360"
    assert numbers.player("round12") == "Round 12"
    assert numbers.algorithm("flow_grpo") == "Flow-GRPO"
    assert numbers.algorithm("new") == "new"
