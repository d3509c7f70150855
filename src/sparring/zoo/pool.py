"""A pool of scenes on disk, drawn once, from which the bundled players are trained.

    python -m sparring.zoo.pool --out pool --scenes 100000 --seed 1

writes `pool.npy` (uint8, [scenes, SIZE, SIZE, 3]) and `pool.jsonl` (the description of each scene). Seeds 1
and 2 are for training the players; the arena draws its own scenes from other streams, so that no scene of a
game was ever seen in training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track

from sparring.scenes.world import SIZE, Scene, Thing, render, sample_scene


def main(
    out: Annotated[Path, typer.Option(help="path without ending")],
    scenes: Annotated[int, typer.Option()] = 100_000,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Draw a pool of scenes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.lib.format.open_memmap(
        out.with_suffix(".npy"), mode="w+", dtype=np.uint8, shape=(scenes, SIZE, SIZE, 3)
    )
    with out.with_suffix(".jsonl").open("w") as lines:
        for i in track(range(scenes), description="scenes"):
            scene = sample_scene(np.random.default_rng([seed, i]))
            pixels[i] = render(scene)
            lines.write(
                json.dumps(
                    {
                        "b": scene.background,
                        "t": [[t.name, t.color, t.size, t.angle, t.mirror, t.box] for t in scene.things],
                    }
                )
                + "\n"
            )
    pixels.flush()


class Pool:
    """The scenes of a pool and their pictures."""

    def __init__(self, path: Path) -> None:
        self.pixels: NDArray[np.uint8] = np.load(path.with_suffix(".npy"), mmap_mode="r")
        self.scenes: list[Scene] = []
        with path.with_suffix(".jsonl").open() as lines:
            for line in lines:
                record = json.loads(line)
                things = tuple(
                    Thing(n, c, s, a, m, (b[0], b[1], b[2], b[3])) for n, c, s, a, m, b in record["t"]
                )
                self.scenes.append(Scene(record["b"], things))
        self.pixels = self.pixels[: len(self.scenes)]

    def __len__(self) -> int:
        return len(self.scenes)

    def batches(self, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
        """Endless batches of indices, every scene at most once in each pass; at most the whole pool is one
        batch.
        """
        size = min(size, len(self))
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(len(self))
            for start in range(0, len(order) - size + 1, size):
                yield order[start : start + size]

    def images(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Pictures as float32 [B, 3, SIZE, SIZE] in [-1, 1]."""
        return torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == "__main__":
    typer.run(main)
