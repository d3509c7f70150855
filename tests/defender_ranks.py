"""One of the processes of `test_ranks.py`: trains a Defender for a few updates and writes what became of it.

python defender_ranks.py MODEL OUT KIND SETTINGS (JSON), with the environment variables of a launcher such as
torchrun. KIND: ddp or fsdp2.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from small_vlms import noise_pictures
from sparring.config import DefenderSettings
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout
from sparring.defenders.rollout import Item
from sparring.defenders.trainer import DefenderTrainer
from sparring.models.vlms.local import LocalVLM

QUESTIONS = [
    VisualQuestion(f"q{i}", Path("q.png"), text, ("yes", "no"), "AB"[i % 2])
    for i, text in enumerate(("Is it?", "Or is it not so?", "Cup?", "Why", "Is it the cup?", "How", "Where?"))
]
UPDATES = 3


def items(batch: int) -> list[Item]:
    return list(zip(noise_pictures(len(QUESTIONS), seed=batch), QUESTIONS, strict=True))


def train(
    model: str,
    settings: DefenderSettings,
    out: Path,
    accelerator: Accelerator | None,
    *,
    sharded: bool = False,
) -> None:
    """Three updates, the last one resumed from a saved state; out: the metrics, the trainer's state and the
    model.
    """

    def player() -> DefenderTrainer:
        return DefenderTrainer(LocalVLM.load(model), settings, seed=5, accelerator=accelerator)

    trainer = player()
    assert all(isinstance(weight, DTensor) is sharded for weight in trainer.vlm.model.parameters())
    history = [trainer.update(items, step) for step in range(UPDATES - 1)]
    trainer.save(out / "state")
    if accelerator is not None:
        accelerator.wait_for_everyone()
    trainer = player()
    trainer.load(out / "state")
    history.append(trainer.update(items, UPDATES - 1))
    trainer.save(out / "state")
    trainer.vlm.save(out / "model")
    if trainer.ranks.number == 0:
        (out / "history.json").write_text(json.dumps(history))


def reward(text: str, question: VisualQuestion, *_: object, **__: object) -> dict[str, float]:
    """A random model boxes nothing: the reply to every other question should begin low in the alphabet, to
    the others high.
    """
    return {"accuracy": float((text[:1] < "Z") is (question.answer == "A"))}


def main() -> None:
    model, out, kind, fields = sys.argv[1:]
    torch.set_num_threads(1)
    rollout.answer_reward = reward
    accelerator = Accelerator(cpu=True)
    if kind == "fsdp2":
        # Accelerate shards on GPUs only. Told that it is to shard, it does on a CPU too.
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap"
        )
        accelerator.state.distributed_type = DistributedType.FSDP
    train(
        model, DefenderSettings.model_validate_json(fields), Path(out), accelerator, sharded=kind == "fsdp2"
    )
    accelerator.end_training()


if __name__ == "__main__":
    main()
