"""Axes of line charts: scales, ticks, smoothed courses, labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from sparring.data.words import plural

Style = Literal["accent", "ink", "soft", "run0", "run1", "run2", "run3", "run4", "run5"]
"""The class of a line: by its weight on a page, or by the run that it belongs to."""


Point = tuple[float, float]


SMOOTHED_FROM = 10
"""Curves of at least so many points get a running mean over `WINDOW` of them; the points themselves stay,
faint.
"""


WINDOW = 5


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name and (x, y) points; y may be nan, which leaves a gap."""

    name: str
    points: tuple[Point, ...]
    style: Style = "accent"

    @property
    def finite(self) -> list[float]:
        return [y for _, y in self.points if math.isfinite(y)]


@dataclass(frozen=True, slots=True)
class Whisker:
    """A rate at a place of a categorical axis, with its interval."""

    place: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Frame:
    """The drawing area of a chart and its linear axes."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    parts: list[Markup] = field(default_factory=list)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / ((high - low) or 1) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return (
            self.height
            - self.bottom
            - (value - low) / ((high - low) or 1) * (self.height - self.top - self.bottom)
        )

    def add(self, template: str, *values: object) -> None:
        """Append markup; `{}` places are filled with escaped values."""
        self.parts.append(
            Markup(template).format(*(f"{v:.1f}" if isinstance(v, float) else v for v in values))
        )

    def line(self, points: Sequence[Point], kind: str) -> None:
        """A polyline with gaps where y is not finite; a point alone becomes a dot."""
        path, run = "", 0
        for x, y in points:
            if not math.isfinite(y):
                run = 0
                continue
            path += f"{'L' if run else 'M'}{self.x(x):.1f} {self.y(y):.1f}"
            run += 1
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        if len(finite) == 1:
            self.add(
                '<circle class="dot {}" cx="{}" cy="{}" r="2.5"/>',
                kind,
                self.x(finite[0][0]),
                self.y(finite[0][1]),
            )
        elif path:
            self.add('<path class="line {}" d="{}"/>', kind, path)

    def svg(self, label: str) -> Markup:
        opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart">').format(
            self.width, self.height, label
        )
        return opening + Markup("").join(self.parts) + Markup("</svg>")


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round values in [low, high], about as many as wanted."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / wanted
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def span_of(
    series: Sequence[Series], *, floor: float | None = None, ceiling: float | None = None
) -> tuple[float, float]:
    """A range of y that holds all the series, with a little air, and `floor` and `ceiling` where they are
    given.
    """
    values = [y for one in series for y in one.finite]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return (low - air if floor is None else min(floor, low)), (
        high + air if ceiling is None else max(ceiling, high)
    )


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Running mean of y over the `WINDOW` points around each. A gap stays a gap, and no mean reaches across
    one: it may part two phases.
    """
    result: list[Point] = []
    for finite, run in itertools.groupby(points, key=lambda point: math.isfinite(point[1])):
        own = list(run)
        for i, (x, y) in enumerate(own):
            around = [v for _, v in own[max(0, i - WINDOW // 2) : i + WINDOW // 2 + 1]]
            result.append((x, sum(around) / len(around) if finite else y))
    return result


def number(value: float) -> str:
    """A tick's number, as short as it may be."""
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "\u2212")
    return (
        f"{value:.3f}".rstrip("0").rstrip(".").replace("-", "\u2212")
        if abs(value) < 1000
        else f"{value / 1000:g}k"
    )


def curves(
    series: Sequence[Series],
    *,
    label: str,
    y_range: tuple[float, float],
    x_range: tuple[float, float],
    x_label: str = "update",
    y_label: str,
    breaks: Sequence[float] = (),
) -> Markup:
    """Lines against updates; `breaks` are x at which a new phase begins."""
    named = len(series) > 1
    frame = Frame(320, 190, 40, 62 if named else 10, 22, 34, x_range, y_range)
    _axes(frame, x_label, y_label)
    for place in breaks:
        frame.add(
            '<line class="break" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>',
            frame.x(place),
            frame.top,
            frame.height - frame.bottom,
        )
    for one in series:
        if len(one.points) >= SMOOTHED_FROM:
            frame.line(one.points, f"raw {one.style}")
            frame.line(smoothed(one.points), one.style)
        else:
            frame.line(one.points, one.style)
    if named:
        _labels(
            frame,
            [
                (
                    one.name,
                    (smoothed(one.points) if len(one.points) >= SMOOTHED_FROM else one.points),
                    one.style,
                )
                for one in series
            ],
        )
    return frame.svg(f"{label}. {'. '.join(_course(one) for one in series)}")


def _course(series: Series) -> str:
    """A line in words: where it begins and ends, and between what it moves."""
    values = series.finite
    if not values:
        return f"{series.name}: no values"
    first, last, low, high = (number(value) for value in (values[0], values[-1], min(values), max(values)))
    over = plural(len(values), "update")
    return f"{series.name}: from {first} to {last} over {over}, between {low} and {high}"


def grid(frame: Frame, wanted: int = 4) -> None:
    """A line across and a number on the left for every tick of the upright axis."""
    for value in ticks(*frame.y_range, wanted=wanted):
        y = frame.y(value)
        frame.add(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>',
            frame.left,
            frame.width - frame.right,
            y,
            y,
        )
        frame.add(
            '<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>',
            frame.left - 6,
            y + 3.5,
            number(value),
        )


def _axes(frame: Frame, x_label: str, y_label: str) -> None:
    bottom = frame.height - frame.bottom
    grid(frame)
    low, high = frame.x_range
    for value in [v for v in ticks(low, high) if v == int(v)]:
        frame.add(
            '<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>',
            frame.x(value),
            bottom + 14,
            number(value),
        )
    frame.add(
        '<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>',
        frame.left,
        frame.width - frame.right,
        bottom,
        bottom,
    )
    frame.add(
        '<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>',
        (frame.left + frame.width - frame.right) / 2,
        frame.height - 4,
        x_label,
    )
    frame.add('<text class="name" x="0" y="10">{}</text>', y_label)


def _labels(frame: Frame, lines: Sequence[tuple[str, Sequence[Point], str]]) -> None:
    """Names at the right ends of lines, pushed apart where they would overlap."""
    ends = []
    for name, points, style in lines:
        finite = [y for _, y in points if math.isfinite(y)]
        if finite:
            ends.append((frame.y(finite[-1]), name, style))
    placed: list[float] = []
    for y, _, _ in sorted(ends):
        placed.append(max(y, placed[-1] + 12) if placed else y)
    overflow = max(0.0, placed[-1] - (frame.height - frame.bottom)) if placed else 0.0
    for y, (_, name, style) in zip(placed, sorted(ends), strict=True):
        frame.add(
            '<text class="end {}" x="{}" y="{}">{}</text>',
            style,
            frame.width - frame.right + 6,
            y - overflow + 3.5,
            name,
        )
