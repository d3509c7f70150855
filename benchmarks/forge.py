"""The forge on the bundled players: records a minute with two workers against one, and the memory of a long
forge. One JSON line.

python benchmarks/forge.py [--records 320] [--pairs 3] [--memory 1000 10000]

Speed: forges with one worker and with two take turns. Counted is what lies between two batches in the midst
of a forge, when every worker has its next batches waiting: loading and the end are left out. `ours` and
`rival` are medians of wall time on the machine as it is; `ratio` is the median of the pairs. Other work on
the same cores disturbs it, which is why the bar is on `processor_ratio`: the processor time of one worker
over that of the busiest process of two workers, or over half of that of all of them, if this is more. It is
what two free cores would gain, or less: where other work holds up one worker, the other one does more than
half.

Memory: the peak of a process that forges so many records with the bundled Defender's first token as its
reply, so that all are kept. The records repeat a few pictures under new ids, each with distractors of its
own.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from _defenders import finish, report
from rich.console import Console

PICTURES = 128
# batches at the beginning and at the end that are not counted: as many as two workers have under way
EDGE = 4
SPEED = ("stages.attempts=2", "batch=8")
MEMORY = (
    "stages.attempts=1",
    "stages.right_when_clean=false",
    "stages.propose.number=1",
    "defender.max_new_tokens=1",
    "batch=16",
)


def forge(folder: str, records: int, workers: int, changes: Sequence[str]) -> dict[str, float]:
    """Forge so many scenes: wall and processor seconds a record (as in the module's text), records kept, this
    process's peak memory in MB.
    """
    from sparring.config import EngineSettings
    from sparring.engine.ledger import peak_rss_mb
    from sparring.engine.screen import Screen
    from sparring.forge.ledger import Ledger
    from sparring.forge.run import run_forge
    from sparring.recipes.borrow import forge_settings

    moments: list[tuple[float, dict[int, float]]] = []
    write = Ledger.write

    def timed(ledger: Ledger, *batch: Any) -> None:
        write(ledger, *batch)
        moments.append((time.monotonic(), processor_seconds()))

    settings = forge_settings(
        [("data", str(Path(folder) / f"{records}.jsonl"))], recipe="arena", changes=changes
    )
    with tempfile.TemporaryDirectory(dir=folder) as out, mock.patch.object(Ledger, "write", timed):
        began = time.monotonic()
        quiet, engine = Screen(Console(file=io.StringIO())), EngineSettings(workers=workers)
        funnel = run_forge(settings, Path(out), engine=engine, screen=quiet)
        seconds = time.monotonic() - began
    (start, busy_before), (end, busy) = moments[EDGE - 1], moments[-1 - EDGE]
    spent = [busy[process] - busy_before[process] for process in busy]
    counted = (len(moments) - 2 * EDGE) * settings.batch
    return {
        "wall": (end - start) / counted,
        "processor": max(*spent, sum(spent) / workers) / counted if workers > 1 else spent[0] / counted,
        "kept": funnel["records"]["kept"],
        "seconds": seconds,
        "peak_rss_mb": peak_rss_mb(),
    }


def processor_seconds() -> dict[int, float]:
    """Processor time by process: this one and its workers."""
    found = {}
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        found[int(process or 0)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def write_sources(folder: Path, sizes: set[int]) -> None:
    """Files of so many records about the same scenes, the ids told apart by a number."""
    from sparring_arena.dataset import write_questions

    path, _ = write_questions(folder, seed=0, train=PICTURES, held_out=1)
    lines = path.read_text().splitlines()
    for size in sizes:
        records = (json.loads(lines[i % PICTURES]) | {"id": f"{i}"} for i in range(size))
        (folder / f"{size}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def apart(*arguments: Any) -> dict[str, float]:
    """`forge` in a process of its own, whose memory holds nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(forge, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--records", type=int, default=320, help="records of each forge whose speed is measured"
    )
    parser.add_argument("--pairs", type=int, default=3, help="times that both are measured")
    parser.add_argument(
        "--memory",
        type=int,
        nargs=2,
        default=(1000, 10_000),
        help="records of the two measurements of memory",
    )
    options = parser.parse_args()
    few, many = options.memory
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder), {options.records, few, many})
        pairs = [
            [apart(folder, options.records, workers, SPEED) for workers in (1, 2)]
            for _ in range(options.pairs)
        ]
        load = os.getloadavg()[0]
        long = {size: apart(folder, size, 1, MEMORY) for size in (few, many)}
    ratios = {name: [one[name] / two[name] for one, two in pairs] for name in ("wall", "processor")}
    rival, ours = (statistics.median(60 / pair[place]["wall"] for pair in pairs) for place in (0, 1))
    gain, growth = (
        statistics.median(ratios["processor"]),
        long[many]["peak_rss_mb"] / long[few]["peak_rss_mb"],
    )
    case = {
        "players": "bundled Defender, cut-outs",
        "pixels": 64,
        "threads": "one a worker",
        "records": options.records,
        "memory_records": options.memory,
    }
    figures = {
        "ours": round(ours, 1),
        "rival": round(rival, 1),
        "ratio": round(statistics.median(ratios["wall"]), 2),
        "unit": "records a minute, with two workers and with one",
        "ratios": [round(ratio, 2) for ratio in ratios["wall"]],
        "processor_ratio": round(gain, 2),
        "processor_ratios": [round(ratio, 2) for ratio in ratios["processor"]],
        "load_average": round(load, 1),
        "peak_rss_mb": {size: round(own["peak_rss_mb"], 1) for size, own in long.items()},
        "memory_ratio": round(growth, 3),
        "memory_kept": {size: own["kept"] for size, own in long.items()},
        "memory_seconds": {size: round(own["seconds"]) for size, own in long.items()},
    }
    bars = {"two workers gain 1.7 where two cores are free": gain >= 1.7, "memory within 10 %": growth <= 1.1}
    finish(report("forge", case, figures, bars))


if __name__ == "__main__":
    main()
