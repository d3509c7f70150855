"""One picture of a run for a README: six edits, and the payoff matrix beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sparring.data.errors import RunError
from sparring.data.images import ImageError
from sparring.data.records import Target
from sparring.report.charts import Cell, heat_map
from sparring.report.gallery import choose, difference, is_small, load_pair
from sparring.report.numbers import percent, player, points, points_interval
from sparring.report.run import Exhibit, Run, read_run

EXAMPLES = 6
TILE, GAP, MARGIN, LABELS = 192, 14, 44, 104
CELL_WIDTH, CELL_HEIGHT = 108, 76
PAPER, INK, SOFT, ACCENT, WASH = "#fbfaf7", "#1b1d1f", "#63676b", "#0f6f78", "#f0eee7"
LINE = 27


def write_picture(out: Path, to: Path) -> None:
    """Draw a run as one PNG file `to`: edits that fooled the base Defender before others, and the payoff
    matrix.

    Errors: RunError if the folder holds no run, or nothing of it has been played on held-out pictures yet.
    """
    run = read_run(Path(out))
    strip, table = _examples(run), _matrix(run)
    height = max(strip.height, table.height)
    canvas = Image.new(
        "RGB", (MARGIN + strip.width + 56 + table.width + MARGIN, MARGIN + height + MARGIN), PAPER
    )
    canvas.paste(strip, (MARGIN, MARGIN))
    canvas.paste(table, (MARGIN + strip.width + 56, MARGIN))
    canvas.save(to, "PNG", optimize=True)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that the picture is the same everywhere."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RunError(
            "this build of Pillow has no FreeType, so no text can be drawn. Install Pillow from its wheel."
        )
    return font


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """At most so many lines of at most so many pixels; what does not fit ends in three dots."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} ..."]
    return [_clipped(line, font, width) for line in lines]


def _clipped(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line.rstrip(" .") + "..."


# -- the examples


@dataclass(frozen=True, slots=True)
class Example:
    exhibit: Exhibit
    before: Image.Image
    after: Image.Image


def pick(run: Run, count: int = EXAMPLES) -> list[Example]:
    """Examples for a picture: fooled and won back first, then fooled, then the rest; within that later
    Attackers first, in a hash's order.
    """
    valid = [e for e in run.exhibits if e.accepted and e.label_valid is not False]
    ordered = sorted(choose(valid, most=len(valid)), key=lambda e: (not e.won_back, e.outcome != "fooled"))
    found: list[Example] = []
    for exhibit in ordered:
        if len(found) == count:
            break
        if any(exhibit.question_id == other.exhibit.question_id for other in found):
            continue
        try:
            found.append(Example(exhibit, *load_pair(exhibit)))
        except ImageError:
            continue  # the page says how many pictures are gone; here the next one serves
    if not found:
        raise RunError(
            f"{run.out} has no accepted held-out edit to show yet. Let the run come to its first "
            f"held-out play."
        )
    return found


def _examples(run: Run) -> Image.Image:
    examples = pick(run)
    title, small, bold = _font(28), _font(20), _font(22)
    top = 62
    picture = Image.new(
        "RGB", (LABELS + len(examples) * (TILE + GAP) - GAP, top + 3 * (TILE + GAP) + 7 * LINE), PAPER
    )
    draw = ImageDraw.Draw(picture)
    draw.text((0, 0), _title(examples), INK, title)
    for row, name in enumerate(("before", "after", "difference")):
        draw.text((0, top + row * (TILE + GAP) + TILE // 2), name, SOFT, small, anchor="lm")
    bottom = top
    for column, example in enumerate(examples):
        x, exhibit = LABELS + column * (TILE + GAP), example.exhibit
        gap = difference(example.before, example.after)
        for row, (image, targets) in enumerate(
            ((example.before, exhibit.targets), (example.after, exhibit.targets), (gap, ()))
        ):
            picture.paste(tile(image, targets), (x, top + row * (TILE + GAP)))
        y = top + 3 * (TILE + GAP) + 2
        for line in wrap(exhibit.question, bold, TILE, 4):
            draw.text((x, y), line, INK, bold)
            y += LINE
        y += 4
        replies = {"base": exhibit.base, player(run.last_defender).lower(): exhibit.last}
        for who, reply in replies.items():
            if reply is None:
                continue
            said = exhibit.option(reply.choice).split(". ", 1)[-1]
            _mark(draw, x, y, reply.right)
            draw.text(
                (x + 24, y),
                wrap(f"{who}: {said}", small, TILE - 24, 1)[0],
                ACCENT if reply.right else SOFT,
                small,
            )
            y += LINE
        bottom = max(bottom, y)
    return picture.crop((0, 0, picture.width, bottom))


def _title(examples: Sequence[Example]) -> str:
    """Says how the examples were chosen."""
    if all(example.exhibit.won_back for example in examples):
        return "Held-out edits that fooled the base Defender, but not the last one"
    if all(example.exhibit.outcome == "fooled" for example in examples):
        return "Held-out edits that fooled the base Defender"
    return "Held-out edits, and what the Defenders say to them"


def tile(image: Image.Image, targets: Sequence[Target]) -> Image.Image:
    """The picture in a square of `TILE` pixels, with its boxes; small ones keep hard pixels."""
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    shown = image.resize(size, Image.Resampling.NEAREST if is_small(image) else Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(shown)
    for target in targets:
        x0, y0, x1, y1 = (value * scale for value in target.box)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="#000000", width=3)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="#ffffff", width=2)
    square = Image.new("RGB", (TILE, TILE), WASH)
    square.paste(shown, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return square


def _mark(draw: ImageDraw.ImageDraw, x: float, y: float, right: bool) -> None:
    """A tick or a cross, drawn: the typeface has neither."""
    if right:
        draw.line([(x + 2, y + 13), (x + 7, y + 18), (x + 16, y + 6)], fill=ACCENT, width=3, joint="curve")
    else:
        draw.line([(x + 3, y + 7), (x + 14, y + 18)], fill=SOFT, width=3)
        draw.line([(x + 14, y + 7), (x + 3, y + 18)], fill=SOFT, width=3)


# -- the payoff matrix


def _matrix(run: Run) -> Image.Image:
    defenders, opponents = run.payoff.get("defenders", []), run.payoff.get("opponents", [])
    if not any(cell for row in run.payoff.get("accuracy", []) for cell in row):
        raise RunError(
            f"{run.out} has no cell of the payoff matrix yet. Let the run come to its first held-out play."
        )
    table = heat_map(defenders, opponents, run.payoff["accuracy"], "accuracy")
    title, small, number = _font(28), _font(19), _font(25)
    left, top = 92, 100
    gains = (run.summary or {}).get("gains", {})
    width = max(left + len(opponents) * CELL_WIDTH, 560)
    picture = Image.new("RGB", (width, top + len(defenders) * CELL_HEIGHT + 40 + 3 * 66 + 40), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((0, 0), "Accuracy, Defender against opponent (%)", INK, title)
    for column, name in enumerate(table.columns):
        draw.text((left + (column + 0.5) * CELL_WIDTH, top - 16), name, SOFT, small, anchor="mm")
    for row, (name, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        y = top + row * CELL_HEIGHT
        draw.text((left - 14, y + CELL_HEIGHT / 2 - 2), name, INK, small, anchor="rm")
        for column, cell in enumerate(cells):
            _draw_cell(draw, left + column * CELL_WIDTH, y, cell, number)
    y = top + len(defenders) * CELL_HEIGHT + 34
    for key, text in (
        ("robust", "last Defender less base, under the last Attacker"),
        ("clean", "last Defender less base, on clean pictures"),
        ("attacker", "last Attacker's success less bootstrap's, on base"),
    ):
        _draw_gain(draw, y, gains.get(key), text)
        y += 66
    return picture


def _draw_cell(draw: ImageDraw.ImageDraw, x: int, y: int, cell: Cell, font: ImageFont.FreeTypeFont) -> None:
    colors = dict(part.split(":") for part in cell.style.split(";") if part)
    draw.rounded_rectangle(
        (x + 2, y + 2, x + CELL_WIDTH - 3, y + CELL_HEIGHT - 3), 8, fill=colors.get("--l", WASH)
    )
    text = "-" if cell.value is None else percent(cell.value).rstrip("%\u202f ")
    draw.text((x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2), text, colors.get("--li", SOFT), font, anchor="mm")


def _draw_gain(draw: ImageDraw.ImageDraw, y: float, gain: Mapping[str, Any] | None, text: str) -> None:
    if gain is None or gain["value"] is None:
        return
    ascii_minus = str.maketrans({"\u2212": "-", "\u202f": " ", "\u00b1": ""})
    draw.text((0, y), points(gain["value"]).translate(ascii_minus), ACCENT, _font(40))
    draw.text((122, y + 2), text, INK, _font(21))
    draw.text(
        (122, y + 27),
        f"points, 95 % interval {points_interval(gain).translate(ascii_minus)}",
        SOFT,
        _font(18),
    )
