"""Draws docs/forge.png: photographs through both stages of the forge, with the two painters that need no
model.

python docs/forge_sheet.py
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import datasets
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from sparring.data.images import load_image
from sparring.data.questions import read_questions
from sparring.data.records import VisualQuestion
from sparring.engine.screen import Screen
from sparring.forge.run import run_forge
from sparring.recipes.borrow import forge_settings

QUESTIONS = Path(__file__).parents[1] / "tests/forge/photographs.jsonl"
SHOWN = ("shuttle", "spoon", "eyes", "pad", "head", "headlight")
CHANGES = (
    "stages.extend={painter: {model: edges}, checks: [], share: [0.01, 0.03], growth: 1.7, "
    "directions: [horizontal, both]}",
    "stages.propose={number: 3, size: [0.16, 0.24], categories: [balloon, basket, book, bottle, "
    "bucket, chair, guitar, hat, kite, shoe, teapot, umbrella]}",
    "stages.right_when_clean=false",  # the bundled Defender has never seen a photograph
    "stages.attempts=1",
)
TITLES = ("photograph, boxes of the targets", "extended by “edges”", "with three cut-outs by “paste”")
# pixels; WIDTH is that of an extended picture, its photograph is drawn to the same scale
WIDTH, GAP, TEXT = 360, 8, 20


def forge(folder: Path) -> dict[str, dict[str, Any]]:
    """What was published of every question, by its id."""
    settings = forge_settings([("data", str(folder / QUESTIONS.name))], recipe="arena", changes=CHANGES)
    run_forge(settings, folder / "out", screen=Screen(Console(file=io.StringIO())))
    files = [
        str(path) for part in ("data", "apart") for path in (folder / "out/dataset" / part).glob("*.parquet")
    ]
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    return {row["id"]: row for row in rows}


def line_of(question: VisualQuestion, row: dict[str, Any]) -> list[Image.Image]:
    """Photograph, extended picture, adversarial picture, all at one scale."""
    source = load_image(question.image)
    for target in question.targets:
        x0, y0, x1, y1 = target.box
        ImageDraw.Draw(source).rectangle((x0, y0, x1 - 1, y1 - 1), outline="lime", width=4)
    scale = WIDTH / row["image"].width
    pictures = (source, row["image"], row["adversarial_image"])
    return [
        picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
        )
        for picture in pictures
    ]


def main() -> None:
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(QUESTIONS, folder)
        for file in {json.loads(line)["image"] for line in QUESTIONS.read_text().splitlines()}:
            # they come with scikit-image itself
            shutil.copy(Path(skimage.data.__file__).parent / file, folder)
        rows = forge(folder)
        asked = [question for question in read_questions(folder / QUESTIONS.name) if question.id in SHOWN]
        lines = [line_of(question, rows[question.id]) for question in asked]
    first = max(source.width for source, *_ in lines) + GAP
    places = (0, first, first + WIDTH + GAP)
    sheet = Image.new(
        "RGB", (first + 2 * WIDTH + GAP, TEXT + sum(TEXT + line[1].height + GAP for line in lines)), "white"
    )
    draw, font, y = ImageDraw.Draw(sheet), ImageFont.load_default(13), TEXT
    for x, title in zip(places, TITLES, strict=True):
        draw.text((x, 2), title, "black", font)
    for question, line in zip(asked, lines, strict=True):
        draw.text((0, y + 2), f"{question.question}  {question.answer_text}", "dimgray", font)
        for x, picture in zip(places, line, strict=True):
            sheet.paste(picture, (x, y + TEXT))
        y += TEXT + line[1].height + GAP
    # a quarter of the size in full colour
    sheet.quantize(256, kmeans=3).save(Path(__file__).with_name("forge.png"), optimize=True)


if __name__ == "__main__":
    main()
