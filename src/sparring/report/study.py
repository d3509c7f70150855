"""`report.html` and `study.png` of a study: who beats whom, what arms differ by, every figure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sparring.data.errors import RunError
from sparring.data.words import plural
from sparring.report.axes import ticks
from sparring.report.charts import Cell, HeatMap, heat_map, interval_bar
from sparring.report.numbers import percent, points, points_interval
from sparring.report.render import write_page
from sparring.study.figures import CLEAN, PRIMARY
from sparring.study.table import computed_with, main_measures, tables

Figures = Mapping[str, Any]
MARGIN, CELL_WIDTH, CELL_HEIGHT, GAINS_TOP, GAIN_HEIGHT = 44, 108, 46, 92, 34
AS_DRAWN = str.maketrans({"\u2212": "-", "\u00b1": ""})
"""Pillow's own typeface has no minus sign; zero needs no sign."""
PAPER, INK, SOFT, ACCENT, WASH = "#fbfaf7", "#1b1d1f", "#63676b", "#0f6f78", "#f0eee7"


def write_study_report(out: Path) -> Path:
    """Write `out/study.png` and `out/report.html` of a study; gives the page. Errors: RunError where the
    folder holds no figures of one, or they cannot be read.
    """
    out = Path(out).resolve()
    try:
        results = json.loads((out / "study.json").read_text(encoding="utf-8"))
        contents = contents_of(results)
        settings_text = (out / "study.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{out} holds no study that can be read: {error}. Begin or go on with `sparring study STUDY.yaml "
            f"--out {out}`."
        ) from error
    _draw(results, contents, out / "study.png")
    return write_page(out, "study.html.j2", contents | {"settings_text": settings_text})


def contents_of(results: Figures) -> dict[str, Any]:
    """What pages show of a study."""
    less, differences = results["differences"]["less"], results["differences"]["of"]
    measure = main_of(results)
    primary = (results["primary"] or {}).get("arm")
    found = {arm: own[measure] for arm, own in differences.items() if measure in own}
    gains = dict(sorted(found.items(), key=lambda one: one[0] != primary))
    extent = _extent(gains.values())
    return {
        "results": results,
        "headline": headline(results),
        "measure": measure,
        "heat": _heat(results),
        "gains": [
            (arm, gain, interval_bar(gain, extent, f"{arm} less {less}: {_said(gain)}"))
            for arm, gain in gains.items()
            if gain["value"] is not None
        ],
        "tables": tables(results),
        "computed_with": computed_with(results),
    }


def _extent(gains: Iterable[Figures]) -> tuple[float, float]:
    """The least and the greatest end of the intervals, and 0."""
    ends = [0.0, *(end for gain in gains for end in (*gain["ci95"], gain["value"]) if end is not None)]
    return min(ends), max(ends)


def main_of(results: Figures) -> str:
    """The measure by which arms are told apart first."""
    return PRIMARY if results["primary"] else CLEAN


def headline(results: Figures) -> str:
    """The primary outcome in a sentence; without one, what there is."""
    primary, count = results["primary"], len(results["seeds"])
    found = results["differences"]["of"].get(primary["arm"], {}).get(PRIMARY) if primary else None
    if primary is None or found is None or found["value"] is None:
        return f"{results['name']}: {len(results['arms'])} arms, {count} seed{'' if count == 1 else 's'}"
    few = len(results["differences"]["seeds"][primary["arm"]])
    of = "" if few == count else f" ({few} of {plural(count, 'seed')})"
    return f"{primary['arm']} less {results['differences']['less']}: {_said(found)}{_p(found)}{of}"


def _said(gain: Figures) -> str:
    return f"{points(gain['value'])} points, 95 % interval {points_interval(gain)}"


def _p(gain: Figures) -> str:
    p = gain.get("holm", gain["p"])
    return "" if p is None else f", p {p:.2g}"


def _heat(results: Figures) -> HeatMap:
    columns = {name: head for name, head in main_measures(results).items() if name != PRIMARY}
    arms = {arm: own["measures"] for arm, own in results["arms"].items()}
    table = [[own.get(name) for name in columns] for own in arms.values()]
    return heat_map(list(arms), list(columns.values()), table, "accuracy")


def _draw(results: Figures, contents: Figures, to: Path) -> None:
    """The differences on a common axis, primary one first, over the heat map."""
    heat, measure, less = contents["heat"], contents["measure"], results["differences"]["less"]
    primary = (results["primary"] or {}).get("arm")
    gains = [(arm, gain) for arm, gain, _ in contents["gains"]]
    left = 28 + 11 * max((len(name) for name in [*heat.rows, *(arm for arm, _ in gains)]), default=0)
    told = f"{measure[0].upper()}{measure[1:]}, less that of {less}: points, 95 % interval"
    if len(gains) > 1 and primary == gains[0][0]:
        told += "; the first is primary, p of others by Holm"
    width = max(left + max(len(heat.columns) * CELL_WIDTH, 820), math.ceil(_font(21).getlength(told)))
    below = GAINS_TOP + (GAIN_HEIGHT * len(gains) + 70 if gains else 0)
    height = below + 78 + CELL_HEIGHT * len(heat.rows)
    canvas = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((0, 0), f"{results['name']}, {plural(len(results['seeds']), 'seed')}", INK, _font(28))
    if gains:
        draw.text((0, 50), told, INK, _font(21))
        _draw_gains(draw, gains, primary, (left, left + max(320, width - left - 330)), GAINS_TOP)
    draw.text((0, below), "Accuracy (%)", INK, _font(21))
    _draw_heat(draw, heat, left, below + 70)
    canvas.paste(picture, (MARGIN, MARGIN))
    canvas.save(to, "PNG", optimize=True)


def _draw_gains(
    draw: ImageDraw.ImageDraw,
    gains: Sequence[tuple[str, Figures]],
    primary: str | None,
    span: tuple[int, int],
    top: int,
) -> None:
    """A row an arm: name, interval with its value, the same in words. span: left and right end, in pixels."""
    low, high = _extent(gain for _, gain in gains)
    small, bottom = _font(19), top + GAIN_HEIGHT * len(gains)

    def x(value: float) -> float:
        return span[0] + 12 + (span[1] - span[0] - 24) * (value - low) / ((high - low) or 1.0)

    for tick in ticks(low, high, wanted=5):
        draw.line((x(tick), top, x(tick), bottom), SOFT if tick == 0 else WASH, 2)
        draw.text((x(tick), bottom + 14), f"{100 * tick:+g}" if tick else "0", SOFT, _font(17), anchor="mm")
    for row, (arm, gain) in enumerate(gains):
        y, color = top + (row + 0.5) * GAIN_HEIGHT, ACCENT if arm == primary else INK
        draw.text((span[0] - 14, y - 2), arm, color, small, anchor="rm")
        words = points(gain["value"])
        if None not in gain["ci95"]:
            words += f" ({points_interval(gain)}){_p(gain)}"
            draw.line((x(gain["ci95"][0]), y, x(gain["ci95"][1]), y), color, 4)
        draw.circle((x(gain["value"]), y), 7, color)
        draw.text((span[1] + 14, y - 2), words.translate(AS_DRAWN), color, small, anchor="lm")


def _draw_heat(draw: ImageDraw.ImageDraw, table: HeatMap, left: int, top: int) -> None:
    """A heat map with its columns' names above `top` and its rows' left of `left`, both in pixels."""
    small, number = _font(19), _font(22)
    for column, name in enumerate(table.columns):
        draw.text((left + (column + 0.5) * CELL_WIDTH, top - 16), name, SOFT, small, anchor="mm")
    for row, (name, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        y = top + row * CELL_HEIGHT
        draw.text((left - 14, y + CELL_HEIGHT / 2 - 2), name, INK, small, anchor="rm")
        for column, cell in enumerate(cells):
            _draw_cell(draw, left + column * CELL_WIDTH, y, cell, number)


def _draw_cell(draw: ImageDraw.ImageDraw, x: int, y: int, cell: Cell, font: ImageFont.FreeTypeFont) -> None:
    colors = dict(part.split(":") for part in cell.style.split(";") if part)
    draw.rounded_rectangle(
        (x + 2, y + 2, x + CELL_WIDTH - 3, y + CELL_HEIGHT - 3), 8, fill=colors.get("--l", WASH)
    )
    text = "-" if cell.value is None else percent(cell.value).rstrip("%\u202f ")
    draw.text((x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2), text, colors.get("--li", SOFT), font, anchor="mm")


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that the picture is the same everywhere."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RunError(
            "this build of Pillow has no FreeType, so no text can be drawn. Install Pillow from its wheel."
        )
    return font
