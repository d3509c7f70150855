"""What trackers are told of a game: the ledger's values, under the documented names, once."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import time
from collections.abc import Collection, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from report.fake_run import write_fake_run
from small_game import game_recipe, play_quietly
from small_workers import process
from sparring.config import Recipe
from sparring.data.records import Edit
from sparring.engine.ledger import BEGUN, Ledger
from sparring.engine.screen import Screen
from sparring.engine.trackers import Trackers
from sparring.recipes.paths import with_absolute_paths
from sparring.report.training import LABELS
from sparring.selfplay.game import Game
from sparring.selfplay.loop import run_game
from sparring.selfplay.track import track_updates
from sparring.selfplay.utilisation import utilisation_of
from tracker_files import Told, tensorboard

PAGE = Path(__file__).parents[2] / "docs/track.md"
NAMES = re.findall(
    r"^\| (`\w+/.*?) \|.*?\| (.*?) ?\|$", PAGE.read_text(encoding="utf-8").partition("## Names")[2], re.M
)
DOCUMENTED = {name: when for names, when in NAMES for name in re.findall(r"`(.*?)`", names)}
"""Name -> when there is such a value; "" for always."""
STAGES = ("round0/bootstrap", "round1/attacker", "round1/defender", "round2/attacker", "round2/defender")


def is_documented(name: str) -> bool:
    patterns = (re.sub("[A-Z]+", r"\\w+", documented) for documented in DOCUMENTED)
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def ledger_s(out: Path) -> dict[tuple[str, int], Mapping[str, float]]:
    """(stage, step) -> metrics, read by SQL."""
    with closing(sqlite3.connect(out / "ledger.sqlite")) as db:
        rows = db.execute("SELECT stage, step, metrics FROM updates").fetchall()
    return {(stage, step): json.loads(metrics) for stage, step, metrics in rows}


def tracked(told: Told, torn: Collection[int] = ()) -> dict[tuple[str, int], dict[str, float]]:
    """The same of what a tracker was told; a step that came twice is an error. torn: rows that a kill may
    have cut short.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}
    for phase in ("bootstrap", "attacker", "defender"):
        names = [name for name in told if name.startswith(f"{phase}/")]
        axes = [dict(told.get(f"{phase}/{axis}", [])) for axis in ("round", "update")]
        for name in names:
            assert len(dict(told[name])) == len(told[name]), f"{name} has a step twice"
            for step, value in told[name]:
                if step in torn:
                    continue
                key = (f"round{int(axes[0][step])}/{phase}", int(axes[1][step]))
                found.setdefault(key, {})[name.partition("/")[2]] = value
    return found


def test_every_metric_that_a_report_knows_is_documented() -> None:
    assert len(DOCUMENTED) > 70
    known = {name.partition("/")[2] for name in DOCUMENTED}
    assert not LABELS.keys() - known


@pytest.mark.parametrize("peak", [None, 0.5])
def test_updates_are_told_from_the_ledger_with_their_pace(tmp_path: Path, peak: float | None) -> None:
    """The pace only of updates whose predecessor the same process did; how well it used a device where a
    peak is stated.
    """
    asked = write_fake_run(tmp_path, held_out=4, rounds=1, steps=4).questions
    recipe = Recipe.model_validate(yaml.safe_load((tmp_path / "recipe.yaml").read_text()))
    engine = recipe.engine.model_copy(update={"peak_tflops": peak})
    recipe = recipe.model_copy(update={"track": ["tensorboard"], "engine": engine, "device": "cpu"})
    recipe = with_absolute_paths(recipe, tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db, db:
        db.execute("DELETE FROM times")
        at = {BEGUN: 21.0, 0: 10.0, 1: 14.0, 2: 30.0, 3: 32.0}  # resumed before update 2
        rows = [("round1/attacker", step, seconds) for step, seconds in at.items()]
        db.executemany("INSERT INTO times VALUES (?, ?, ?)", rows)
    absent, made = (
        cast("Any", None),
        [Edit(asked[0].id, "round1", "", seed, Image.new("RGB", (8, 8))) for seed in range(6)],
    )
    with closing(Ledger(tmp_path)) as ledger:
        ledger.record_edits("round1/attacker", 3, made, samples=range(6))
    with closing(Ledger(tmp_path)) as ledger, closing(Trackers(recipe, tmp_path, pytest.fail)) as trackers:
        players = recipe, absent, absent, absent
        game = Game(*players, tmp_path, ledger, absent, absent, asked, [], trackers)
        track_updates(game)
        track_updates(game)
    told = tracked(tensorboard(tmp_path / "track"))
    for key, metrics in ledger_s(tmp_path).items():
        assert {name: told[key][name] for name in metrics} == pytest.approx(metrics)
    paces = {step: told["round1/attacker", step].get("seconds") for step in range(4)}
    assert paces == {0: None, 1: None, 2: None, 3: 2.0}
    last = told["round1/attacker", 3]
    assert last["edits_per_second"] == 3
    used = utilisation_of(recipe, asked)
    if peak is None:
        assert used is None
        assert not any("utilisation" in name for row in told.values() for name in row)
    else:
        assert used is not None
        share = used.of_attacker(6, ledger_s(tmp_path)["round1/attacker", 3], 2.0)
        assert share is not None
        assert 0 < last["model_flops_utilisation"] == pytest.approx(share)
        assert "model_flops_utilisation" not in told["round1/attacker", 2]


def play_and_be_killed(recipe: Recipe, out: Path, stage: str, updates: int) -> dict[int, str]:
    """SIGKILL once the ledger shows so many updates of a stage; the last row that was noted until then, which
    may have been told in part: {number: key}.
    """
    with process(play_quietly, recipe.model_dump_json(), str(out)) as player:
        while player.is_alive():
            time.sleep(0.01)
            with suppress(sqlite3.OperationalError):  # the ledger is not there yet
                if sum(name == stage for name, _ in ledger_s(out)) >= updates:
                    player.kill()
                    player.join()
                    assert not (out / stage / "done.json").exists(), f"{stage} was over before the kill"
                    with closing(sqlite3.connect(out / "track/rows.sqlite")) as db:
                        return dict(db.execute("SELECT number, key FROM rows ORDER BY number DESC LIMIT 1"))
    raise AssertionError(f"the run ended before {stage} was seen")


@pytest.mark.slow
def test_a_game_that_was_killed_tells_everything_once(players: Path, questions: Path, tmp_path: Path) -> None:
    """One state is saved after two of five updates: the third and the fourth are done twice."""
    sizes: dict[str, dict[str, object]] = {"attacker": {"steps": 5}, "defender": {"steps": 5}}
    small = game_recipe(players, questions)
    recipe = Recipe.model_validate(
        small.model_dump()
        | {name: getattr(small, name).model_dump() | own for name, own in sizes.items()}
        | {"track": ["tensorboard"]}
    )
    torn = play_and_be_killed(recipe, tmp_path, "round1/attacker", 4)
    torn |= play_and_be_killed(recipe, tmp_path, "round2/defender", 4)
    summary = run_game(recipe, tmp_path, Screen(Console(file=io.StringIO())))

    told = tensorboard(tmp_path / "track")
    assert [name for name in told if not is_documented(name)] == []
    always = {name for name, when in DOCUMENTED.items() if not when and name == name.lower()}
    assert always - told.keys() == set()
    rows = tracked(told, torn)
    updates = {
        key: row for key, row in ledger_s(tmp_path).items() if ":".join(map(str, key)) not in torn.values()
    }
    assert {stage for stage, _ in updates} == set(STAGES)
    for key, metrics in updates.items():
        assert {name: rows[key][name] for name in metrics} == pytest.approx(metrics), key
    assert rows.keys() == updates.keys()
    payoff = summary["payoff"]
    for defender, row in zip(payoff["defenders"], payoff["accuracy"], strict=True):
        for opponent, cell in zip(payoff["opponents"], row, strict=True):
            ((_, value),) = told[f"payoff/{defender}/{opponent}"]
            assert value == pytest.approx(cell["value"])
    for number, (_, value) in enumerate(told["held_out/valid_asr"][1:]):
        assert value == pytest.approx(summary["rounds"][number]["attacker"]["valid_asr"]["value"])
    events = EventAccumulator(str(tmp_path / "track/tensorboard")).Reload()
    assert len(events.Images("held_out/edits/0")) == 3
