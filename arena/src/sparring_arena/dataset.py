"""The arena's data on disk: pictures and a JSONL file of questions for each split, as a user's data would
come.

Scenes of different splits and seeds come from different random streams, none of which the bundled players
were trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sparring.data.convert import write_questions as write_records
from sparring.data.records import LETTERS, Target, VisualQuestion
from sparring_arena.questions import KINDS, SceneQuestion, ask, thought
from sparring_arena.world import Scene, render, sample_scene

STREAMS = {"train": 1001, "held_out": 1002}


def write_questions(
    folder: str | Path, *, seed: int, train: int, held_out: int, reasoned: bool = False
) -> tuple[Path, Path]:
    """Draw both splits into `folder` and return the paths of `train.jsonl` and `held_out.jsonl`.

    `reasoned`: with the reasoning that the bundled Defender was brought up on, to be learned from.

    Every question has a scene of its own; the four kinds take turns, and every second existence question is
    answered by "no". The same arguments write the same bytes. Raises OSError if the folder cannot be
    written.
    """
    folder = Path(folder)
    return _write_split(folder, "train", seed, train, reasoned), _write_split(
        folder, "held_out", seed, held_out, reasoned
    )


def _write_split(folder: Path, split: str, seed: int, number: int, reasoned: bool) -> Path:
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(number):
        scene, asked = draw(seed, split, index)
        name = f"{split.replace('_', '-')}-{index:06d}"
        path = pictures / f"{name}.png"
        Image.fromarray(render(scene)).save(path, compress_level=4)
        records.append(to_record(name, path, asked, thought(scene, asked) if reasoned else None))
    return write_records(folder / f"{split}.jsonl", records)


def draw(seed: int, split: str, index: int) -> tuple[Scene, SceneQuestion]:
    """Scene and question number `index` of a split ("train" or "held_out"): the same ones whatever else was
    drawn before.
    """
    rng = np.random.default_rng([seed, STREAMS[split], index])
    kind = KINDS[index % len(KINDS)]
    answer = ("yes", "no")[index // len(KINDS) % 2] if kind == "existence" else None
    while True:
        scene = sample_scene(rng)
        asked = ask(scene, kind, rng)
        if asked is not None and answer in (None, asked.answer):
            return scene, asked


def to_record(name: str, picture: Path, asked: SceneQuestion, reasoning: str | None = None) -> VisualQuestion:
    """A scene's question as a record about the picture in that file."""
    targets = tuple(Target(thing.name, thing.box) for thing in asked.about)
    return VisualQuestion(
        name, picture, asked.question, asked.options, LETTERS[asked.right], targets, asked.kind, reasoning
    )
