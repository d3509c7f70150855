"""What misleads a Defender when distractors are drawn perfectly, before any editor is trained.

    python -m workshop.perfect_drawing work/defender --questions 240 --tries 24

prints accuracy on clean scenes and in other light, and, of the questions that it gets right, the share that
it gets wrong after a change: the mean over random ones, and with the best of the tries. In all and for each
kind of question, with 95 % intervals.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sparring.asking.questions import ask
from sparring.config import DefenderSettings
from sparring.models.vlms.local import LocalVLM
from sparring_arena.dataset import draw, to_record
from sparring_arena.questions import KINDS, SceneQuestion
from sparring_arena.sprites import NAMES, lookalikes
from sparring_arena.world import Scene, place, random_color, render

Pixels = NDArray[np.uint8]
Change = Callable[[Scene, SceneQuestion, np.random.Generator], Scene | None]


def add_lookalike(scene: Scene, asked: SceneQuestion, rng: np.random.Generator) -> Scene | None:
    name = asked.names[int(rng.integers(len(asked.names)))]
    near = [other for other in lookalikes(name) if other not in asked.names]
    thing = place(rng, near[int(rng.integers(len(near)))], random_color(rng), scene.things)
    return None if thing is None else scene.with_thing(thing)


def put_lookalike(scene: Scene, asked: SceneQuestion, rng: np.random.Generator) -> Scene | None:
    others = [i for i, thing in enumerate(scene.things) if thing.name not in asked.names]
    if not others:
        return None
    index = others[int(rng.integers(len(others)))]
    name = asked.names[int(rng.integers(len(asked.names)))]
    near = [other for other in lookalikes(name) if other not in asked.names]
    new = near[int(rng.integers(len(near)))]
    return scene.swapped(index, replace(scene.things[index], name=new, color=random_color(rng)))


def add_other(scene: Scene, asked: SceneQuestion, rng: np.random.Generator) -> Scene | None:
    far = [
        name
        for name in NAMES
        if not any(name == asked_name or name in lookalikes(asked_name) for asked_name in asked.names)
    ]
    thing = place(rng, far[int(rng.integers(len(far)))], random_color(rng), scene.things)
    return None if thing is None else scene.with_thing(thing)


CHANGES: dict[str, Change] = {
    "add a look-alike": add_lookalike,
    "put a look-alike": put_lookalike,
    "add another thing": add_other,
}


def lights(rng: np.random.Generator) -> dict[str, Callable[[Pixels], Pixels]]:
    """Changes of light and sharpness."""

    def gain(*factors: float) -> Callable[[Pixels], Pixels]:
        return lambda pixels: np.clip(pixels * np.array(factors) + 0.5, 0, 255).astype(np.uint8)

    return {
        "x 0.6": gain(0.6), "x 0.75": gain(0.75), "x 1.25": gain(1.25), "x 1.4": gain(1.4),
        "warm": gain(1.1, 1.0, 0.88), "cold": gain(0.88, 1.0, 1.1),
        "blur 0.6": lambda pixels: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.6))),
        "noise 5": lambda pixels: np.clip(pixels + rng.normal(0, 5, pixels.shape) + 0.5, 0, 255).astype(np.uint8),
    }  # fmt: skip


def interval(values: list[float], rng: np.random.Generator) -> str:
    """Mean and 95 % bootstrap interval over questions."""
    sample = np.array(values, dtype=float)
    means = rng.choice(sample, (1000, len(sample))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{sample.mean():.3f} ({low:.3f} to {high:.3f})"


def main(
    defender: Annotated[Path, typer.Argument()],
    questions: Annotated[int, typer.Option()] = 240,
    tries: Annotated[int, typer.Option()] = 24,
    seed: Annotated[int, typer.Option()] = 424242,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Measure a Defender."""
    torch.set_num_threads(threads)
    vlm = LocalVLM.load(defender)
    settings = DefenderSettings(model=str(defender), prompt="{question}\n{options}", max_new_tokens=32)
    drawn = [draw(seed, "held_out", i) for i in range(questions)]
    records = [to_record(str(i), Path("none.png"), asked) for i, (_, asked) in enumerate(drawn)]
    pictures = [render(scene) for scene, _ in drawn]
    rng = np.random.default_rng(seed)

    def right(rows: list[int], shown: list[Pixels]) -> list[bool]:
        answers = ask(
            vlm, [records[i] for i in rows], [Image.fromarray(p) for p in shown], settings, batch=64
        )
        return [answer.right for answer in answers]

    everything = list(range(questions))
    clean = right(everything, pictures)
    known = [i for i in everything if clean[i]]
    print(f"clean {interval([float(r) for r in clean], rng)}", flush=True)
    for kind in KINDS:
        print(f"clean, {kind} {np.mean([clean[i] for i in everything if drawn[i][1].kind == kind]):.3f}")
    for name, change in lights(rng).items():
        after = right(everything, [change(p) for p in pictures])
        print(
            f"{name}: accuracy less clean "
            f"{interval([float(a) - float(b) for a, b in zip(after, clean, strict=True)], rng)}",
            flush=True,
        )
    result = {}
    for name, change in CHANGES.items():
        rows, shown = [], []
        for i in known:
            for _ in range(tries):
                if (scene := change(*drawn[i], rng)) is not None:
                    rows.append(i)
                    shown.append(render(scene))
        wrong = defaultdict(list)
        for i, good in zip(rows, right(rows, shown), strict=True):
            wrong[i].append(not good)
        for kind in (None, *KINDS):
            chosen = [values for i, values in wrong.items() if kind in (None, drawn[i][1].kind)]
            mean, best = [float(np.mean(v)) for v in chosen], [float(max(v)) for v in chosen]
            print(
                f"{name}, {kind or 'all'}: mean {interval(mean, rng)}, best of {tries} "
                f"{interval(best, rng)}, n {len(chosen)}",
                flush=True,
            )
            result[f"{name}, {kind or 'all'}"] = [np.mean(mean), np.mean(best)]
    print(json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
