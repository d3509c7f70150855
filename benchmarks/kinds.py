"""How often the kind of an edit is told rightly: of edits that are drawn, or of those that an editor makes.
One JSON line. It needs PYTHONPATH=arena:arena/src.

python benchmarks/kinds.py --number 500
python benchmarks/kinds.py --number 500 --look nobody
python benchmarks/kinds.py --number 96 --look nobody --editor FOLDER

Of an editor's edits (adds, removes, replaces, recolours, and two of these one after the other) those count in
which the oracle sees what was asked for, and all else as it was; "done" is their share.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from sparring.attackers.rollout import roll_out
from sparring.judging.kinds import KINDS, Kind, classify, nobody
from sparring.measures.statistics import wilson
from sparring.models.editors import FlowEditor, load_editor
from sparring_arena.audit import near
from sparring_arena.oracle import find
from sparring_arena.world import Scene, render
from workshop.planted import EDITED, PlantedEdit, draw, oracle_look, planted

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--editor", help="folder of an editor that makes the edits, by instructions")
    parser.add_argument("--steps", type=int, default=2, help="steps of the editor")
    parser.add_argument(
        "--look", choices=("oracle", "nobody"), default="oracle", help="who names what is in a changed region"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.editor is None:
        cases = planted(arguments.seed, arguments.number)
    else:
        wanted = draw(arguments.seed, arguments.number, EDITED)
        cases = edited(load_editor(arguments.editor), wanted, arguments.steps, arguments.seed)
    if not cases:
        parser.exit(1, "The oracle sees no edit that is as it was asked for: there is nothing to tell.\n")
    cleans, edits, kinds = zip(*cases, strict=True)
    look = oracle_look if arguments.look == "oracle" else nobody
    told = [found.kind for found in classify(cleans, edits, look)]
    right = sum(a == b for a, b in zip(told, kinds, strict=True))
    mistaken = Counter(f"{truth} as {said}" for truth, said in zip(kinds, told, strict=True) if truth != said)
    each = {
        kind: sum(a == b == kind for a, b in zip(told, kinds, strict=True)) / kinds.count(kind)
        for kind in KINDS
        if kind in kinds
    }
    line = {
        "benchmark": "kinds",
        "look": arguments.look,
        "edited": "drawn" if arguments.editor is None else "editor",
        "done": len(kinds) / arguments.number,
        "n": len(kinds),
        "right": right,
        "accuracy": right / len(kinds),
        "ci95": wilson(right, len(kinds)),
        "recall": each,
        "mistaken": dict(mistaken.most_common()),
        "seed": arguments.seed,
    }
    print(json.dumps(line))


def edited(
    editor: FlowEditor, wanted: Sequence[PlantedEdit], steps: int, seed: int
) -> list[tuple[Image.Image, Image.Image, Kind]]:
    """(clean, edited, kind) of the edits that the editor made as it was told to."""
    cleans = [Image.fromarray(render(edit.before)) for edit in wanted]
    pictures = list(cleans)
    for turn in range(max(len(edit.instructions) for edit in wanted)):
        rows = [i for i, edit in enumerate(wanted) if turn < len(edit.instructions)]
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            conditions = editor.encode(
                [pictures[i] for i in part], [wanted[i].instructions[turn] for i in part]
            )
            seeds = [seed + turn * len(wanted) + i for i in part]
            made = roll_out(editor, conditions, torch.arange(len(part)), seeds, steps=steps).edits
            for i, picture in zip(part, made, strict=True):
                pictures[i] = picture
    return [
        (clean, picture, edit.kind)
        for clean, picture, edit in zip(cleans, pictures, wanted, strict=True)
        if shows(picture, edit.after)
    ]


def shows(picture: Image.Image, scene: Scene) -> bool:
    """The oracle sees the things of the scene, each in its colour and place, and no others."""
    seen = find(np.asarray(picture.convert("RGB")))
    return len(seen) == len(scene.things) and all(
        any(s.name == thing.name and s.color == thing.color and near(s.box, thing.box) for s in seen)
        for thing in scene.things
    )


if __name__ == "__main__":
    main()
