"""Charts as inline SVG, coloured by the page's style sheet. All text is escaped here; the results are safe
markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from sparring.data.records import Target
from sparring.report.axes import Frame, Style, Whisker, _labels, grid, number, ticks
from sparring.report.numbers import ON_NIGHT, ON_PAPER, color_of, ink_on, interval, percent
from sparring.report.numbers import kind as kind_of_edit


def progress_chart(
    names: Sequence[str],
    lines: Mapping[str, Sequence[Whisker]],
    styles: Mapping[str, Style],
    *,
    label: str,
    x_label: str,
    y_label: str,
) -> Markup:
    """Accuracy against the Defenders in order, one line an opponent, each value with its interval."""
    lows = [w.low for whiskers in lines.values() for w in whiskers]
    floor = max(0.0, math.floor(min(lows, default=0.0) * 10) / 10)
    frame = Frame(400, 270, 34, 84, 22, 44, (-0.25, max(1, len(names) - 1) + 0.25), (100 * floor, 100.0))
    bottom = frame.height - frame.bottom
    grid(frame, wanted=5)
    frame.add(
        '<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>',
        frame.left,
        frame.width - frame.right,
        bottom,
        bottom,
    )
    for place, name in enumerate(names):
        frame.add(
            '<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>',
            frame.x(place),
            bottom + 16,
            name,
        )
    frame.add(
        '<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>',
        (frame.left + frame.width - frame.right) / 2,
        frame.height - 6,
        x_label,
    )
    frame.add('<text class="name" x="0" y="10">{}</text>', y_label)
    for shift, (name, whiskers) in enumerate(lines.items()):
        style, off = styles[name], (shift - (len(lines) - 1) / 2) * 0.045
        for w in whiskers:
            x = frame.x(w.place + off)
            frame.add(
                '<line class="whisker {}" x1="{}" x2="{}" y1="{}" y2="{}"/>',
                style,
                x,
                x,
                frame.y(100 * w.low),
                frame.y(100 * w.high),
            )
        frame.line([(w.place + off, 100 * w.value) for w in whiskers], f"{style} whole")
        for w in whiskers:
            frame.add(
                '<circle class="dot {}" cx="{}" cy="{}" r="3.5"><title>{}: {}</title></circle>',
                *(
                    style,
                    frame.x(w.place + off),
                    frame.y(100 * w.value),
                    name,
                    f"{100 * w.value:.1f} % ({100 * w.low:.1f} to {100 * w.high:.1f})",
                ),
            )
    _labels(
        frame,
        [
            (name, [(w.place, 100 * w.value) for w in whiskers], styles[name])
            for name, whiskers in lines.items()
        ],
    )
    said = (
        f"{name}: "
        + ", ".join(
            f"{names[w.place]} {100 * w.value:.1f} % ({100 * w.low:.1f} to {100 * w.high:.1f})"
            for w in whiskers
        )
        for name, whiskers in lines.items()
    )
    return frame.svg(f"{label}. {'. '.join(said)}")


def shares_chart(rows: Mapping[str, Mapping[str, float]], *, label: str) -> Markup:
    """A bar for each row, cut into shares that add up to 1, each in its kind's style; without shares it says
    "none". The label goes on with the shares."""
    step, left = 30, 92
    frame = Frame(900, step * len(rows) + 22, left, 8, 0, 20, (0.0, 100.0), (0.0, 1.0))
    bottom = frame.height - frame.bottom
    for value in (0.0, 25.0, 50.0, 75.0, 100.0):
        x = frame.x(value)
        frame.add('<line class="grid" x1="{}" x2="{}" y1="0" y2="{}"/>', x, x, bottom)
        anchor = "end" if value == 100 else "middle"  # a label about the right edge would be cut off
        frame.add(
            '<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>',
            x,
            bottom + 14,
            anchor,
            f"{number(value)} %",
        )
    for place, (name, shares) in enumerate(rows.items()):
        top, start = place * step + 5, 0.0
        frame.add('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>', left - 8, top + 14, name)
        if not shares:
            frame.add('<text class="name" x="{}" y="{}">none</text>', frame.x(1.0), top + 14)
        for kind, share in shares.items():
            x, end = frame.x(100 * start), frame.x(100 * (start + share))
            frame.add(
                '<rect class="kind-{}" x="{}" y="{}" width="{}" height="20"><title>{}: {} {}</title></rect>',
                *(kind, x, top, max(0.0, end - x), name, kind_of_edit(kind), percent(share)),
            )
            if end - x > 34:
                frame.add(
                    '<text class="inside" x="{}" y="{}" text-anchor="middle">{}</text>',
                    (x + end) / 2,
                    top + 14,
                    f"{100 * share:.0f}",
                )
            start += share
    said = (
        f"{name}: "
        + (", ".join(f"{kind_of_edit(kind)} {percent(share)}" for kind, share in shares.items()) or "none")
        for name, shares in rows.items()
    )
    return frame.svg(f"{label}. {'. '.join(said)}")


def interval_bar(difference: Mapping[str, Any], extent: tuple[float, float], label: str) -> Markup:
    """A difference and its interval on a line with a mark at zero; `extent` is shared by the bars that are
    compared.
    """
    value, (low, high) = difference["value"], difference["ci95"]
    frame = Frame(260, 34, 6, 6, 4, 14, extent, (0.0, 1.0))
    zero, middle = frame.x(0.0), 10
    frame.add(
        '<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>',
        frame.left,
        frame.width - frame.right,
        middle,
        middle,
    )
    frame.add('<line class="zero" x1="{}" x2="{}" y1="2" y2="18"/>', zero, zero)
    frame.add('<text class="tick" x="{}" y="31" text-anchor="middle">0</text>', zero)
    for tick in ticks(*extent, wanted=3):
        if tick != 0:
            frame.add(
                '<text class="tick" x="{}" y="31" text-anchor="middle">{}</text>',
                frame.x(tick),
                f"{100 * tick:+.0f}".replace("-", "\u2212"),
            )
    if value is not None and low is not None and high is not None:
        frame.add(
            '<line class="range" x1="{}" x2="{}" y1="{}" y2="{}"/>',
            frame.x(low),
            frame.x(high),
            middle,
            middle,
        )
        frame.add('<circle class="dot accent" cx="{}" cy="{}" r="5"/>', frame.x(value), middle)
    return frame.svg(label)


def boxes(targets: Sequence[Target], width: int, height: int) -> Markup:
    """The targets' boxes as an overlay for a picture of that size in pixels."""
    drawn = Markup("").join(
        Markup('<rect x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
            t.box[0], t.box[1], t.box[2] - t.box[0], t.box[3] - t.box[1], t.name
        )
        for t in targets
    )
    return (
        Markup(
            '<svg class="boxes" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">'
        ).format(width, height)
        + drawn
        + Markup("</svg>")
    )


Table = Sequence[Sequence[Mapping[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One rate of a matrix; `value` is None where it has not been measured. `style` sets the colours of light
    and dark pages.
    """

    text: str
    interval: str
    title: str
    style: str
    value: float | None


@dataclass(frozen=True)
class HeatMap:
    """Rows and columns by name, the cells, and the values (0 to 1) at the ends of the colour scale."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    low: float
    high: float

    @property
    def legend(self) -> tuple[Cell, ...]:
        """Patches from the low end of the scale to the high one."""
        return tuple(
            _cell({"value": v, "n": 0}, "", self.low, self.high)
            for v in (self.low + (self.high - self.low) * i / 8 for i in range(9))
        )


def heat_map(
    defenders: Sequence[str], opponents: Sequence[str], table: Table, kind: str, *, low: float | None = None
) -> HeatMap:
    """Colour a matrix of rates. The scale runs from the smallest value, rounded down to a tenth (or from
    `low`), to the largest, rounded up.
    """
    values = [cell["value"] for row in table for cell in row if cell and cell["value"] is not None]
    least = math.floor(10 * min(values, default=0.0) + 1e-9) / 10 if low is None else low
    most = max(math.ceil(10 * max(values, default=1.0) - 1e-9) / 10, least + 0.1)
    cells = tuple(
        tuple(
            _cell(cell, f"{d} Defender, {o}: {kind}", least, most)
            for cell, o in zip(row, opponents, strict=True)
        )
        for row, d in zip(table, defenders, strict=True)
    )
    return HeatMap(tuple(defenders), tuple(opponents), cells, least, most)


def _cell(rate: Mapping[str, Any] | None, title: str, low: float, high: float) -> Cell:
    value = rate["value"] if rate else None
    if rate is None or value is None:
        return Cell("not yet" if rate is None else "–", "", f"{title} not yet known", "", None)
    share = (value - low) / (high - low)
    light, dark = color_of(share, ON_PAPER), color_of(share, ON_NIGHT)
    style = f"--l:{light};--li:{ink_on(light)};--d:{dark};--di:{ink_on(dark)}"
    return Cell(
        percent(value)[:-2],
        interval(rate),
        f"{title} {percent(value)}, 95 % interval {interval(rate)}, n = {rate['n']}",
        style,
        value,
    )
