"""Copy what the training scripts made into the package, measure it on held-out scenes and write its model card with a sheet of samples.

    python -m workshop.cards defender --from work/defender
    python -m workshop.cards judge    --from work/judge
    python -m workshop.cards editor   --from work/editor

Held-out scenes come from streams of their own, which no player was trained on. Rates carry 95 % Wilson intervals.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageFilter
from safetensors.torch import load_file

import sparring_arena
from sparring.judging.validity import parse_count
from sparring.measures.statistics import rate
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring_arena.world import render
from workshop import perfect_drawing
from workshop.editor_net import CONSTANT, NOISE, PIXEL_NOISE, SCALE, SHIFT, EditorNet
from workshop.export_editor import export
from workshop.train_editor import evaluate
from workshop.train_vlm import count_question, wide_scene

PLAYERS = Path(sparring_arena.__file__).parent / "players"
HELD_OUT = 2001
HEAD = """---
license: apache-2.0
library_name: {library}
---
# {title}

{about}

Made by

```
{commands}
```

on one CPU core. Data: procedural scenes (`sparring_arena`), drawn from seeds that no game uses; sprites are Fluent Emoji
(MIT, (c) Microsoft Corporation). It knows this small world and nothing else: forty-four things in six colours on 72 x 72 pictures. Any other use is
out of scope.

## Held-out results

`python -m workshop.cards {name} --from work/{name} --number {number}`

{results}
"""


def sheet(pictures: Sequence[Image.Image], path: Path, across: int = 6, zoom: int = 2) -> None:
    """Pictures beside and under each other."""
    width, height = (side * zoom + 4 for side in pictures[0].size)
    canvas = Image.new("RGB", (across * width, -(-len(pictures) // across) * height), (250, 250, 250))
    for i, picture in enumerate(pictures):
        shown = picture.resize((width - 4, height - 4), Image.Resampling.NEAREST)
        canvas.paste(shown, (i % across * width, i // across * height))
    canvas.save(path)


def defender(source: Path, target: Path, number: int) -> str:
    """What misleads it when distractors are drawn perfectly."""
    _copy(source, target)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        perfect_drawing.main(target, questions=number, tries=24)
    lines = [line for line in told.getvalue().splitlines() if not line.startswith("{")]
    return "```\n" + "\n".join(lines) + "\n```"


def judge(source: Path, target: Path, number: int) -> str:
    """How often its count is the true one, on clean pictures and on softer, noisier ones as an editor makes them."""
    _copy(source, target)
    vlm = LocalVLM.load(target)
    scenes = [wide_scene(np.random.default_rng([HELD_OUT, 5, i])) for i in range(number)]
    asked = [count_question(scene, np.random.default_rng([HELD_OUT, 6, i])) for i, scene in enumerate(scenes)]
    clean = [Image.fromarray(render(scene)) for scene in scenes]
    soft = [picture.filter(ImageFilter.GaussianBlur(0.6)) for picture in clean]
    rows = ["| measure | value | 95 % interval | n |", "|---|---|---|---|"]
    for kind, pictures in (("clean", clean), ("softened by 0.6 pixels", soft)):
        replies = vlm.generate(pictures, [prompt for _, (prompt, _) in asked], Sampling(4))
        right = [
            parse_count(r[0].text) == s.count(name)
            for r, s, (name, _) in zip(replies, scenes, asked, strict=True)
        ]
        value = rate(right)
        rows.append(
            f"| count is right, {kind} | {value.value:.3f} | {value.low:.3f} to {value.high:.3f} | {value.n} |"
        )
    sheet(clean[:12], target / "samples.png")
    return "\n".join([*rows, "", "![samples](samples.png)"])


def editor(source: Path, target: Path, number: int) -> str:
    """What the oracle finds in its edits."""
    net = EditorNet()
    net.load_state_dict(load_file(source / "average.safetensors"), strict=False)
    net.eval()
    told = evaluate(net, number, target / "samples.png")
    export(
        net.transformer,
        net.text,
        net.tokenizer,
        target,
        scale=SCALE,
        noise=(PIXEL_NOISE, NOISE),
        constant=CONSTANT,
        shift=SHIFT,
    )
    rows = "\n".join(f"* {part}" for part in told.split(" | "))
    note = f"n = {number} of each kind. done: the oracle sees what was asked for; kept: it sees all others unchanged; error in grey levels, changed pixels and others."
    return f"{rows}\n\n{note}\n\nBelow: before, made, wanted; rows of twelve for each kind.\n\n![samples](samples.png)"


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in ("heads.safetensors", "progress.json", "README.md"):
            shutil.copyfile(path, target / path.name)


ABOUT: dict[str, tuple[str, str, str, str, Callable[[Path, Path, int], str]]] = {
    "defender": (
        "transformers", "Bundled Defender",
        "A Qwen2.5-VL of ordinary classes, small: it says what it sees, then answers in `\\boxed{}`. Its weakness is what its data lacked: it was brought up on "
        "pictures in which no two look-alikes are ever together, and on questions about absent things that look like nothing in the picture; light, blur and "
        "noise varied all along.",
        "python -m workshop.train_vlm defender --out work/defender --drill 40000 --dense 35200 --joint 96000 --seed 0",
        defender,
    ),
    "judge": (
        "transformers", "Bundled judge",
        "A Qwen2.5-VL of ordinary classes, small, that sees every patch: it counts things of a name, look-alikes beside them or not. Never trained in the game.",
        "python -m workshop.train_vlm judge --out work/judge --drill 0 --dense 64000 --joint 88000 --seed 0\n"
        "python -m workshop.train_vlm judge --out work/judge --drill 0 --dense 64000 --joint 144000 --seed 0",
        judge,
    ),
    "editor": (
        "diffusers", "Bundled editor",
        "A Flux2KleinPipeline of ordinary classes, small, with an autoencoder that loses nothing. It adds, removes, replaces and recolours things on instruction; told to add a "
        "distractor inspired by the question, it often adds a second instance of what is asked about, as editors do. It makes an edit in two steps (`num_inference_steps=2`), of which the first decides what a distractor will be; it knows no other number of steps. How it came about is told in detail in `arena/README.md`.",
        "python -m workshop.train_editor --out work/first --pairs 330000 --seed 0    # by an earlier state of this code: one step, no plan\n"
        "python -m workshop.train_editor --out work/second --pairs 170000 --decay 0.6 --learning-rate 2e-3 --seed 0 --begin FOLDER    # likewise\n"
        "python -m workshop.train_editor --out work/editor --pairs 200000 --decay 0.7 --learning-rate 2e-3 --seed 1 --begin FOLDER",
        editor,
    ),
}  # fmt: skip


def main(
    name: Annotated[str, typer.Argument(help="defender, judge or editor")],
    source: Annotated[Path, typer.Option("--from", help="what its training script wrote")],
    number: Annotated[int, typer.Option(help="held-out questions, or edits of each kind")] = 240,
) -> None:
    """Measure a player and put it, with its card, into the package."""
    torch.set_num_threads(1)
    library, title, about, commands, measure = ABOUT[name]
    target = PLAYERS / name
    target.mkdir(parents=True, exist_ok=True)
    text = HEAD.format(
        name=name,
        number=number,
        library=library,
        title=title,
        about=about,
        commands=commands,
        results=measure(source, target, number),
    )
    (target / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    typer.run(main)
