"""The forge on the bundled players: records a minute with one worker and with two, and the memory of a long forge. One JSON line.

python benchmarks/forge.py

Memory is the peak of a process that forges so many records with the bundled Defender, one attempt each; the records repeat a few pictures under new ids.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console


def forge(folder: str, records: int, workers: int, attempts: int) -> dict[str, float]:
    """Forge so many scenes; records a minute, less the time to load the players, and this process's peak memory in MB."""
    from sparring.engine.screen import Screen
    from sparring.forge.run import run_forge
    from sparring.recipes.forge import forge_settings
    from sparring.selfplay.ledger import peak_rss_mb

    settings = forge_settings(
        [("data", str(Path(folder) / f"{records}.jsonl")), ("batch", 16)], recipe="arena", changes=[f"stages.attempts={attempts}"]
    )
    out = Path(folder) / f"out-{records}-{workers}"
    clock = time.monotonic()
    run_forge(settings, out, workers=workers, screen=Screen(Console(file=io.StringIO())))
    seconds = time.monotonic() - clock
    return {"seconds": seconds, "peak_rss_mb": peak_rss_mb()}


def write_sources(folder: Path, sizes: set[int], pictures: int) -> None:
    """Files of so many records about the same scenes, the ids told apart by a number."""
    from sparring.scenes.dataset import write_questions

    path, _ = write_questions(folder, seed=0, train=pictures, held_out=1, sizes=(14, 26))
    lines = path.read_text().splitlines()
    for size in sizes:
        records = (json.loads(lines[i % pictures]) | {"id": f"{i}"} for i in range(size))
        (folder / f"{size}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def apart(*arguments: Any) -> dict[str, float]:
    """`forge` in a process of its own, whose memory holds nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(forge, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=256, help="records of the measurement of speed")
    parser.add_argument("--memory", type=int, nargs=2, default=(1000, 10_000), help="records of the two measurements of memory")
    arguments = parser.parse_args()
    few, many = arguments.memory
    loading = 16  # one batch: what is left when its time is taken off is forging alone
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder), {loading, arguments.records, few, many}, 128)
        minute: dict[int, float] = {}
        for workers in (1, 2):
            start = apart(folder, loading, workers, 6)["seconds"]
            minute[workers] = 60 * (arguments.records - loading) / (apart(folder, arguments.records, workers, 6)["seconds"] - start)
        memory = {size: apart(folder, size, 1, 1)["peak_rss_mb"] for size in (few, many)}
    figures = {
        "records_a_minute": {workers: round(speed, 1) for workers, speed in minute.items()},
        "speed_up": round(minute[2] / minute[1], 2),
        "peak_rss_mb": {size: round(peak, 1) for size, peak in memory.items()},
        "memory_ratio": round(memory[many] / memory[few], 3),
    }
    print(json.dumps({"benchmark": "forge", "case": "bundled Defender, cut-outs, 64 x 64 px, one thread a worker"} | figures))


if __name__ == "__main__":
    main()
