"""The viewer on 20,000 edits of 1024 x 1024 pixels: seconds to the first page, of filters, of one edit;
memory; and what a browser finds on its pages. One JSON line.

The pictures are 24 real files (photographs of scikit-image, edited), linked under 20,000 names, because as
many files of their own would be 30 GB: every name is a picture of its own to the viewer, to be reduced by
itself. Where there is no Chromium, what needs one is left out, and the line says so.

python benchmarks/view.py
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import yaml
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import chromium
from sparring.engine.ledger import Ledger, picture_name

EDITS, SIDE, FILES = 20_000, 1024, 24
QUESTIONS, GROUP = 100, 8
BOUNDS = {"first_page": 1.0, "filter": 0.5, "memory_mb": 300.0}
FILTERS: list[dict[str, str]] = [
    {"round": "1"}, {"phase": "attacker"}, {"update": "7"}, {"verdict": "rejected"}, {"kind": "add"},
    {"category": "position"}, {"fooled": "*"}, {"fooled": "base", "held": "round1"}, {"sort": "reward"},
    {"sort": "integrity", "start": "19000"},
    {"round": "1", "kind": "add", "fooled": "base", "sort": "integrity"},
]  # fmt: skip


def photographs(folder: Path) -> list[tuple[Path, Path]]:
    """(clean, edited) files of photographs, SIDE x SIDE."""
    folder.mkdir(parents=True)
    found, rng = [], np.random.default_rng(0)
    for number in range(FILES // 2):
        image = Image.fromarray((data.astronaut, data.coffee, data.chelsea)[number % 3]()).rotate(7 * number)
        clean = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        edited = clean.copy()
        edited.paste(tuple(rng.integers(0, 256, 3).tolist()), (64 * number, 200, 64 * number + 150, 380))
        paths = folder / f"{number}.png", folder / f"{number}-edited.png"
        for one, path in zip((clean, edited), paths, strict=True):
            one.save(path, compress_level=1)
        found.append(paths)
    return found


def write_run(out: Path) -> None:
    """A game with EDITS edits: updates of its first round's Attacker, and held-out play of two Defenders."""
    files = photographs(out.parent / "files")
    out.mkdir()
    recipe = {
        "name": "bench",
        "selfplay": {"rounds": 1},
        "attacker": {"steps": 20},
        "defender": {"steps": 20},
    }
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    Ledger(out).close()
    db = sqlite3.connect(out / "ledger.sqlite")
    rng = np.random.default_rng(0)
    questions = [(f"{split}-{n}", split, n) for split in ("train", "held_out") for n in range(1000)]
    box = json.dumps([{"name": "thing", "box": [100, 500, 400, 800]}])
    db.executemany(
        "INSERT INTO questions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (name, split, str(files[n % len(files)][0]), f"What is number {n}?", '["a", "b", "c"]', "A", box,
             ("position", "colour", "count")[n % 3])
            for name, split, n in questions
        ],
    )  # fmt: skip
    held_out = ["reencoded", "bootstrap", "round1", "light"]
    keys = [(f"evaluation/{name}", 0, f"held_out-{n}", 0, name) for name in held_out for n in range(1000)]
    training = EDITS - len(keys)
    for place in range(training):
        step, rest = divmod(place, QUESTIONS * GROUP)
        keys.append(
            ("round1/attacker", step, f"train-{(step * 37 + rest // GROUP) % 1000}", rest % GROUP, "round1")
        )
    edits, verdicts, answers = [], [], []
    for stage, step, question, sample, attacker in keys:
        name = picture_name(stage, step, question, sample)
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[int(question.rpartition("-")[2]) % len(files)][1], path)
        edits.append((stage, step, question, sample, attacker, "add something", 7, name))
        intact, wrong = bool(rng.random() < 0.85), bool(rng.random() < 0.3)
        trained = stage.startswith("round")
        notes = json.dumps(
            {"relit": 0.0, "reward_bonus": 0.1, "reward_efficacy": 0.5 * wrong, "answers": 1.0}
        )
        verdicts.append(
            (stage, step, question, sample, rng.random(), intact, 0, intact, float(wrong and trained),
             rng.random(), rng.random(), None if trained else 1, notes)
        )  # fmt: skip
        for defender in ("base",) if trained else ("base", "round1"):
            if intact or attacker == "reencoded":
                right = not wrong if defender == "base" else bool(rng.random() < 0.8)
                said = ("so it is \\boxed{A}", "A" if right else "B", "boxed", right, None, 9, "{}")
                answers.append((stage, step, question, sample, 0, defender, *said))
    for defender in ("base", "round1"):
        said = ("so it is \\boxed{A}", "A", "boxed", 1, None, 9, "{}")
        answers += [("evaluation/clean", 0, f"held_out-{n}", 0, 0, defender, *said) for n in range(1000)]
    for table, rows in (("edits", edits), ("verdicts", verdicts), ("answers", answers)):
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    kinds = {f"held_out-{n}": ("add", "remove", "replace", "hybrid")[n % 4] for n in range(1000)}
    stages = [(f"evaluation/{name}", "done", 9.0, json.dumps({"kinds": kinds})) for name in held_out]
    stages += [
        (f"evaluation/{name}/{d}", "done", 1.0, "{}")
        for name in ("clean", *held_out)
        for d in ("base", "round1")
    ]
    stages += [("round0/clean", "done", 1.0, "{}"), ("round1/attacker", "running", 0.0, "{}")]
    db.executemany("INSERT INTO stages VALUES (?, ?, ?, ?)", stages)
    metrics = [json.dumps({"reward_mean": v, "fooled": v / 2, "grad_norm": 1 + v}) for v in rng.random(20)]
    db.executemany("INSERT INTO updates VALUES ('round1/attacker', ?, ?)", list(enumerate(metrics)))
    db.commit()
    db.close()


def seconds(address: str) -> tuple[float, bytes]:
    """The time until an answer has come whole, and the answer."""
    began = time.perf_counter()
    with urllib.request.urlopen(address) as answer:
        content = answer.read()
    return time.perf_counter() - began, content


def memory_mb(process: int) -> float:
    """The largest resident memory of a process so far."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def in_a_browser(base: str) -> dict[str, Any]:
    """Times as a person has them, and what is wrong with the pages."""
    if chromium.chromium() is None:
        return {"browser": "no Chromium here"}
    found: dict[str, Any] = {"faults": []}
    with chromium.browser(width=1440, height=900) as driver:
        began = time.perf_counter()
        driver.get(f"{base}fight?run=bench")
        found["browser_page"] = round(time.perf_counter() - began, 2)
        images = "[...document.querySelectorAll('.thumb img')]"
        seen = f"{images}.filter(e => e.getBoundingClientRect().top < innerHeight)"
        chromium.wait(driver, f"{seen}.length && {seen}.every(e => e.complete && e.naturalWidth)", 60)
        found["browser_pictures_made_and_shown"] = round(time.perf_counter() - began, 2)
        began = time.perf_counter()
        driver.get(f"{base}fight?run=bench")
        chromium.wait(driver, f"{seen}.length && {seen}.every(e => e.complete && e.naturalWidth)", 60)
        found["browser_pictures_shown_again"] = round(time.perf_counter() - began, 2)
        edit = driver.execute_script("return document.querySelector('.tile').href")
        views = [base, f"{base}fight?run=bench&sort=oldest&start={EDITS - 6}", edit] + [
            f"{base}{view}?run=bench" for view in ("now", "outcome", "compare")
        ]
        for address in views:
            driver.get(address)
            for fault in (
                chromium.unreachable,
                chromium.nameless,
                chromium.foreign_requests,
                chromium.errors,
            ):
                found["faults"] += [f"{fault.__name__} {address}: {text}" for text in fault(driver)]
    for width, dark in ((400, False), (400, True), (900, True), (1600, False)):
        with chromium.browser(width=width, dark=dark) as driver:
            for address in views:
                driver.get(address)
                found["faults"] += [
                    f"faint {address} {width} {dark}: {text}" for text in chromium.faint(driver).items()
                ]
                if (excess := chromium.too_wide(driver)) > 0:
                    found["faults"].append(f"{address} is {excess} pixels wider than {width}")
    return found


def main() -> None:
    """Print the figures, and fail where one is beyond its bound."""
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "runs", Path(folder) / "cache"
        root.mkdir()
        write_run(root / "bench")
        with chromium.viewer(root, cache) as (base, process):
            first, page = seconds(f"{base}fight?run=bench")
            assert b"20\xe2\x80\xaf000" in page
            filters = {
                " ".join(f"{k}={v}" for k, v in own.items()): seconds(
                    f"{base}fight?{urlencode({'run': 'bench'} | own)}"
                )[0]
                for own in FILTERS
            }
            figures: dict[str, Any] = {
                "edits": EDITS,
                "first_page": first,
                "filter": max(filters.values()),
                "slowest_filter": max(filters, key=filters.__getitem__),
                **in_a_browser(base),
            }
            keys = {"run": "bench", "stage": "round1/attacker", "step": "3", "sample": "0"}
            times = []
            for number in range(12):
                key = keys | {"question": f"train-{(3 * 37 + number) % 1000}"}
                times.append(seconds(f"{base}edit?{urlencode(key)}")[0])
                for side in ("before", "after", "gap", "unlit"):
                    seconds(f"{base}picture?{urlencode(key | {'side': side})}")
            figures["edit"] = float(np.median(times))
            figures["outcome"], figures["now"] = (
                seconds(f"{base}{v}?run=bench")[0] for v in ("outcome", "now")
            )
            figures["memory_mb"] = memory_mb(process.pid)
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}))
    beyond = [
        f"{name} {figures[name]:.3g} is above {bound}"
        for name, bound in BOUNDS.items()
        if figures[name] > bound
    ]
    if beyond or figures.get("faults"):
        raise SystemExit("\n".join([*beyond, *figures.get("faults", [])]))


if __name__ == "__main__":
    main()
