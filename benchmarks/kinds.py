"""How often the kind of a planted edit is told rightly, as edited and after the bundled editor's autoencoder.
One JSON line.

python benchmarks/kinds.py --number 500
python benchmarks/kinds.py --number 500 --look nobody
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import torch

from sparring.attackers.rollout import to_pictures
from sparring.judging.kinds import KINDS, classify, nobody
from sparring.measures.statistics import wilson
from sparring.models.editors import load_editor
from sparring.recipes.paths import resolve_model
from workshop.planted import oracle_look, planted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--plain",
        action="store_true",
        help="leave the edited pictures as they are, instead of through the autoencoder",
    )
    parser.add_argument(
        "--look", choices=("oracle", "nobody"), default="oracle", help="who names what is in a changed region"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cleans, edits, kinds = zip(*planted(arguments.seed, arguments.number), strict=True)
    if not arguments.plain:
        editor = load_editor(Path(resolve_model("arena/editor")))
        edits = tuple(
            picture
            for i in range(0, len(edits), 64)
            for picture in to_pictures(editor.reencode(edits[i : i + 64]))
        )
    look = oracle_look if arguments.look == "oracle" else nobody
    told = [found.kind for found in classify(cleans, edits, look)]
    if not arguments.plain:  # the round trip itself changes a picture
        kinds = tuple("imperceptible" if kind == "unchanged" else kind for kind in kinds)
    right = sum(a == b for a, b in zip(told, kinds, strict=True))
    mistaken = Counter(f"{truth} as {said}" for truth, said in zip(kinds, told, strict=True) if truth != said)
    each = {
        kind: sum(a == b == kind for a, b in zip(told, kinds, strict=True)) / max(1, kinds.count(kind))
        for kind in KINDS
        if kind in kinds
    }
    line = {
        "benchmark": "kinds",
        "look": arguments.look,
        "edited": "plain" if arguments.plain else "autoencoder",
        "n": len(kinds),
        "right": right,
        "accuracy": right / len(kinds),
        "ci95": wilson(right, len(kinds)),
        "recall": each,
        "mistaken": dict(mistaken.most_common()),
        "seed": arguments.seed,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
