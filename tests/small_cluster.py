"""The tiny game on three simulated machines of one CPU each, under fire: its actors, machines and driver are
killed at random moments, and it must end as the game of one process does.

python tests/small_cluster.py FOLDER [--kills 20] [--drivers 10] [--rounds 2] [--pause 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from safetensors.torch import load_file

from small_game import game_recipe, play_quietly, write_game_questions, write_players
from sparring.config import Recipe

MACHINE = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "include_dashboard": False}


def recipe_of(players: Path, questions: Path, *, rounds: int = 1, **engine: Any) -> Recipe:
    """AdamW makes steps of a learning rate's size of the rounding of next to nothing: small ones, then."""
    attacker, defender = {"learning_rate": 3e-4}, {"learning_rate": 1e-5}
    return game_recipe(players, questions, rounds=rounds, attacker=attacker, defender=defender, engine=engine)


# ---- is it the same game?


def rates(value: Any) -> Any:
    """A summary without what depends on the machine, on deaths, or on the last digits."""
    if isinstance(value, dict):
        return {
            key: rates(inner)
            for key, inner in value.items()
            if key not in ("wall_seconds", "peak_rss_mb", "restarts", "reward", "sharpness")
        }
    return [rates(inner) for inner in value] if isinstance(value, list) else value


def judged(out: Path) -> list[tuple[Any, ...]]:
    """All verdicts and answers, without the last digits of probabilities."""
    with closing(sqlite3.connect(f"{(out / 'ledger.sqlite').as_uri()}?mode=ro", uri=True)) as ledger:
        verdicts = ledger.execute(
            "SELECT stage, step, question_id, sample, intact, duplicate, accepted, efficacy, label_valid FROM verdicts"
        ).fetchall()
        answers = ledger.execute(
            "SELECT stage, step, question_id, sample, trial, defender, text FROM answers"
        ).fetchall()
    return sorted(verdicts + answers, key=repr)


def require_same(one: Path, other: Path) -> None:
    """The same figures, verdicts and answers; weights equal to 1e-5."""
    first, second = (rates(json.loads((out / "summary.json").read_text())) for out in (one, other))
    assert first == second
    require_same_training(one, other)


def require_same_training(one: Path, other: Path, beyond: float = 0.0) -> None:
    """The same verdicts and answers; weights equal to 1e-5, but for a share `beyond` of a file's, and all of
    them together apart by at most 1e-4 of their norm: where a gradient is next to nothing, AdamW makes steps
    of the learning rate's size of its rounding, which is another on other processors.
    """
    assert judged(one) == judged(other)
    files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(other) for path in other.rglob("*.safetensors"))
    for file in files:
        here, there = load_file(one / file), load_file(other / file)
        names = [name for name in here if not name.startswith(("exp_avg", "step/"))]
        apart = {name: int(((here[name] - there[name]).abs() > 1e-5).sum()) for name in names}
        most = beyond * sum(here[name].numel() for name in names)
        assert sum(apart.values()) <= most, (file, {name: n for name, n in apart.items() if n})
        distance = sum(float((here[name] - there[name]).double().square().sum()) for name in names)
        norm = sum(float(here[name].double().square().sum()) for name in names)
        assert distance <= 1e-8 * norm, (file, distance, norm)


# ---- machines, and who runs on them


@contextmanager
def three_machines() -> Iterator[Any]:
    """A Ray cluster of three simulated machines of one CPU each; the driver's is the first."""
    import ray
    from ray.cluster_utils import Cluster

    # With Ray's own niceness workers would wait for whatever else the machine does.
    own = {"RAY_worker_niceness": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    with mock.patch.dict(os.environ, own):
        cluster = Cluster(initialize_head=True, head_node_args=MACHINE)
        try:
            for _ in range(2):
                cluster.add_node(**MACHINE)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def actors_of(cluster: Any) -> list[int]:
    """Processes of actors on the cluster's machines."""
    raylets = {
        info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes.get("raylet", [])
    }
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in raylets and (folder / "cmdline").read_bytes().startswith(b"ray::Actor"):
                    found.append(int(folder.name))
    return sorted(found)


@contextmanager
def driving(recipe: Recipe, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that plays a game, or goes on with it; killed at the block's end."""
    play = f"from small_game import play_quietly; play_quietly({recipe.model_dump_json()!r}, {str(out)!r})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    driver = subprocess.Popen([sys.executable, "-c", play], env=environment)
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


def running(out: Path) -> tuple[str, int]:
    """The stage under way, and how many updates it has done."""
    if not (out / "ledger.sqlite").is_file():
        return "", 0
    with closing(sqlite3.connect(f"{(out / 'ledger.sqlite').as_uri()}?mode=ro", uri=True)) as ledger:
        try:
            row = ledger.execute(
                "SELECT name FROM stages WHERE status = 'running' ORDER BY rowid DESC"
            ).fetchone()
            if row is None:
                return "", 0
            (done,) = ledger.execute("SELECT count(*) FROM updates WHERE stage = ?", row).fetchone()
            return row[0], done
        except sqlite3.OperationalError:  # no tables yet
            return "", 0


def wait_for(condition: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def stages_of(out: Path) -> list[str]:
    """The stages that have begun, in order."""
    if not (out / "ledger.sqlite").is_file():
        return []
    with closing(sqlite3.connect(f"{(out / 'ledger.sqlite').as_uri()}?mode=ro", uri=True)) as ledger:
        try:
            return [name for (name,) in ledger.execute("SELECT name FROM stages ORDER BY rowid")]
        except sqlite3.OperationalError:  # no tables yet
            return []


# ---- under fire


@dataclass(frozen=True)
class Death:
    """Who dies: "actor", "machine" or "driver"; so many seconds after actors were there in that stage."""

    who: str
    stage: str
    after: float


def drawn_deaths(kills: int, drivers: int, stages: Sequence[str], pause: float, seed: int) -> list[Death]:
    """Deaths of actors and machines, and of the driver, at random moments of a game with these stages; the
    last fifth is spared, so that a game does not end before all have died.
    """
    draw, stages = random.Random(seed), stages[: 4 * len(stages) // 5]
    who = [draw.choice(["actor", "actor", "machine"]) for _ in range(kills)] + ["driver"] * drivers
    places = sorted(draw.randrange(len(stages)) for _ in who)
    draw.shuffle(who)
    return [Death(one, stages[i], draw.uniform(0, pause)) for one, i in zip(who, places, strict=True)]


def under_fire(recipe: Recipe, out: Path, cluster: Any, deaths: Sequence[Death]) -> None:
    """Play a game on the cluster to its end, whoever dies meanwhile. A machine that died is replaced by
    another one. AssertionError where the driver fails, or where the game ends before all have died.
    """
    draw, left = random.Random(len(deaths)), deque(deaths)
    while True:
        with driving(recipe, out) as driver:

            def due() -> bool:
                return driver.poll() is not None or bool(
                    left[0].stage in stages_of(out) and actors_of(cluster)
                )

            while left:
                wait_for(due, 1800)
                time.sleep(left[0].after)
                assert driver.poll() is None, f"the driver ended ({driver.returncode}) before {left}"
                actors = actors_of(cluster)
                if left[0].who == "actor" and not actors:
                    continue  # the crew has just been let go
                death = left.popleft()
                print(f"{time.strftime('%X')} {death} in {running(out)}", file=sys.stderr, flush=True)
                if death.who == "driver":
                    break
                if death.who == "actor":
                    with suppress(ProcessLookupError):
                        os.kill(draw.choice(actors), signal.SIGKILL)
                else:
                    machines = sorted(cluster.worker_nodes, key=lambda node: node.unique_id)
                    cluster.remove_node(draw.choice(machines), allow_graceful=False)
                    cluster.add_node(**MACHINE)
            else:
                assert driver.wait() == 0
                return
        wait_for(lambda: not actors_of(cluster), 300)  # nobody outlives the driver


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="players and games are kept there, and not made twice")
    parser.add_argument("--kills", type=int, default=20, help="of actors and machines")
    parser.add_argument("--drivers", type=int, default=10, help="kills of the driver")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pause", type=float, default=20, help="seconds at most until somebody dies")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    root, began = options.folder.resolve(), time.monotonic()
    players, questions = root / "players", root / "questions/questions.jsonl"
    if not (players / "judge").is_dir():
        write_players(players)
        write_game_questions(questions.parent, 48)
    alone = recipe_of(players, questions, rounds=options.rounds)
    play_quietly(alone.model_dump_json(), str(root / "alone"))
    stages = stages_of(root / "alone")
    deaths = drawn_deaths(options.kills, options.drivers, stages, options.pause, options.seed)
    with three_machines() as cluster:
        engine = {"kind": "ray", "workers": 2, "address": cluster.address, "restarts": len(deaths)}
        crew = recipe_of(players, questions, rounds=options.rounds, **engine)
        under_fire(crew, root / "fire", cluster, deaths)
    require_same(root / "alone", root / "fire")
    restarts = json.loads((root / "fire/summary.json").read_text())["restarts"]
    minutes = round((time.monotonic() - began) / 60, 1)
    died = Counter(death.who for death in deaths)
    print(json.dumps({"same": True, "deaths": died, "restarts": restarts, "minutes": minutes}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
