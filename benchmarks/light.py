"""Which planted edits a guard of the light refuses: relit pictures, and edits of objects alone. One JSON
line. It needs PYTHONPATH=arena:arena/src.

python benchmarks/light.py --scenes 250
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from sparring.judging.light import excess, light_change
from sparring.measures.statistics import rate
from workshop.planted import light_cases


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenes", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--level", type=float, default=0.08)
    parser.add_argument("--spread", type=float, default=0.2)
    arguments = parser.parse_args()
    refused: dict[tuple[str, bool], list[bool]] = {}
    seconds: list[float] = []
    for case in light_cases(arguments.seed, arguments.scenes):
        start = time.perf_counter()
        change = light_change(case.clean, case.edited, case.boxes)
        seconds.append(time.perf_counter() - start)
        refused.setdefault((case.name, case.relit), []).append(
            excess(change, arguments.level, arguments.spread) > 0
        )
    line = {
        "benchmark": "light",
        "scenes": arguments.scenes,
        "seed": arguments.seed,
        "limits": {"level": arguments.level, "spread": arguments.spread},
        "refused_relit": rate(
            [hit for (_, relit), hits in refused.items() if relit for hit in hits]
        ).as_dict(),
        "refused_others": rate(
            [hit for (_, relit), hits in refused.items() if not relit for hit in hits]
        ).as_dict(),
        "refused": {name: rate(hits).as_dict() for (name, _), hits in refused.items()},
        "milliseconds": 1000 * float(np.median(seconds)),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
