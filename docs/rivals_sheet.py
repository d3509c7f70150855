"""Draws docs/rivals.png: one question's picture under every rival, with the bundled players.

python docs/rivals_sheet.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from sparring.attackers.rivals import load_rival
from sparring.attackers.rivals.corruptions import CORRUPTIONS
from sparring.data.images import load_image
from sparring.data.questions import read_questions
from sparring.models.editors import load_editor
from sparring.models.vlms.local import LocalVLM
from sparring.probe.attackers import victim_of
from sparring.recipes.load import load_recipe
from sparring_arena.dataset import write_questions

SPECS = (
    *(f"corruption:{kind}:3" for kind in CORRUPTIONS),
    *(
        "jpeg:10",
        "paste:add",
        "paste:insert",
        "roundtrip",
        "benign",
        "editor",
        "pgd:eps=8",
        "pgd:eps=8:goal=wrong",
    ),
)
ZOOM, CELL, TEXT, COLUMNS = 2, 184, 14, 6


def main() -> None:
    torch.set_num_threads(1)
    recipe = load_recipe("arena")
    editor, vlm = load_editor(recipe.attacker.model), LocalVLM.load(recipe.defender.model)
    means = {"victim": victim_of(vlm, recipe.defender), "editor": editor, "attacker": recipe.attacker}
    with tempfile.TemporaryDirectory() as folder:
        _, path = write_questions(folder, seed=3, train=1, held_out=8)
        question = read_questions(path).records[4]
        clean = load_image(question.image)
        shown = [("clean", clean)]
        shown += [
            (spec, load_rival(spec, **means).edit([question], [clean], seed=0)[0].image) for spec in SPECS
        ]
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * (CELL + TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (spec, image) in enumerate(shown):
        x, y = number % COLUMNS * CELL, number // COLUMNS * (CELL + TEXT)
        draw.text((x + 4, y + 2), spec.removeprefix("corruption:"), "black")
        sheet.paste(
            image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST),
            (x + 4, y + TEXT + 4),
        )
    sheet.save(Path(__file__).with_name("rivals.png"), optimize=True)


if __name__ == "__main__":
    main()
