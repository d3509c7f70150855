"""`report.html` and `study.png` of a study: who beats whom, what arms differ by, every figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sparring.data.errors import RunError
from sparring.data.words import plural
from sparring.report.charts import Cell, HeatMap, heat_map, interval_bar
from sparring.report.numbers import percent, points, points_interval
from sparring.report.render import write_page
from sparring.study.figures import CLEAN, PRIMARY
from sparring.study.table import computed_with, main_measures, tables

Figures = Mapping[str, Any]
MARGIN, CELL_WIDTH, CELL_HEIGHT = 44, 108, 76
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
    _draw(results, contents["heat"], out / "study.png")
    return write_page(out, "study.html.j2", contents | {"settings_text": settings_text})


def contents_of(results: Figures) -> dict[str, Any]:
    """What pages show of a study."""
    less, differences = results["differences"]["less"], results["differences"]["of"]
    measure = main_of(results)
    gains = {arm: own[measure] for arm, own in differences.items() if measure in own}
    ends = [0.0, *(end for gain in gains.values() for end in gain["ci95"] if end is not None)]
    extent = (min(ends), max(ends))
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


def _draw(results: Figures, heat: HeatMap, to: Path) -> None:
    measure, less = main_of(results), results["differences"]["less"]
    gains = {
        arm: own[measure]
        for arm, own in results["differences"]["of"].items()
        if own.get(measure, {}).get("value") is not None
    }
    left = 28 + 11 * max((len(name) for name in heat.rows), default=0)
    title = f"{results['name']}: accuracy (%), {plural(len(results['seeds']), 'seed')}"
    picture = _matrix(heat, title, left=left, room=40 + 66 * len(gains))
    primary = (results["primary"] or {}).get("arm")
    for place, (arm, gain) in enumerate(gains.items()):
        y = picture.height - 66 * (len(gains) - place)
        kind = "" if primary in (None, arm) else " (exploratory)"
        _draw_gain(ImageDraw.Draw(picture), y, gain, f"{measure}: {arm} less {less}{kind}")
    canvas = Image.new("RGB", (picture.width + 2 * MARGIN, picture.height + 2 * MARGIN), PAPER)
    canvas.paste(picture, (MARGIN, MARGIN))
    canvas.save(to, "PNG", optimize=True)


def _matrix(table: HeatMap, title: str, *, left: int, room: int) -> Image.Image:
    """A heat map under its title. left: pixels for the rows' names; room: pixels left free below it."""
    small, number, top = _font(19), _font(25), 100
    width = max(left + len(table.columns) * CELL_WIDTH, 560)
    picture = Image.new("RGB", (width, top + len(table.rows) * CELL_HEIGHT + room), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((0, 0), title, INK, _font(28))
    for column, name in enumerate(table.columns):
        draw.text((left + (column + 0.5) * CELL_WIDTH, top - 16), name, SOFT, small, anchor="mm")
    for row, (name, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        y = top + row * CELL_HEIGHT
        draw.text((left - 14, y + CELL_HEIGHT / 2 - 2), name, INK, small, anchor="rm")
        for column, cell in enumerate(cells):
            _draw_cell(draw, left + column * CELL_WIDTH, y, cell, number)
    return picture


def _draw_cell(draw: ImageDraw.ImageDraw, x: int, y: int, cell: Cell, font: ImageFont.FreeTypeFont) -> None:
    colors = dict(part.split(":") for part in cell.style.split(";") if part)
    draw.rounded_rectangle(
        (x + 2, y + 2, x + CELL_WIDTH - 3, y + CELL_HEIGHT - 3), 8, fill=colors.get("--l", WASH)
    )
    text = "-" if cell.value is None else percent(cell.value).rstrip("%\u202f ")
    draw.text((x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2), text, colors.get("--li", SOFT), font, anchor="mm")


def _draw_gain(draw: ImageDraw.ImageDraw, y: float, gain: Figures, text: str) -> None:
    ascii_minus = str.maketrans({"\u2212": "-", "\u202f": " ", "\u00b1": ""})
    draw.text((0, y), points(gain["value"]).translate(ascii_minus), ACCENT, _font(40))
    draw.text((122, y + 2), text, INK, _font(21))
    interval = points_interval(gain).translate(ascii_minus)
    draw.text((122, y + 27), f"points, 95 % interval {interval}{_p(gain)}", SOFT, _font(18))


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that the picture is the same everywhere."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RunError(
            "this build of Pillow has no FreeType, so no text can be drawn. Install Pillow from its wheel."
        )
    return font
