"""What a process of `test_ranks.py` does: trains a player for a few updates and writes what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.distributed.tensor import DTensor

from small_vlms import noise_pictures
from sparring.attackers.trainer import AttackerTrainer
from sparring.config import AttackerSettings, DefenderSettings
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout
from sparring.defenders.rollout import Item
from sparring.defenders.trainer import DefenderTrainer
from sparring.engine.ranks import Ranks
from sparring.models.editors import load_editor
from sparring.models.vlms.local import LocalVLM

QUESTIONS = [
    VisualQuestion(f"q{i}", Path("q.png"), text, ("yes", "no"), "AB"[i % 2])
    for i, text in enumerate(("Is it?", "Or is it not so?", "Cup?", "Why", "Is it the cup?", "How", "Where?"))
]
UPDATES = 3


def items(batch: int) -> list[Item]:
    return list(zip(noise_pictures(len(QUESTIONS), seed=batch), QUESTIONS, strict=True))


def reward(text: str, question: VisualQuestion, *_: object, **__: object) -> dict[str, float]:
    """A random model boxes nothing: the reply to every other question should begin low in the alphabet, to
    the others high.
    """
    return {"accuracy": float((text[:1] < "Z") is (question.answer == "A"))}


class Defending:
    """A Defender that learns."""

    def __init__(self, model: str, fields: Mapping[str, Any], sharded: bool) -> None:
        torch.set_num_threads(1)
        rollout.answer_reward = reward  # type: ignore[assignment]
        self.settings = DefenderSettings.model_validate(fields)
        self.model, self.ranks = model, Ranks.here(sharded=sharded)
        self.trainer = self.fresh()
        assert all(isinstance(p, DTensor) is sharded for p in self.trainer.vlm.model.parameters())

    def fresh(self) -> DefenderTrainer:
        return DefenderTrainer(LocalVLM.load(self.model), self.settings, seed=5, ranks=self.ranks)

    def update(self, step: int) -> dict[str, float]:
        return self.trainer.update(items, step)

    def write(self, folder: Path) -> None:
        self.trainer.vlm.save(folder)


class Attacking:
    """An Attacker that learns; its edits are paid for being red."""

    def __init__(self, model: str, fields: Mapping[str, Any], sharded: bool) -> None:
        torch.set_num_threads(1)
        self.settings = AttackerSettings.model_validate(fields)
        self.model, self.ranks = model, Ranks.here(sharded=sharded)
        self.trainer = self.fresh()
        assert all(isinstance(p, DTensor) is sharded for p in self.trainer.editor.transformer.parameters())

    def fresh(self) -> AttackerTrainer:
        return AttackerTrainer(load_editor(self.model), self.settings, seed=5, ranks=self.ranks)

    def update(self, step: int) -> dict[str, float]:
        count = self.settings.questions_per_step
        # of two sizes, in turns: roll-outs of one size hold questions of several processes
        images = [
            image.resize((64, 64 + 16 * (i % 2)))
            for i, image in enumerate(noise_pictures(count, seed=100 + step))
        ]
        return self.trainer.update(QUESTIONS[:count], images, redness, step)

    def write(self, folder: Path) -> None:
        if self.settings.lora is None:
            self.trainer.editor.save_pipeline(folder)
        else:
            self.trainer.editor.save_lora(folder)


def redness(edits: list[list[Image.Image]]) -> list[list[float]]:
    return [
        [float(np.asarray(edit)[..., 0].mean() - np.asarray(edit)[..., 2].mean()) / 255 for edit in own]
        for own in edits
    ]


PLAYERS = {"attacker": Attacking, "defender": Defending}
Player = Attacking | Defending


def play(kind: str, model: str, fields: Mapping[str, Any], sharded: bool) -> Player:
    return PLAYERS[kind](model, fields, sharded)


def train(player: Player, steps: list[int], out: Path) -> list[dict[str, float]]:
    """Some updates and the state after them."""
    history = [player.update(step) for step in steps]
    player.trainer.save(out / "state")
    return history


def resume(player: Player, out: Path) -> None:
    """A trainer of its own that goes on from the saved state."""
    player.trainer = player.fresh()
    player.trainer.load(out / "state")


def write(player: Player, out: Path) -> None:
    player.trainer.settle()
    player.write(out / "model")
