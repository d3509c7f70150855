"""A forge in miniature: questions about light and dark pictures, players behind an endpoint who really look,
and cut-outs as distractors.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from endpoint_server import question
from sparring.config import EngineSettings, ForgeSettings
from sparring.data.convert import write_questions
from sparring.data.records import Target, VisualQuestion
from sparring.engine.screen import Screen
from sparring.forge.run import run_forge
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.endpoint import EndpointReply
from sparring.recipes.borrow import forge_settings


def light_picture(rng: np.random.Generator) -> tuple[Image.Image, bool]:
    """A picture of coarse blocks around a grey near the middle, and whether it is light: a white or black
    thing more makes many of them the other.
    """
    level = 128 + int(rng.integers(-12, 13))
    blocks = np.clip(level + rng.integers(-4, 5, (8, 8, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST)
    return image, is_light(image)


def is_light(image: Image.Image) -> bool:
    return bool(np.asarray(image).mean() > 128)


def write_light_questions(folder: Path, count: int, seed: int = 0) -> Path:
    """A JSONL file of `count` questions with their pictures; every third picture is shared by two
    questions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, questions = np.random.default_rng(seed), list[VisualQuestion]()
    for number in range(count):
        if number % 3 == 2:
            path, light = questions[-1].image, questions[-1].answer == "B"
        else:
            image, light = light_picture(rng)
            path = (folder / f"{number}.png").resolve()
            image.save(path)
        target = Target("lever", (4, 4, 20, 24))
        questions.append(
            VisualQuestion(f"q{number}", path, "Light?", ("no", "yes"), "AB"[light], (target,), "light")
        )
    return write_questions(folder / "questions.jsonl", questions)


def players(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
    """The Defender sees light; the judge counts one of everything and passes everything; the proposer wants a
    hat in a corner.
    """
    if body["model"] == "judge":
        text = question(body)
        return {
            "text": "one" if text.endswith("s?") else json.dumps({"verdict": "pass", "reason": "looks right"})
        }
    if body["model"] == "proposer":
        return {"text": json.dumps([{"object": "a red hat", "box": [600, 600, 950, 950]}])}
    return {"text": f"\\boxed{{{'AB'[is_light(image)]}}}"}


def forge_of(questions: Path, url: str, *changes: str, **given: Any) -> ForgeSettings:
    """Settings of a forge with the Defender behind that URL, the judge left out."""
    basics = [
        "attacker.model=arena/editor",
        f"defender.model='{url}#defender'",
        "defender.prompt='{question} {options}'",
        "judge.dense_weight=0",
        "batch=8",
        "stages={implant: painter, propose: {number: 2}, attempts: 3}",
    ]
    return forge_settings(
        [("data", str(questions)), *given.items()], recipe="arena", changes=[*basics, *changes]
    )


class LightVLM:
    """The Defender of `players` in this process."""

    name, device, traits = "light", torch.device("cpu"), SimpleNamespace(gives_gradients=False)

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[EndpointReply]]:
        return [[EndpointReply(f"\\boxed{{{'AB'[is_light(image)]}}}", 4, True)] for image in images]


def forge_quietly(settings: ForgeSettings, out: Path, workers: int = 1) -> dict[str, Any]:
    """Forge without a word."""
    return run_forge(
        settings, out, engine=EngineSettings(workers=workers), screen=Screen(Console(file=io.StringIO()))
    )


def forge_process(settings: str, out: str, started: Any) -> None:
    """Forge with settings given as JSON, in a process of its own; the event `started` is set when it
    begins.
    """
    started.set()
    forge_quietly(ForgeSettings.model_validate_json(settings), Path(out))
