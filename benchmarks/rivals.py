"""What the rivals do to the bundled Defender: its accuracy on held-out scenes it gets right when clean. One
JSON line.

python benchmarks/rivals.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
from typing import Any

import numpy as np
import torch
from PIL import Image

from sparring.asking.questions import ask
from sparring.attackers.rivals import load_rival
from sparring.data.images import load_image
from sparring.data.questions import read_questions
from sparring.data.records import VisualQuestion
from sparring.measures.statistics import rate
from sparring.models.editors import load_editor
from sparring.models.vlms.local import LocalVLM
from sparring.probe.attackers import victim_of
from sparring.recipes.load import load_recipe
from sparring_arena.dataset import write_questions

SPECS = (
    *(
        "roundtrip",
        "benign",
        "editor",
        "paste:add",
        "paste:insert",
        "jpeg:30",
        "corruption:fog:3",
        "corruption:gaussian_noise:3",
    ),
    *("pgd:eps=2:steps=10", "pgd:eps=8:steps=10"),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe("arena")
    vlm, editor = LocalVLM.load(recipe.defender.model), load_editor(recipe.attacker.model)
    means: dict[str, Any] = {
        "victim": victim_of(vlm, recipe.defender),
        "editor": editor,
        "attacker": recipe.attacker,
    }

    def right(questions: list[VisualQuestion], images: list[Image.Image]) -> list[bool]:
        return [answer.right for answer in ask(vlm, questions, images, recipe.defender)]

    with tempfile.TemporaryDirectory() as folder:
        _, path = write_questions(folder, seed=arguments.seed, train=1, held_out=arguments.questions)
        asked = read_questions(path).records
        images = [load_image(question.image) for question in asked]
        kept = [i for i, good in enumerate(right(asked, images)) if good]
        questions, cleans = [asked[i] for i in kept], [images[i] for i in kept]
        fooled = {}
        for spec in SPECS:
            edits = [edit.image for edit in load_rival(spec, **means).edit(questions, cleans, arguments.seed)]
            fooled[spec] = rate(~np.array(right(questions, edits))).as_dict()
    print(
        json.dumps(
            {
                "benchmark": "rivals",
                "questions": arguments.questions,
                "right_when_clean": len(kept),
                "fooled": fooled,
            }
        )
    )


if __name__ == "__main__":
    main()
