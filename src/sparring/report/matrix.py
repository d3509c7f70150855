"""The payoff matrix as cells with colours and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparring.report.color import ON_NIGHT, ON_PAPER, color_of, ink_on
from sparring.report.numbers import interval, percent, player

Table = Sequence[Sequence[Mapping[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One rate of a matrix; `value` is None where it has not been measured. `style` sets the colours of light and dark pages."""

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
            _cell({"value": v, "n": 0}, "", self.low, self.high) for v in (self.low + (self.high - self.low) * i / 8 for i in range(9))
        )


def heat_map(defenders: Sequence[str], opponents: Sequence[str], table: Table, kind: str, *, low: float | None = None) -> HeatMap:
    """Colour a matrix of rates. The scale runs from the smallest value, rounded down to a tenth (or from `low`), to the largest, rounded up."""
    values = [cell["value"] for row in table for cell in row if cell and cell["value"] is not None]
    least = math.floor(10 * min(values, default=0.0) + 1e-9) / 10 if low is None else low
    most = max(math.ceil(10 * max(values, default=1.0) - 1e-9) / 10, least + 0.1)
    cells = tuple(
        tuple(_cell(cell, f"{player(d)} Defender, {player(o)}: {kind}", least, most) for cell, o in zip(row, opponents, strict=True))
        for row, d in zip(table, defenders, strict=True)
    )
    return HeatMap(tuple(map(player, defenders)), tuple(map(player, opponents)), cells, least, most)


def _cell(rate: Mapping[str, Any] | None, title: str, low: float, high: float) -> Cell:
    value = rate["value"] if rate else None
    if rate is None or value is None:
        return Cell("not yet" if rate is None else "–", "", f"{title} not yet known", "", None)
    share = (value - low) / (high - low)
    light, dark = color_of(share, ON_PAPER), color_of(share, ON_NIGHT)
    style = f"--l:{light};--li:{ink_on(light)};--d:{dark};--di:{ink_on(dark)}"
    return Cell(
        percent(value)[:-2], interval(rate), f"{title} {percent(value)}, 95 % interval {interval(rate)}, n = {rate['n']}", style, value
    )
