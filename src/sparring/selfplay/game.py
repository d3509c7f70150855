"""A game under way: its recipe, its folder, its questions, its players; what every stage is handed."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from sparring.config import EndpointSettings, Recipe, Settings
from sparring.data.errors import RecipeError, RunError
from sparring.data.images import load_image
from sparring.data.records import VisualQuestion
from sparring.rl.seeds import derive_seed
from sparring.selfplay.auditor import Auditor
from sparring.selfplay.league import League
from sparring.selfplay.ledger import Ledger
from sparring.selfplay.progress import Screen
from sparring.selfplay.stages import Stage

PACE = EndpointSettings.model_fields.keys() - {"extra_body"}
"""Settings of an endpoint that decide when and how often it is asked, not what."""


@dataclass
class Game:
    """One run. `out` is its folder; `train` and `held_out` never share an image."""

    recipe: Recipe
    out: Path
    ledger: Ledger
    screen: Screen
    league: League
    auditor: Auditor
    train: list[VisualQuestion]
    held_out: list[VisualQuestion]

    def stage(self, name: str) -> Stage:
        """The stage of that name, its folder below the run's."""
        return Stage(self.out, name, self.ledger)

    def seed(self, *where: int | str) -> int:
        """A seed that depends on the run's seed and on the place of use alone."""
        return derive_seed(self.recipe.seed, *where)

    def instruction(self, question: VisualQuestion) -> str:
        """What the Attacker's editor is told."""
        return self.recipe.attacker.instruct(question.question)


def pictures_of(questions: Sequence[VisualQuestion]) -> list[Image.Image]:
    """The questions' clean pictures, each file read once."""
    pictures = {path: load_image(path) for path in {question.image for question in questions}}
    return [pictures[question.image] for question in questions]


@contextmanager
def run_folder(
    settings: Settings, out: Path, *, file: str = "recipe.yaml", kind: str = "recipe", resume: str = "sparring run --resume {out}"
) -> Iterator[Path]:
    """Claim a folder for the run of these settings, new or resumed, for this process alone.

    The resolved settings are kept as `out/file`. The lock goes with the process, however it ends. How fast and how patiently endpoints are asked
    may change between processes. Errors: RunError if another process works in the folder or if it holds the run of other settings.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{out} is in use by another process. Wait for it, or choose another folder with --out.") from error
        stored, resolved = out / file, json.loads(settings.model_dump_json())
        if stored.is_file():
            difference = _first_difference(yaml.safe_load(stored.read_text(encoding="utf-8")), resolved)
            if difference is not None:
                raise RunError(
                    f"{out} holds the run of another {kind} ({difference}). Resume it with `{resume.format(out=out)}`, or choose another folder."
                )
        elif (out / "ledger.sqlite").exists():
            raise RunError(f"{out} holds a ledger but no {file}, so its run cannot be continued. Choose another folder with --out.")
        else:
            partial = out / f"{file}.partial"
            partial.write_text(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), encoding="utf-8")
            partial.replace(stored)
        yield out


def _first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """Where two recipes differ, in words; None where they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        passed_over = PACE if where.endswith("endpoint") else ()
        for key in [*new, *(k for k in old if k not in new)]:
            if key in passed_over:
                continue
            found = _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return None
    return None if old == new else f"{where} is {old!r} there and {new!r} here"


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("device is cuda, but torch sees no CUDA device. Use --set device=cpu or auto.")
    return torch.device(name)
