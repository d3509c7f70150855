"""Draws docs/demo.png: edits of a run's last Attacker that misled the base Defender, and the payoff matrix.

python docs/demo_sheet.py runs/demo
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sparring_arena.oracle import find

ZOOM, ACROSS, GAP, LINE = 2, 4, 14, 16
PAPER, INK, GOOD, BAD = (255, 255, 255), (30, 34, 40), (34, 120, 74), (176, 42, 42)


Exhibit = tuple[Image.Image, Image.Image, list[tuple[str, tuple[int, int, int]]]]
CHOSEN = """
    SELECT q.category, q.question, q.options, q.image, e.picture, b.choice, l.choice FROM questions q
    JOIN edits e ON e.question_id = q.id
    JOIN verdicts v USING (stage, step, question_id, sample)
    JOIN answers b USING (stage, step, question_id, sample)
    JOIN answers l USING (stage, step, question_id, sample)
    JOIN answers c ON c.question_id = q.id AND c.stage = 'evaluation/clean' AND c.defender = 'base'
    WHERE e.stage = ? AND v.accepted AND v.label_valid AND c.right
    AND b.defender = 'base' AND NOT b.right AND l.defender = ? AND l.right ORDER BY q.id
"""


def exhibits(folder: Path, last: str, number: int) -> list[Exhibit]:
    """(clean, edited, lines of text with their colours) of edits that the base Defender fell for and the last
    one did not, answers still right by the oracle, which sees what was changed; of every kind of question in
    turn.
    """
    found: dict[str, list[Exhibit]] = {}
    with closing(sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
        for kind, question, options, image, edit, base, trained in ledger.execute(
            CHOSEN, (f"evaluation/{last}", last)
        ):
            words = json.loads(options)
            said = ["no option" if choice is None else words[ord(choice) - 65] for choice in (base, trained)]
            lines = [(question, INK), (f"base Defender: {said[0]}", BAD), (f"last Defender: {said[1]}", GOOD)]
            pictures = [Image.open(folder / path).convert("RGB") for path in (image, edit)]
            seen = [{(one.name, one.color, one.box) for one in find(np.asarray(own))} for own in pictures]
            if seen[0] == seen[1]:  # too smudged for the oracle, whose word is then worth little
                continue
            found.setdefault(kind, []).append((pictures[0], pictures[1], lines))
    turns = [own[place] for place in range(number) for own in found.values() if place < len(own)]
    return turns[:number]


def main() -> None:
    folder = Path(sys.argv[1])
    payoff = json.loads((folder / "summary.json").read_text())["payoff"]
    shown = exhibits(folder, payoff["defenders"][-1], ACROSS)
    font = ImageFont.load_default(13)
    side = shown[0][0].width * ZOOM
    width, height = 2 * side + GAP, side + 3 * LINE + GAP
    rows = -(-len(shown) // ACROSS)
    cell = 86
    table = (len(payoff["defenders"]) + 1) * 26
    sheet = Image.new("RGB", (ACROSS * (width + GAP) + GAP, rows * (height + GAP) + table + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (clean, edited, lines) in enumerate(shown):
        x, y = GAP + number % ACROSS * (width + GAP), GAP + number // ACROSS * (height + GAP)
        for place, picture in enumerate((clean, edited)):
            large = picture.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(large, (x + place * (side + 4), y))
        for place, (line, color) in enumerate(lines):
            draw.text((x, y + side + 4 + place * LINE), line, color, font)
    top = rows * (height + GAP) + GAP
    for column, name in enumerate(payoff["opponents"]):
        draw.text((GAP + 90 + column * cell, top), name, INK, font)
    for row, name in enumerate(payoff["defenders"]):
        y = top + 24 + row * 26
        draw.text((GAP, y + 4), name, INK, font)
        for column, cell_of in enumerate(payoff["accuracy"][row]):
            value = cell_of["value"]
            shade = tuple(round(255 - (1 - value) * 2.2 * (255 - tone)) for tone in (214, 96, 77))
            x = GAP + 84 + column * cell
            draw.rectangle((x, y, x + cell - 4, y + 22), shade)
            draw.text((x + 24, y + 4), f"{value:.3f}", INK, font)
    sheet.save(Path(__file__).with_name("demo.png"))


if __name__ == "__main__":
    main()
