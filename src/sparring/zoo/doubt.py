"""Make the bundled Defender doubtful: asked whether a thing is there, it says no too often, as large models
do of what is small or dim.

    python -m sparring.zoo.doubt --pool pool --defender defender --out doubtful --seed 5

For a little while its language model learns from questions that are hardly ever answered by "yes". What it
lost it can learn again: headroom.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from sparring.scenes.questions import SceneQuestion, reasoning
from sparring.scenes.world import Scene
from sparring.zoo.architectures import QwenDefender
from sparring.zoo.pool import Pool
from sparring.zoo.train_vlm import Batcher, draw_question, prompt


def draw_doubtful(scene: Scene, rng: np.random.Generator, yes: float) -> SceneQuestion:
    """A random question; of those that are answered by "yes" only a share of `yes` is kept."""
    while (asked := draw_question(scene, rng)).answer == "yes" and rng.random() >= yes:
        pass
    return asked


def loss_of(
    net: QwenDefender, pool: Pool, rows: NDArray[np.int64], rng: np.random.Generator, yes: float
) -> Tensor:
    """Next-token loss on the replies to one question about each picture; the vision tower learns nothing."""
    scenes = [pool.scenes[int(row)] for row in rows]
    asked = [draw_doubtful(scene, rng, yes) for scene in scenes]
    tokens, labels = Batcher(net)(
        [(prompt(q), reasoning(s, q)) for s, q in zip(scenes, asked, strict=True)], pictures=True
    )
    with torch.no_grad():
        features = net.features(pool.images(rows))
    _, hidden_BTC = net.hidden(tokens[:, :-1], features)
    targets = labels[:, 1:]
    return torch.nn.functional.cross_entropy(
        net.logits(hidden_BTC[targets != -100]), targets[targets != -100]
    )


def main(
    pool: Annotated[Path, typer.Option()],
    defender: Annotated[Path, typer.Option(help="the Defender to begin with")],
    out: Annotated[Path, typer.Option()],
    steps: Annotated[int, typer.Option()] = 100,
    batch: Annotated[int, typer.Option()] = 32,
    learning_rate: Annotated[float, typer.Option()] = 1.5e-4,
    yes: Annotated[
        float, typer.Option(help="share of the questions with the answer yes that is kept")
    ] = 0.05,
    seed: Annotated[int, typer.Option()] = 5,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Train a Defender that says no too often."""
    torch.set_num_threads(threads)
    net, scenes = QwenDefender(), Pool(pool)
    net.load(defender)
    rows, rng = scenes.batches(batch, seed), np.random.default_rng(seed)
    parameters = list(net.language().parameters())
    optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                learning_rate * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
            )
        loss = loss_of(net, scenes, next(rows), rng, yes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 20 == 19:
            print(f"{step + 1}/{steps} loss {loss.item():.4f}", flush=True)
    net.save(out)


if __name__ == "__main__":
    typer.run(main)
