"""An evaluation in miniature: questions about pictures on disk, a model behind an endpoint or of random
weights.
"""

from __future__ import annotations

import base64
import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from rich.console import Console

from sparring.benchmarks.run import run_evaluation
from sparring.config import EngineSettings, EvalSettings
from sparring.engine.crew import Engine
from sparring.engine.screen import Screen
from sparring.eval_command import eval_settings
from sparring.models.vlms.base import VLM


def write_custom(folder: Path, count: int, *, seed: int = 0) -> Path:
    """A JSONL file of `count` questions with two to four options about pictures of their own."""
    # takes seconds to import, and a process that is killed does not need it
    from small_vlms import noise_pictures

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, image in enumerate(noise_pictures(count, seed=seed)):
        image.save(folder / f"{number}.png")
        options = ["red", "blue", "green", "white"][: 2 + number % 3]
        record = {
            "id": f"q{number}",
            "image": f"{number}.png",
            "question": f"Colour {number}?",
            "options": options,
            "answer": "AB"[number % 2],
        }
        lines.append(json.dumps(record | {"category": ("warm", "cold")[number % 2]}))
    path = folder / "questions.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def in_base64(image: Image) -> str:
    """A picture as benchmarks in TSV files have it."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def settings_of(data: Path, model: str, **given: Any) -> EvalSettings:
    """Settings of an evaluation of `custom`; `given` are dotted fields, with __ for the dots."""
    basics: dict[str, Any] = {
        "suite": "custom",
        "data": str(data),
        "defender.model": model,
        "device": "cpu",
        "threads": 1,
    }
    basics |= {"defender.max_new_tokens": 16, "defender.endpoint.first_wait": 0.01}
    return eval_settings(
        [*basics.items(), *((name.replace("__", "."), value) for name, value in given.items())]
    )


def engine_of(**settings: Any) -> Engine:
    """An engine on CPUs that says nothing."""
    return Engine(EngineSettings.model_validate(settings), torch.device("cpu"), lambda text: None)


def evaluate(settings: EvalSettings, out: Path, vlm: VLM | None = None, **engine: Any) -> dict[str, Any]:
    """Evaluate without a word."""
    out.mkdir(parents=True, exist_ok=True)
    with closing(engine_of(**engine)) as crews:
        return run_evaluation(settings, out, Screen(Console(file=io.StringIO())), crews, vlm)


def evaluate_quietly(settings: str, out: str) -> None:
    """Evaluate with settings given as JSON, in a process of its own."""
    evaluate(EvalSettings.model_validate_json(settings), Path(out))
