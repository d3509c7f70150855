"""Evaluation: the harness's time beyond the model's own generate at batch size 8, and memory over a suite of 4K pictures. One JSON line.

`overhead` is the share of a run's time that is not spent inside generate: pictures, keys, the cache, scoring and results. The pictures are the
bundled world's, the model is the bundled Defender. `memory_mb_first`, `memory_mb_last`: resident memory after a quarter and at the end of 200 pictures of
3840 x 2160 pixels, shown to a model that answers at once.

python benchmarks/eval_overhead.py
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from sparring.engine.screen import Screen
from sparring.eval_command import eval_settings
from sparring.evaluation.harness import Generation, Harness, Query
from sparring.evaluation.items import PictureFile
from sparring.evaluation.run import run_evaluation
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.local import LocalVLM
from sparring.recipes.load import load_recipe
from sparring.scenes.dataset import write_questions

BATCH, LARGE = 8, (3840, 2160)


@dataclass(frozen=True)
class Reply:
    text: str = "A"
    tokens: int = 1
    finished: bool = True


class Instant:
    """A model that answers at once."""

    name, device = "instant", torch.device("cpu")

    def generate(self, images: Sequence[Any], prompts: Sequence[str], **how: Any) -> list[list[Reply]]:
        return [[Reply()] for _ in prompts]


def overhead(folder: Path, questions: int) -> dict[str, Any]:
    """One run, timed outside and inside generate."""
    _, path = write_questions(folder, seed=0, train=1, held_out=questions)
    recipe = load_recipe("arena")
    vlm, inside = LocalVLM.load(recipe.defender.model), 0.0
    generate = vlm.generate

    def timed(*arguments: Any, **how: Any) -> Any:
        nonlocal inside
        began = time.perf_counter()
        try:
            return generate(*arguments, **how)
        finally:
            inside += time.perf_counter() - began

    vlm.generate = timed  # type: ignore[method-assign]
    settings = eval_settings([("suite", "custom"), ("data", str(path)), ("batch", BATCH)], recipe="arena")
    out = folder / "out"
    out.mkdir()
    began = time.perf_counter()
    run_evaluation(settings, out, Screen(Console(file=io.StringIO())), torch.device("cpu"), vlm)
    whole = time.perf_counter() - began
    return {"overhead": round((whole - inside) / inside, 4), "questions": questions, "batch": BATCH}


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def memory(folder: Path, pictures: int) -> dict[str, Any]:
    """Resident memory over a suite of large pictures. Each of 20 files is shown often, and decoded every time."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(20):
        blocks = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)).resize(LARGE, Image.Resampling.NEAREST)
        paths.append(folder / f"{number}.jpg")
        blocks.save(paths[-1], quality=60)
    harness = Harness(Instant(), AnswerCache(folder / "answers.sqlite"), {"model": "instant"}, Generation(1), BATCH)  # type: ignore[arg-type]
    used = [resident() for _ in harness.ask(Query(f"{k}", (PictureFile(paths[k % 20]),), f"{k}?") for k in range(pictures))]
    return {
        "pictures_4k": pictures,
        "memory_mb_first": round(max(used[: len(used) // 4])),
        "memory_mb_last": round(max(used[len(used) // 4 :])),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=160)
    parser.add_argument("--pictures", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        figures = overhead(Path(first), arguments.questions) | memory(Path(second), arguments.pictures)
    print(json.dumps({"benchmark": "evaluation harness", **figures}))


if __name__ == "__main__":
    main()
