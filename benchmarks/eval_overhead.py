"""Evaluation: the harness's time beyond the model's own generate at batch size 8, and memory over a suite of
4K pictures. Two JSON lines.

Time: `ours` is the whole evaluation, `rival` the part of it inside generate, in seconds; what is between
them is done for pictures, keys, the cache, scoring and results. Pictures are decoded, hashed and made small
while the model answers: `processor_ratio` counts that too (processor time of all threads to that of
generate). An evaluation of one question goes before, so that no library is loaded meanwhile. The pictures
are the bundled world's, the model is the bundled Defender. Bar: a ratio of at most 1.05.

Memory: resident memory in MB over 200 pictures of 3840 x 2160 pixels, shown to a model that answers at once,
read after every batch; `ours` is the median of the second half, `rival` that of the first. (A picture that
is being decoded at such a moment adds its 25 MB or more; `highest` tells.) Bar: a ratio of at most 1.05.

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
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from sparring.asking.desk import Desk, Query
from sparring.benchmarks.items import PictureFile
from sparring.benchmarks.run import run_evaluation
from sparring.config import EngineSettings
from sparring.engine.crew import Alone, Engine
from sparring.engine.screen import Screen
from sparring.eval_command import eval_settings
from sparring.models.vlms.answer_cache import AnswerCache
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.traits import LocalTraits
from sparring.recipes.load import load_recipe
from sparring_arena.dataset import write_questions

BATCH, LARGE = 8, (3840, 2160)
MOST = 1.05


@dataclass(frozen=True)
class Reply:
    text: str = "A"
    tokens: int = 1
    finished: bool = True


class Instant:
    """A model that answers at once."""

    name, device = "instant", torch.device("cpu")

    traits = LocalTraits("instant", "none", folder=lambda: None, processor=lambda: None)

    def try_each(
        self, images: Sequence[Any], prompts: Sequence[str], sampling: Sampling, **_: Any
    ) -> list[Reply]:
        return [Reply() for _ in prompts]


def overhead(folder: Path, questions: int) -> dict[str, Any]:
    """One run, timed outside and inside generate."""
    single, path = write_questions(folder, seed=0, train=1, held_out=questions)
    recipe = load_recipe("arena")
    vlm, inside, inside_processor = LocalVLM.load(recipe.defender.model), 0.0, 0.0
    generate = vlm.generate

    def timed(*arguments: Any, **how: Any) -> Any:
        nonlocal inside, inside_processor
        began, began_processor = time.perf_counter(), time.thread_time()
        try:
            return generate(*arguments, **how)
        finally:
            inside, inside_processor = (
                inside + time.perf_counter() - began,
                inside_processor + time.thread_time() - began_processor,
            )

    vlm.generate = timed  # type: ignore[method-assign]
    for data in (single, path):
        settings = eval_settings(
            [("suite", "custom"), ("data", str(data)), ("batch", BATCH), ("threads", 1)], recipe="arena"
        )
        out, inside, inside_processor = folder / f"evaluated-{data.stem}", 0.0, 0.0
        out.mkdir()
        began, began_processor = time.perf_counter(), time.process_time()
        screen = Screen(Console(file=io.StringIO()))
        run_evaluation(settings, out, screen, Engine(EngineSettings(), torch.device("cpu"), screen.warn), vlm)
    whole, whole_processor = time.perf_counter() - began, time.process_time() - began_processor
    return {
        "ours": round(whole, 2),
        "rival": round(inside, 2),
        "ratio": round(whole / inside, 4),
        "unit": "seconds",
        "processor_ratio": round(whole_processor / inside_processor, 4),
    }


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def memory(folder: Path, pictures: int) -> dict[str, Any]:
    """Resident memory over a suite of large pictures. Each of 20 files is shown often, and decoded every
    time.
    """
    rng = np.random.default_rng(0)
    paths = []
    for number in range(20):
        blocks = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)).resize(
            LARGE, Image.Resampling.NEAREST
        )
        paths.append(folder / f"{number}.jpg")
        blocks.save(paths[-1], quality=60)
    instant, cache = Instant(), AnswerCache(folder / "answers.sqlite")
    desk = Desk(instant.traits, lambda: Alone(instant), Sampling(1), BATCH, cache, {"model": "instant"})  # type: ignore[arg-type, return-value]
    used = [
        resident()
        for _ in desk.ask(Query(f"{k}", (PictureFile(paths[k % 20]),), f"{k}?") for k in range(pictures))
    ]
    half = max(1, len(used) // 2)
    first, rest = median(used[:half]), median(used[half:])
    figures = {
        "ours": round(rest),
        "rival": round(first),
        "ratio": round(rest / first, 4),
        "unit": "MB of resident memory",
    }
    return figures | {"highest": [round(max(used[:half])), round(max(used[half:]))]}


def report(case: dict[str, Any], figures: dict[str, Any], bars: dict[str, bool]) -> None:
    """Print one result as a JSON line."""
    print(json.dumps({"benchmark": "evaluation harness", "case": case, **figures, "met": bars}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=160)
    parser.add_argument("--pictures", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        time_figures = overhead(Path(folder), arguments.questions)
    case = {
        "measure": "time",
        "model": "arena/defender",
        "questions": arguments.questions,
        "batch": BATCH,
        "pixels": [64, 64],
        "threads": 1,
    }
    report(case, time_figures, {"overhead at most 5 %": time_figures["ratio"] <= MOST})
    with tempfile.TemporaryDirectory() as folder:
        memory_figures = memory(Path(folder), arguments.pictures)
    case = {"measure": "memory", "pictures": arguments.pictures, "pixels": list(LARGE), "batch": BATCH}
    report(case, memory_figures, {"memory is constant": memory_figures["ratio"] <= MOST})


if __name__ == "__main__":
    main()
