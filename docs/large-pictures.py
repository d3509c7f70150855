"""The picture of large-pictures.md: a photograph, edited in a crop around its target by the bundled editor.

python docs/large-pictures.py            writes docs/large-pictures.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.data import coffee

from sparring.attackers.crops import choose_crop
from sparring.attackers.rollout import deterministic_edits
from sparring.config import CropSettings
from sparring.data.records import Box
from sparring.models.editors import load_editor
from sparring.recipes import load_recipe
from sparring.report.gallery import difference

SIZE = (300, 200)
TARGET: Box = (161, 119, 206, 166)  # the bowl of the spoon
# the bundled editor was made for 64 x 64 pixels
SETTINGS = CropSettings(max_area=64 * 64, context=6, feather=8)
QUESTION = "Where is the spoon relative to the cup?"


def main() -> None:
    attacker = load_recipe("arena").attacker
    torch.set_num_threads(1)
    editor = load_editor(attacker.model)
    before = Image.fromarray(coffee()).resize(SIZE, Image.Resampling.LANCZOS)
    crop = choose_crop(before.size, [TARGET], SETTINGS, editor.multiple)
    instruction = attacker.instruction.replace("{question}", QUESTION)
    (after,) = deterministic_edits(
        editor, [before], [instruction], [0], attacker.evaluation_steps, crops=[crop]
    )
    changed = np.argwhere((np.asarray(before) != np.asarray(after)).any(-1))
    (top, left), (bottom, right) = changed.min(0).tolist(), (changed.max(0) + 1).tolist()
    print(
        f"picture {before.size}, crop {crop.box} at {crop.size}; changed are pixels inside "
        f"{(left, top, right, bottom)}"
    )
    marked = before.copy()
    draw = ImageDraw.Draw(marked)
    for box, color in ((crop.box, "white"), (TARGET, "red")):
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=color)
    shown = (marked, after, difference(before, after))
    sheet = Image.new("RGB", (SIZE[0] * 3 + 20, SIZE[1]), "white")
    for place, picture in enumerate(shown):
        sheet.paste(picture, (place * (SIZE[0] + 10), 0))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(
        Path(__file__).with_suffix(".png"), optimize=True
    )


if __name__ == "__main__":
    main()
